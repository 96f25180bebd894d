"""A line of a table: shares in per cent with an interval, other metrics unchanged."""

import pytest

from vislang.metrics.figure import figures_as_json, plain, share
from vislang.studies.line import mean_line


def test_a_share_is_averaged_over_seeds_and_its_interval_is_that_of_one_seed():
    rows = [{"figures": figures_as_json({"accuracy": share(right, 10)})} for right in (4, 6)]
    line = mean_line(rows, "accuracy")
    assert line.mean == share(5, 10)
    assert str(line) == "50.0 (23.7 to 76.3, seeds 40.0 to 60.0)"


def test_a_loss_has_no_interval():
    rows = [{"blind": figures_as_json({"loss_per_token": plain(value, 10)})} for value in (1.0, 2.0)]
    line = mean_line(rows, "loss_per_token", "blind")
    assert line.mean.value == pytest.approx(1.5)
    assert str(line) == "1.500 (seeds 1.000 to 2.000)"
    assert str(mean_line(rows[:1], "loss_per_token", "blind")) == "1.000"
