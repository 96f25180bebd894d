"""The order of examples: each once per epoch, and the same from any position on."""

from collections import Counter
from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st

from vislang.data import order
from vislang.data.order import Complementary, Permutation, Shuffled


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


ASKED = st.one_of(st.none(), st.tuples(st.sampled_from("pqr"), st.sampled_from(["yes", "no", "red"])))


@given(st.lists(ASKED, min_size=1, max_size=30), st.integers(0, 2**31), st.integers(0, 90))
def test_the_second_of_a_pair_has_the_same_question_and_another_answer(asked, seed, start):
    pairs = Complementary(asked, seed)
    met = [pairs[position] for position in range(100)]
    assert met[::2] == [Shuffled(len(asked), seed)[position] for position in range(50)]
    for first, second in zip(met[::2], met[1::2], strict=True):
        has_complement = any(o and asked[first] and o[0] == asked[first][0] and o != asked[first] for o in asked)
        if has_complement:
            assert asked[second][0] == asked[first][0]
            assert asked[second] != asked[first]
    assert [Complementary(asked, seed)[position] for position in range(start, 100)] == met[start:]


def test_in_pairs_a_rare_answer_occurs_as_often_as_a_frequent_one():
    asked = [("is it red?", "no")] * 90 + [("is it red?", "yes")] * 10
    pairs = Complementary(asked, 0)
    met = [pairs[position] for position in range(400)]
    assert Counter(asked[index][1] for index in met) == {"no": 200, "yes": 200}
    assert {index for index in met if asked[index][1] == "yes"} == set(range(90, 100))
    assert pairs.pairs == 100
