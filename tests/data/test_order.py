from itertools import islice

import pytest
from hypothesis import given
from hypothesis import strategies as st

from vislang.data.order import ShuffledForever


@given(st.integers(1, 30), st.integers(0, 5), st.integers(0, 70))
def test_starting_later_is_the_same_order_further_on(size, seed, start):
    whole = list(islice(ShuffledForever(size, seed), start + 40))
    assert list(islice(ShuffledForever(size, seed, start), 40)) == whole[start:]


@given(st.integers(1, 30), st.integers(0, 5))
def test_each_epoch_holds_each_example_once(size, seed):
    order = list(islice(ShuffledForever(size, seed), 3 * size))
    epochs = [order[n * size : (n + 1) * size] for n in range(3)]
    assert all(sorted(epoch) == list(range(size)) for epoch in epochs)
    if size > 8:
        assert epochs[0] != epochs[1]


def test_seeds_differ_and_nothing_is_refused():
    assert list(islice(ShuffledForever(20, 0), 20)) != list(islice(ShuffledForever(20, 1), 20))
    with pytest.raises(ValueError, match="no examples"):
        ShuffledForever(0, 0)
