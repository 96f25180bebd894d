import pytest
from hypothesis import given
from hypothesis import strategies as st

from vislang.train.schedule import warmup_cosine


def test_the_curve():
    factors = [warmup_cosine(step, 100, 10) for step in range(100)]
    assert factors[0] == pytest.approx(0.1, rel=1e-3)
    assert max(factors) == factors[9]
    assert factors[50] == pytest.approx(0.5)
    assert factors[99] < 0.001
    assert warmup_cosine(100, 100, 0, final=0.1) == pytest.approx(0.1)


@given(st.integers(1, 500), st.integers(0, 50), st.floats(0, 1), st.data())
def test_always_between_nothing_and_the_peak(steps, warmup, final, data):
    step = data.draw(st.integers(0, steps - 1))
    assert 0 < warmup_cosine(step, steps, warmup, final) <= 1
