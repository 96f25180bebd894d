"""Outputs that cannot be written are errors before any work, in all commands alike."""

import os

import pytest

from vislang.cli import main
from vislang.commands.outputs import must_hold_file, must_hold_folder
from vislang.errors import UserError

WRITE_FILES = (
    ["explain", "none", "none.png", "what is it?", "-o"],
    ["embed", "none", "none.txt", "-o"],
    ["eval", "none", "--task", "easy-vqa", "--shots", "0,4", "--report"],
)
WRITE_FOLDERS = (
    ["convert", "fairseq", "none.pt", "--config", "none.json"],
    ["convert", "vilbert", "none.pt", "--config", "none.json"],
    ["convert", "open-flamingo", "none.pt", "--config", "none.json", "--language-model", "none"],
    ["convert", "transformers", "none"],
    ["export", "transformers", "none"],
    ["eval", "none", "--task", "vqa", "--data", "none"],
)


@pytest.fixture
def here(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "file").write_text("mine")
    (tmp_path / "folder").mkdir()
    return tmp_path


@pytest.mark.parametrize("command", WRITE_FILES, ids=" ".join)
@pytest.mark.parametrize(
    ("place", "message"), [("none/page", "there is no folder none. Create it first"), ("folder", "folder: is a folder")]
)
def test_no_file_can_be_there(here, command, place, message, capsys):
    assert main([*command, place]) == 2
    assert message in capsys.readouterr().err


@pytest.mark.parametrize("command", WRITE_FOLDERS, ids=" ".join)
@pytest.mark.parametrize("place", ["file", "file/below/it"])
def test_no_folder_can_be_there(here, command, place, capsys):
    option = ["--out"] if command[0] == "eval" else []
    assert main([*command, *option, place]) == 2
    assert f"vislang: {place}: file is a file. Give the path of a folder." in capsys.readouterr().err
    assert (here / "file").read_text() == "mine"


def test_a_run_needs_a_folder(here, capsys):
    (here / "tiny.yaml").write_text(
        "model: {class_path: vislang.models.vilbert.tasks.ViLBERTRecipe}\ndata: none.jsonl\ntrain: {steps: 1}\n"
    )
    assert main(["train", "tiny.yaml", "--out", "file/run"]) == 2
    assert "vislang: file/run: file is a file. Give the path of a folder." in capsys.readouterr().err


def test_what_can_be_written_is_let_be(here):
    must_hold_file(here / "file")
    must_hold_file(here / "folder" / "new.html")
    must_hold_folder(here / "folder")
    must_hold_folder(here / "a" / "b" / "c")
    assert sorted(os.listdir(here)) == ["file", "folder"]


def test_a_folder_without_write_permission(here, monkeypatch):
    """A superuser may write anywhere, so the result of ``os.access`` is replaced."""
    monkeypatch.setattr(os, "access", lambda path, mode: False)
    with pytest.raises(UserError, match=r"--report .*page\.html: .*folder is not writable"):
        must_hold_file(here / "folder" / "page.html", "--report")
    with pytest.raises(UserError, match="folder is not writable"):
        must_hold_folder(here / "folder" / "model")
