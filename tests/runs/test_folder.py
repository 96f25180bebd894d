"""The folder of a run: two runs never share one, and what is no run is left alone."""

import json
from pathlib import Path

import pytest

from tests import tiny
from vislang.cli import main
from vislang.recipe import read_recipe
from vislang.runs.folder import LOCK, RUN, fresh_folder, locked, must_be_free


def train(*arguments: str) -> int:
    return main(["train", *arguments])


@pytest.fixture
def recipe(towers, pictures) -> str:
    return str(tiny.write_recipe(pictures / "tiny.yaml", *towers, steps=4, eval_every=0))


@pytest.fixture
def finished(tmp_path):
    """A folder that looks like that of a finished run."""
    (tmp_path / "run").mkdir()
    (tmp_path / "run" / RUN).write_text(json.dumps({"recipe": {"model": {}}}))
    (tmp_path / "run" / "metrics.jsonl").write_text("{}")
    return tmp_path / "run"


@pytest.mark.parametrize("option", ["--out", "--resume"])
def test_a_second_run_in_one_folder_is_an_error_and_changes_nothing(recipe, finished, option, capsys, monkeypatch):
    """And no tower is opened for it."""
    monkeypatch.setattr("vislang.models.flamingo.model.load_language_tower", lambda *_: pytest.fail("opened a tower"))
    _, values = read_recipe(Path(recipe))
    (finished / RUN).write_text(json.dumps({"recipe": values}))
    before = {path.name: path.read_bytes() for path in finished.iterdir()}
    with locked(finished):
        assert train(recipe, option, str(finished)) == 2
        assert f"{finished}: another process is training in this folder" in capsys.readouterr().err
    (finished / LOCK).unlink()
    assert {path.name: path.read_bytes() for path in finished.iterdir()} == before
    assert [path.name for path in finished.parent.glob("run*")] == ["run"]


def test_a_run_that_fails_before_its_first_step_leaves_nothing(recipe, pictures, tmp_path, capsys):
    boxes = [{"image": f"{n}.png", "text": "it", "box": [0, 0, 9, 9]} for n in range(12)]
    (pictures / "boxes.jsonl").write_text("\n".join(map(json.dumps, boxes)))
    assert train(recipe, "--data", str(pictures / "boxes.jsonl"), "--out", str(tmp_path / "run")) == 2
    assert "this model learns to generate text, and the target is of the kind box" in capsys.readouterr().err
    assert not (tmp_path / "run").exists()


def test_an_earlier_run_is_renamed_unless_it_is_still_running(finished):
    with locked(finished), pytest.raises(ValueError, match="another process is training"):
        fresh_folder(finished)
    moved = fresh_folder(finished)
    assert moved == finished.with_name("run.1")
    assert (moved / "metrics.jsonl").read_text() == "{}"
    assert not list(finished.iterdir())
    # A folder that a run has locked and not written to yet is free once that run is over.
    with locked(finished), pytest.raises(ValueError, match="another process is training"):
        must_be_free(finished)
    assert fresh_folder(finished) is None


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("photo.png", "mine", "is not empty and contains no run (no run.json)"),
        (RUN, '{"app": "another"}', "not the folder of a run (its run.json contains no recipe)"),
        (RUN, "mine", "run.json"),
    ],
)
def test_a_folder_of_something_else_is_neither_renamed_nor_resumed(recipe, tmp_path, name, content, message, capsys):
    folder = tmp_path / "mine"
    folder.mkdir()
    (folder / name).write_text(content)
    for option in ("--out", "--resume"):
        assert train(recipe, option, str(folder)) == 2
        error = capsys.readouterr().err
        assert message in error or (option == "--resume" and "(it has no run.json)" in error)
    assert [path.name for path in folder.iterdir()] == [name]
    assert (folder / name).read_text() == content
    assert not (tmp_path / "mine.1").exists()
