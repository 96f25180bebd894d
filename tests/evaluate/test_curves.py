"""Curves and intervals: what is drawn, on which scale, and what is not drawn since it would say nothing."""

import math

import pytest

from vislang.evaluate.curves import compared_plots, run_plots, single_values, typical_speed
from vislang.evaluate.intervals import drawn
from vislang.metrics.figure import Figure

STEP = {"loss": 2.0, "loss/text": 2.0, "gate/1/attention": 0.1, "gate/1/feed_forward": -0.1, "seconds": 60.0}


def rows(count, **more):
    return [{"step": n, **STEP, "loss": 2.0 / n, "seconds": 60.0 * n, **more} for n in range(1, count + 1)]


def headings(plots):
    return [plot.heading for plot in plots]


def test_one_point_is_no_curve():
    once = {"step": 1, "eval/accuracy": 0.8125, "eval/pages/loss_per_token": 1.5}
    assert run_plots([*rows(1), once]) == []
    assert single_values([*rows(1), once]) == [
        "accuracy 81.2 % at step 1",
        "pages: loss per token 1.500 at step 1",
    ]
    twice = [*rows(2), once, {**once, "step": 2}]
    assert headings(run_plots(twice)) == [
        "Loss",
        "Held-out examples: accuracy",
        "Held-out examples: pages: loss per token",
        "How far each gate is open",
    ]
    assert single_values(twice) == []
    assert run_plots([]) == []


def test_each_stream_has_its_own_loss_and_streams_share_a_diagnostic():
    of_two = [
        {
            "step": n,
            "loss": 3.0,
            "loss/a/x": 1.0,
            "loss/a/y": 0.5,
            "loss/b/x": 1.5,
            "a/target_std": 1.0,
            "b/target_std": 0.9,
        }
        for n in (1, 2)
    ]
    plots = run_plots(of_two)
    assert headings(plots)[:2] == ["Loss: a", "Loss: b"]
    assert [key.name for key in plots[2].keys] == ["a, training examples", "b, training examples"]
    assert all(not plot.keys for plot in plots[:2]), "a line alone needs no key"


def test_a_run_keeps_its_colour_in_every_plot_of_a_comparison():
    """Also where another run has nothing to draw."""
    evaluated = [{"step": n, "eval/accuracy": 0.5} for n in (1, 2)]
    plots = compared_plots({"first": rows(3), "second": [*rows(4), *evaluated]})
    assert headings(plots) == ["Loss", "Loss, over time", "Held-out examples: accuracy"]
    loss, over_time, accuracy = plots
    assert [key.name for key in loss.keys] == ["first", "second"]
    colour = {key.name: key.colour for key in loss.keys}
    assert colour["first"] != colour["second"]
    for plot in (over_time, accuracy):
        assert {key.name: key.colour for key in plot.keys}.items() <= colour.items()
        assert all(f"stroke: {key.colour}" in plot.svg for key in plot.keys)
    assert [key.name for key in accuracy.keys] == ["second"]
    assert "minutes of training" in over_time.svg


def test_a_plot_has_the_colours_of_the_page_and_nothing_from_outside():
    (loss, *_) = run_plots(rows(30))
    assert "var(--series-1)" in loss.svg
    assert "currentColor" in loss.svg
    assert "#01" not in loss.svg
    assert "#02" not in loss.svg
    assert "<g id" not in loss.svg, "ids would be double on a page"
    assert "http" not in loss.svg.replace("http://www.w3.org", "")


def test_speed_is_the_median_and_memory_the_most():
    measured = [
        {"step": n, "speed/examples_per_second": v, "memory/peak_gib": v} for n, v in enumerate([1.0, 9.0, 8.0])
    ]
    assert typical_speed(measured) == {"speed/examples_per_second": 8.0, "memory/peak_gib": 9.0}


def test_shares_lie_on_a_scale_to_100_and_other_metrics_on_that_of_their_ends():
    of_share = drawn("accuracy", {"ours": Figure(0.6, 0.5, 0.75, 40), "chance": Figure(0.25, None, None, 40)})
    assert [(row.who, row.value, row.interval) for row in of_share] == [
        ("ours", "60.0 %", "50.0 to 75.0"),
        ("chance", "25.0 %", ""),
    ]
    assert [(row.low, row.at, row.high) for row in of_share] == [(50.0, 60.0, 75.0), (25.0, 25.0, 25.0)]
    error = drawn("mae", {"ours": Figure(2.0, 1.0, 3.0, 9), "mean": Figure(5.0, 4.0, 6.0, 9)})
    assert [(row.low, row.at, row.high) for row in error] == [(0.0, 20.0, 40.0), (60.0, 80.0, 100.0)]
    (undefined,) = drawn("pearson_r", {"constant": Figure(math.nan, None, None, 9)})
    assert undefined.at is None
    assert drawn("mae", {"alone": Figure(2.0, None, None, 9)})[0].at == pytest.approx(0.0)
