"""Runs that are continued by the command line: as they were started, for more steps, or from their beginning."""

import json
import shutil

import pytest

from tests import tiny
from vislang.cli import main
from vislang.train.log import read_metrics


@pytest.fixture(autouse=True)
def _no_report(monkeypatch):
    """The report of a run is tested elsewhere, and takes longer than these runs."""
    monkeypatch.setattr("vislang.runs.run.draw_report", lambda run, folder, *rest: None)


@pytest.fixture(scope="module")
def started(towers, tmp_path_factory):
    """A recipe, and a run of it whose settings were changed on the command line."""
    folder = tmp_path_factory.mktemp("run")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("VISLANG_CACHE", str(folder / "cache"))
        (folder / "my.jsonl").write_text(
            "\n".join(json.dumps({"image": f"{n}.png", "question": "what?", "answer": "ab"[n % 2]}) for n in range(12))
        )
        for number in range(12):
            tiny.write_picture(folder / f"{number}.png", number)
        recipe = tiny.write_recipe(folder / "tiny.yaml", *towers, steps=9, eval_every=0, checkpoint_every=2)
        changes = ["--train.steps=4", "--train.lr=0.002", "--model.bridge.latents=3"]
        assert main(["train", str(recipe), "--out", str(folder / "run"), *changes]) == 0
    return recipe, folder / "run"


@pytest.fixture
def run(started, tmp_path):
    """A copy of that run."""
    return shutil.copytree(started[1], tmp_path / "run")


def losses(folder) -> list[float]:
    return [row["loss"] for row in read_metrics(folder / "metrics.jsonl") if "loss" in row]


def test_a_run_is_continued_as_it_was_started_and_not_as_its_recipe_has_it(started, run, capsys):
    recipe, _ = started
    before = losses(run)
    assert main(["train", str(recipe), "--resume", str(run)]) == 2
    error = capsys.readouterr().err
    assert "is a run with other settings (lr was 0.002, is 0.003)" in error
    assert f"vislang train --resume {run}" in error
    assert main(["train", "--resume", str(run)]) == 0
    assert losses(run) == before
    assert json.loads((run / "run.json").read_text())["recipe"]["train"]["lr"] == 0.002


def test_a_finished_run_is_extended(run, capsys):
    before = losses(run)
    assert main(["train", "--resume", str(run), "--train.steps", "6"]) == 0
    assert "extended from 4 to 6 steps" in capsys.readouterr().err
    assert losses(run)[:4] == before
    assert len(losses(run)) == 6
    assert json.loads((run / "metrics.json").read_text())["steps"] == 6


def test_a_run_that_was_killed_before_its_first_checkpoint_starts_again(run, capsys):
    before = losses(run)
    for path in run.iterdir():
        if path.name != "run.json":
            shutil.rmtree(path) if path.is_dir() else path.unlink()
    assert main(["train", "--resume", str(run)]) == 0
    assert "stopped before its first checkpoint; starts from step 0" in capsys.readouterr().err
    assert losses(run) == before


def test_the_checkpoint_before_a_damaged_one_is_used_with_a_warning(run, capsys):
    before = losses(run)
    (latest,) = (run / "checkpoints").glob("step-*4")
    part = next(latest.glob("*.distcp"))
    part.write_bytes(part.read_bytes()[:-20])
    assert main(["train", "--resume", str(run)]) == 0
    error = capsys.readouterr().err
    assert "note: " in error
    assert "step-00000004: damaged, and passed over" in error
    assert losses(run) == before
