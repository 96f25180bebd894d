"""The order of examples: each once per epoch, and the same from any position on."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from vislang.data.order import Shuffled


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
