"""``vislang report`` of several runs, and of runs that are not finished, from folders as a run leaves them."""

import json

import pytest

from tests.browser import browse
from tests.evaluate.test_report import looks_right
from vislang.cli import main
from vislang.evaluate.differences import differing, flat


def write_run(folder, lr, accuracy, steps=24, of=24, **about):
    """The folder of a run that learned to a certain accuracy."""
    folder.mkdir(parents=True)
    train = {"lr": lr, "steps": of, "seed": 0, "lr_scale": {"gates": 20}}
    recipe = {"model": {"class_path": "a.B", "init_args": {"latents": 8}}, "data": "my.jsonl", "train": train}
    environment = {"versions": {"torch": "2.13"}, "threads": 2, "machine": "x86_64", **about}
    (folder / "run.json").write_text(json.dumps({"schema": 1, "recipe": recipe, **environment}))
    rows = [
        {
            "step": n,
            "loss": 3 / n,
            "loss/text": 3 / n,
            "seconds": n * lr * 100,
            "speed/examples_per_second": 10.0 + n % 3,
            "memory/peak_gib": 1.5,
        }
        for n in range(1, steps + 1)
    ]
    rows += [{"step": n, "eval/accuracy": accuracy * n / of} for n in range(6, steps + 1, 6)]
    (folder / "metrics.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    if steps == of:
        figure = {"value": accuracy, "low": accuracy - 0.1, "high": accuracy + 0.1, "n": 40}
        task = {"schema": 1, "task": "my", "way": "generate", "n": 40, "figures": {"accuracy": figure}}
        held_out = {"my": {"loss_per_token": {"value": lr, "low": None, "high": None, "n": 40}}}
        metrics = {"steps": steps, "train_seconds": 2.0, "total_seconds": 3.0, "tasks": {"my": task}}
        (folder / "metrics.json").write_text(json.dumps({**metrics, "held_out": held_out}))
    return folder


@pytest.fixture
def runs(tmp_path):
    return [
        write_run(tmp_path / "a" / "run", 0.001, 0.6),
        write_run(tmp_path / "b" / "run", 0.003, 0.75, machine="arm64"),
        write_run(tmp_path / "b" / "stopped", 0.003, 0.7, steps=12),
    ]


def test_runs_are_compared_on_one_page(runs, tmp_path):
    page = tmp_path / "comparison.html"
    assert main(["report", *map(str, runs), "--out", str(page)]) == 0
    source = page.read_text(encoding="utf-8")
    assert "<script" not in source
    with browse(page, tmp_path) as browser:

        def table(name):
            lines = browser.find_elements("css selector", f"#{name} tr")
            cells = [[cell.text for cell in line.find_elements("css selector", "th, td")] for line in lines]
            return {first: rest for first, *rest in cells}

        assert table("settings") == {
            "": ["a/run", "b/run", "b/stopped"],
            "train.lr": ["0.001", "0.003", "0.003"],
            "environment.machine": ["x86_64", "arm64", "x86_64"],
        }
        speed = table("speed")
        assert speed["steps"] == ["24", "24", "12 of 24, not finished"]
        assert speed["samples/s"] == ["11.0"] * 3
        assert speed["peak memory"] == ["1.5 GiB"] * 3
        assert table("losses")["my: loss per token"] == ["0.0010", "0.0030", "—"]
        scores = [row.text for row in browser.find_elements("css selector", ".figures tr")]
        assert [line for line in scores if "run" in line] == ["a/run 60.0 % 50.0 to 70.0", "b/run 75.0 % 65.0 to 85.0"]
        plots = browser.find_elements("css selector", ".plot")
        assert [plot.find_element("tag name", "figcaption").text for plot in plots] == [
            "Loss",
            "Loss, over time",
            "Held-out examples: accuracy",
        ]
        for plot in plots:
            keys = [key.text for key in plot.find_elements("css selector", ".keys li")]
            assert keys == ["a/run", "b/run", "b/stopped"]
        looks_right(browser)


def test_scores_on_other_numbers_of_examples_stand_apart(runs, tmp_path):
    path = runs[1] / "metrics.json"
    path.write_text(path.read_text().replace('"n": 40, "figures"', '"n": 50, "figures"'))
    page = tmp_path / "page.html"
    assert main(["report", *map(str, runs[:2]), "--out", str(page)]) == 0
    source = page.read_text(encoding="utf-8")
    assert "my: 40 examples, accuracy" in source
    assert "my: 50 examples, accuracy" in source


def test_a_run_that_is_not_finished_has_a_page_of_its_curves(runs, tmp_path):
    assert main(["report", str(runs[2])]) == 0
    source = (runs[2] / "report.html").read_text(encoding="utf-8")
    assert "This run has not come to its end: step 12 of 24" in source
    assert source.count("<svg") == 2
    # Extended beyond the end that its figures are of, a run is not finished either.
    with (runs[0] / "metrics.jsonl").open("a") as log:
        log.write(json.dumps({"step": 25, "loss": 0.1, "seconds": 3.0}) + "\n")
    assert main(["report", str(runs[0])]) == 0
    assert "has not come to its end: step 25" in (runs[0] / "report.html").read_text(encoding="utf-8")


def test_careless_use(runs, tmp_path, capsys):
    for words, message in (
        ([runs[0], runs[0] / "." / ""], "is named twice"),
        ([runs[0], tmp_path / "none"], "none: not the folder of a run"),
        ([runs[0], runs[1], "--out", tmp_path / "no" / "page.html"], "there is no folder"),
    ):
        assert main(["report", *map(str, words)]) == 2
        assert message in capsys.readouterr().err
    (runs[1] / "metrics.jsonl").write_text('{"step": 1\n{"step": 2}\n')
    assert main(["report", *map(str, runs)]) == 2
    assert "metrics.jsonl:1: not JSON" in capsys.readouterr().err


def test_settings_are_compared_by_their_dotted_names():
    one = {"data": [{"name": "a", "weight": 1.0}, {"name": "b"}], "betas": [0.9, 0.95], "x": {"y": None}, "z": {}}
    other = {"data": [{"name": "a", "weight": 2.0}], "betas": [0.9, 0.95], "x": {"y": None}, "z": {}}
    assert flat(one) == {
        "data.a.name": "a",
        "data.a.weight": "1.0",
        "data.b.name": "b",
        "betas": "[0.9, 0.95]",
        "x.y": "null",
        "z": "{}",
    }
    assert differing([flat(one), flat(other)]) == [("data.a.weight", ["1.0", "2.0"]), ("data.b.name", ["b", "—"])]
