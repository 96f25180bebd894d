"""The order of examples: each once per epoch, and the same from any position on."""

from collections import Counter
from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st

from vislang.data import order
from vislang.data.order import Permutation, Shuffled


@given(st.integers(1, 50), st.integers(0, 2**31), st.integers(0, 200))
def test_a_later_start_meets_what_it_would_have_met(size, seed, start):
    whole = Shuffled(size, seed)
    met = [whole[position] for position in range(start + 40)]
    later = Shuffled(size, seed)
    assert [later[position] for position in range(start, start + 40)] == met[start:]


@given(st.integers(1, 50), st.integers(0, 2**31))
def test_each_epoch_meets_each_example_once(size, seed):
    shuffled = Shuffled(size, seed)
    for epoch in range(3):
        assert sorted(shuffled[epoch * size + position] for position in range(size)) == list(range(size))


def test_seeds_and_epochs_differ_and_no_examples_are_an_error():
    one, other = Shuffled(20, 0), Shuffled(20, 1)
    first = [one[position] for position in range(20)]
    assert first != [other[position] for position in range(20)]
    assert first != [one[20 + position] for position in range(20)]
    with pytest.raises(ValueError, match="no examples"):
        Shuffled(0, 0)


@pytest.mark.parametrize("size", [1, 2, 3, 5, 16, 17, 1000])
def test_a_long_order_is_a_permutation(size):
    orders = [[Permutation(size, seed)[n] for n in range(size)] for seed in range(3)]
    for found in orders:
        assert sorted(found) == list(range(size))
    if size == 1000:
        assert orders[0] != orders[1] != orders[2]
        # Neighbours are far apart, and no number stays where it was more often than by chance.
        assert sum(abs(a - b) for a, b in pairwise(orders[0])) / 999 == pytest.approx(1000 / 3, rel=0.1)
        assert sum(number == n for n, number in enumerate(orders[0])) < 8


def test_every_number_comes_first_equally_often():
    counts = Counter(Permutation(10, seed)[0] for seed in range(3000))
    # 300 times each, with a standard deviation of 16.
    assert all(220 < counts[number] < 380 for number in range(10))


def test_long_epochs_are_permuted_anew(monkeypatch):
    monkeypatch.setattr(order, "LONG", 50)
    shuffled = Shuffled(60, 1)
    first, second = ([shuffled[n] for n in range(start, start + 60)] for start in (0, 60))
    assert sorted(first) == sorted(second) == list(range(60))
    assert first != second
    assert Shuffled(60, 1)[75] == second[15]
