"""Tasks times models on the command line: every cell runs, keeps what was sent and answered, and is scored again from
there without the model."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from tests.evaluate.cells import CELLS
from tests.tasks.official import FOLDERS
from vislang.cli import main
from vislang.evaluate.browse import OTHERS, WORST
from vislang.metrics.figure import METRICS
from vislang.tasks.benchmarks import BENCHMARKS
from vislang.tasks.catalogue import open_task

ALL = [(model, task) for model, tasks in CELLS.items() for task in tasks]
SUBMISSIONS = {
    "vqa": "vqa_results.json",
    "vcr": "vcr_submission.csv",
    "refcoco": "refcoco_predictions.json",
    "nlvr2": "nlvr2_predictions.csv",
    "snli-ve": "snli_ve_predictions.jsonl",
    "hateful-memes": "hateful_memes_predictions.csv",
    "mvsa": "mvsa_predictions.jsonl",
    "sentiment": "sentiment_predictions.jsonl",
    "r2r": "r2r_submission.json",
}

OURS = ("upper_bound", "answered")
"""Figures that follow from our own predictions alone."""


def printed(capsys, *arguments: str) -> dict:
    """The one JSON object that a command prints."""
    assert main(["eval", *arguments, "--json"]) == 0
    (line,) = capsys.readouterr().out.splitlines()
    return json.loads(line)


def rows(folder: Path) -> list[dict]:
    return [json.loads(line) for line in (folder / "predictions.jsonl").read_text().splitlines()]


def must_be_figures(figures: dict) -> None:
    assert figures
    for name, figure in figures.items():
        assert any(name.startswith(known) for known in METRICS), name
        assert set(figure) == {"value", "low", "high", "n"}


def values(figures: dict) -> dict:
    return {name: figure["value"] for name, figure in figures.items()}


def test_every_benchmark_has_its_submission_file():
    assert set(SUBMISSIONS) == set(BENCHMARKS) & set(FOLDERS)


@pytest.mark.parametrize(("model", "name"), ALL, ids=lambda value: value)
def test_a_cell_runs_and_is_scored_again_without_the_model(saved, folder, tmp_path, capsys, model, name):
    spec, out = f"{name}:{folder / name}", tmp_path / "out"
    found = printed(capsys, saved[model], "--task", spec, "--out", str(out))
    assert (found["schema"], found["way"], found["spec"]) == (1, CELLS[model][name], spec)
    must_be_figures(found["figures"])

    kept = json.loads((out / "results.json").read_text())
    assert {key: kept[key] for key in found} == found
    assert {"versions", "machine"} <= set(kept)
    task = open_task(spec)
    examples = task.examples(found["split"])
    assert [row["id"] for row in rows(out)] == task.ids(examples)
    assert all(row["prompt"] for row in rows(out))

    page = tmp_path / "page.html"
    again = printed(capsys, str(out / "predictions.jsonl"), "--report", str(page))
    assert (again["schema"], again["way"], again["n"]) == (1, "file", found["n"])
    shown = page.read_text(encoding="utf-8").count('<article class="card')
    # Retrieval has rankings in place of answers.
    assert shown == (0 if name == "retrieval" else min(found["n"], WORST + OTHERS))
    assert again["figures"] == found["figures"]

    written = {path.name for path in out.iterdir()} - {"results.json", "predictions.jsonl", "card.json"}
    assert written == ({SUBMISSIONS[name]} if name in SUBMISSIONS else set())
    if written:
        official = printed(capsys, str(out / SUBMISSIONS[name]), "--task", spec)
        # A submission has no candidates, whose best one could be scored, and a number for every record.
        expected = {key: value for key, value in values(found["figures"]).items() if key not in OURS}
        assert values(official["figures"]) == pytest.approx(expected, abs=1e-6)


@pytest.mark.parametrize("name", CELLS["flamingo"])
def test_a_cell_runs_after_shots_and_is_scored_again_without_the_model(saved, folder, tmp_path, capsys, name):
    spec, out = f"{name}:{folder / name}", tmp_path / "out"
    numbers, seeds = "0,4" if name == "vqa" else "0,2", 2 if name == "nlvr2" else 1
    arguments = ("--task", spec, "--shots", numbers, "--seeds", str(seeds), "--out", str(out))
    found = printed(capsys, saved["flamingo"], *arguments)
    assert (found["schema"], found["spec"]) == (1, spec)
    shots = [int(number) for number in numbers.split(",")]
    # Ranks of images by their captions are never measured without the images.
    measured = {"plain": shots, "images_shuffled": shots[1:], "labels_shuffled": shots[1:]}
    measured |= {} if name == "retrieval" else {"blind": shots}
    # A number, a path or a caption is not a class of a probe, and the index of a choice means nothing elsewhere.
    measured |= {} if name in ("retrieval", "vcr", "r2r") else {"most_similar_shot": shots[1:]}
    measured |= {"linear_probe": shots[1:]} if name in ("vqa", "nlvr2", "snli-ve", "hateful-memes", "mvsa") else {}
    assert {v: [p["shots"] for p in found["points"] if p["variant"] == v] for v in measured} == measured
    assert len(found["points"]) == sum(map(len, measured.values()))
    for point in found["points"]:
        must_be_figures(point["figures"])
        assert point["blind"] == (point["variant"] == "blind")
        assert list(point["seeds"]) == [str(seed) for seed in range(seeds)]

    kept = json.loads((out / "results.json").read_text())
    assert {key: kept[key] for key in found} == found
    task = open_task(spec)
    ids = task.ids(task.examples(found["split"]))
    assert [row["id"] for row in rows(out)] == ids * seeds * len(found["points"])

    page = tmp_path / "page.html"
    again = printed(capsys, str(out / "predictions.jsonl"), "--report", str(page))
    assert again["points"] == found["points"]
    assert ("One trial: " in page.read_text(encoding="utf-8")) == (name != "retrieval")
    written = {path.name for path in out.iterdir()} - {"results.json", "predictions.jsonl", "card.json"}
    expected = {f"{n}-shots-random-seed-{seed}-{SUBMISSIONS.get(name)}" for n in shots for seed in range(seeds)}
    assert written == (expected if name in SUBMISSIONS else set())
