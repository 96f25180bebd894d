"""``vislang leaderboard``."""

import json

from tests.evaluate.test_published import evaluation
from vislang.cli import main


def test_own_runs_stand_beside_the_papers(tmp_path, capsys, monkeypatch):
    monkeypatch.setenv("COLUMNS", "200")
    evaluation(tmp_path / "run")
    assert main(["leaderboard", "vqa", "--runs", str(tmp_path / "run")]) == 0
    shown = " ".join(capsys.readouterr().out.split())
    assert "Flamingo-80B" in shown
    assert "41.0 (38.0 to 44.0)" in shown
    assert "split: val2014, not test-dev" in shown


def test_json_has_the_same(tmp_path, capsys):
    evaluation(tmp_path / "run")
    assert main(["leaderboard", "vqa", "--json", "--runs", str(tmp_path)]) == 0
    values = json.loads(capsys.readouterr().out)
    assert values["schema"] == 1
    board = next(board for board in values["boards"] if board["split"] == "test-dev")
    assert board["metric"] == "accuracy"
    assert {entry["model"] for entry in board["published"]} >= {"ViLBERT", "12-in-1", "Flamingo-9B", "OpenFlamingo-9B"}
    (run,) = board["runs"]
    assert run["figure"]["value"] == 0.41
    assert all(other["differences"] for other in run["compared"])


def test_without_a_task_all_are_listed(capsys):
    assert main(["leaderboard", "--json"]) == 0
    rows = json.loads(capsys.readouterr().out)["published"]
    assert {"task": "snli-ve", "data_set": "SNLI-VE", "n": 1} in rows


def test_mistakes_are_said(tmp_path, capsys):
    assert main(["leaderboard", "vqqa"]) == 2
    assert "no published numbers for 'vqqa'" in capsys.readouterr().err
    assert main(["leaderboard", "--runs", str(tmp_path)]) == 2
    assert "give the task, too" in capsys.readouterr().err
