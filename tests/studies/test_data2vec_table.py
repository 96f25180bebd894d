"""The table of a data2vec study: last steps, means over seeds, intervals by test examples."""

from vislang.metrics.figure import figures_as_json, share
from vislang.studies.data2vec_table import compared, last_lines, markdown


def row(representation, right, kind="linear", **run):
    figures = figures_as_json({"accuracy": share(right, 200)})
    return {"probe": "things", "representation": representation, "kind": kind, **run, "figures": figures}


ROWS = [
    row("v2", 60, seed=0, step=10),
    row("v2", 100, seed=0, step=20),
    row("v2", 120, seed=1, step=20),
    row("v2", 80, "neighbours", seed=0, step=20),
    row("v2, before training", 20, seed=0, step=0),
    row("pixels", 90),
]


def test_the_last_step_counts_and_seeds_are_averaged():
    lines = last_lines(ROWS, "linear")["things"]
    assert lines["v2"].mean == share(110, 200)
    assert lines["v2"].seeds == (0.5, 0.6)
    assert lines["pixels"].seeds == (0.45,)


def test_the_best_is_first():
    table = markdown(ROWS).splitlines()
    assert table[0].startswith("| things, 200 test examples |")
    assert table[2].startswith("| v2 | 55.0 (48.1 to 61.7, seeds 50.0 to 60.0) | 40.0 ")
    assert table[3].startswith("| pixels | 45.0 ")


def test_a_table_compares_two_encoders():
    better = [row("v2", 180, seed=0, step=20)]
    (_, _, line) = compared(ROWS, better).splitlines()
    assert [cell.strip().partition(" ")[0] for cell in line.strip("|").split("|")] == ["things", "55.0", "90.0", "10.0"]
