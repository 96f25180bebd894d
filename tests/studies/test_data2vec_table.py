"""The table of a study: last steps, means over seeds, intervals by test items."""

import pytest

from vislang.studies.data2vec_table import last_lines, markdown
from vislang.tasks.answers import proportion


def row(who, accuracy, kind="linear", **run):
    return {"probe": "things", "who": who, "kind": kind, "accuracy": accuracy, "items": 200, **run}


ROWS = [
    row("v2", 0.30, seed=0, step=10),
    row("v2", 0.50, seed=0, step=20),
    row("v2", 0.60, seed=1, step=20),
    row("v2", 0.40, "neighbours", seed=0, step=20),
    row("pixels", 0.45),
]


def test_the_last_step_counts_and_seeds_are_averaged():
    lines = last_lines(ROWS, "linear")["things"]
    assert lines["v2"].accuracy == proportion(110, 200)
    assert lines["v2"].accuracy.value == pytest.approx(0.55)
    assert lines["v2"].seeds == (0.5, 0.6)
    assert lines["pixels"].seeds == (0.45,)


def test_the_best_stands_first():
    table = markdown(ROWS).splitlines()
    assert table[0].startswith("| things, 200 test items |")
    assert table[2].startswith("| v2 | 55.0 (48.1 to 61.7, seeds 50.0 to 60.0) | 40.0 ")
    assert table[3].startswith("| pixels | 45.0 ")
