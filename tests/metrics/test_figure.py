import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from vislang.metrics.figure import Figure, figures_as_json, figures_from_json, mean, metric, share, show


# Values of the Wilson interval as published: Brown, Cai and DasGupta 2001, and by hand for 0 of 10.
@pytest.mark.parametrize(
    ("hits", "n", "low", "high"), [(0, 10, 0.0, 0.2775), (5, 10, 0.2366, 0.7634), (81, 263, 0.2553, 0.3662)]
)
def test_wilson_interval(hits, n, low, high):
    figure = share(hits, n)
    assert (round(figure.low, 4), round(figure.high, 4)) == (low, high)


@given(st.integers(1, 5000), st.data())
def test_an_interval_holds_its_value(n, data):
    hits = data.draw(st.integers(0, n))
    figure = share(hits, n)
    assert 0 <= figure.low <= figure.value <= figure.high <= 1


def test_no_trials_no_share_and_no_mean():
    with pytest.raises(ValueError, match="no trials"):
        share(0, 0)
    with pytest.raises(ValueError, match="no scores"):
        mean([])


def test_the_interval_of_a_mean():
    figure = mean([0.0] * 50 + [1.0] * 50)
    assert (figure.value, figure.n) == (0.5, 100)
    assert figure.low == pytest.approx(0.4, abs=0.02)
    assert figure.high == pytest.approx(0.6, abs=0.02)


def test_figures_survive_json_and_what_is_not_finite_is_null():
    figures = {"accuracy": share(1, 2), "pearson_r": Figure(math.nan, None, None, 3)}
    written = figures_as_json(figures)
    assert written["pearson_r"] == {"value": None, "low": None, "high": None, "n": 3}
    read = figures_from_json(written)
    assert read["accuracy"] == figures["accuracy"]
    assert math.isnan(read["pearson_r"].value)


def test_variants_are_shown_like_their_family():
    assert show("accuracy_yes_no", share(1, 2), interval=False) == "50.0 %"
    assert metric("recall_at_5_text_to_image").title == "R@5 text to image"
    assert not metric("navigation_error").higher_is_better
