"""Rehearsals: runs that are really killed and resumed, in their short form; promises that are broken are named."""

import json
import signal
import time
from dataclasses import replace
from pathlib import Path

import pytest

from tests.runs.rehearsed import run, write_recipe
from vislang.cli import main
from vislang.errors import UserError
from vislang.recipe import read_recipe
from vislang.runs.child import Child
from vislang.runs.kills import Kill, Strike, Timing
from vislang.runs.rehearse import Settings, _Copy, _plan, _Stage, _Whole
from vislang.runs.same import differences

# A busy machine ends slowly.
PATIENT = ["--grace", "300"]


@pytest.fixture(autouse=True)
def _few_threads(monkeypatch):
    monkeypatch.setenv("OMP_NUM_THREADS", "1")


def rehearsed(capsys, *words):
    """The exit status and the JSON object of a rehearsal."""
    status = main(["rehearse", *words, "--json", *PATIENT])
    return status, json.loads(capsys.readouterr().out)


def test_a_run_that_is_killed_and_changes_its_processes(tmp_path, capsys):
    recipe = write_recipe(tmp_path / "line.yaml")
    out = tmp_path / "runs"
    status, found = rehearsed(capsys, str(recipe), "--kills", "2", "--processes", "1,2", "--out", str(out))
    assert (status, found["kept"], found["exact"]) == (0, True, True), found
    own, changing = found["kills"]
    assert (own["signal"], own["processes"], own["moment"][:12]) == ("SIGKILL", 1, "writing step")
    assert (changing["signal"], changing["processes"], changing["lost"]) == ("SIGTERM", 1, 0)
    # What was being written is lost with the steps since.
    assert own["lost"] >= found["checkpoint_every"]
    same, changed = found["cases"]
    assert (same["promise"], same["largest_difference"], same["differences"]) == ("exact", 0, {})
    assert {"losses", "weights", "moments", "generators", "scores"} <= set(same["exact"])
    assert (changed["promise"], changed["processes"]) == ("tolerance", [1, 2])
    assert found["largest_difference"] == changed["largest_difference"] < 1e-5
    assert not list(out.rglob("report.html"))
    # Nothing is left of the checkpoint that was being written.
    assert not list(out.rglob(".unfinished-*"))
    assert found["folder"] == str(out)


def test_a_model_that_draws_without_a_seed_is_named(tmp_path, capsys, monkeypatch):
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path))
    recipe = write_recipe(tmp_path / "line.yaml", kind="Unseeded")
    status, found = rehearsed(capsys, str(recipe), "--kills", "1", "--steps", "4")
    assert (status, found["kept"], found["exact"]) == (1, False, False)
    (case,) = found["cases"]
    assert "two uninterrupted runs differ from step 1 on (losses" in case["why"]
    assert "this recipe is not deterministic" in case["why"]
    assert case["largest_difference"] > 0
    assert (Path(found["folder"]) / "whole-1-again" / "metrics.jsonl").is_file()


def test_what_a_checkpoint_lacks_breaks_both_promises(tmp_path):
    """A run in this process: its noise has a seed, and its state is in no checkpoint."""
    whole = run(tmp_path / "whole", kind="Forgetful")
    stopped = run(tmp_path / "stopped", kind="Forgetful", stop_after=5)
    recipe, _ = read_recipe(tmp_path / "recipe.yaml")

    def stage(tolerance: float) -> _Stage:
        made = _Stage(Settings(tmp_path / "recipe.yaml", tolerance=tolerance), recipe, tmp_path, True, print, [])
        made.whole[1] = _Whole(whole, Timing(0.1, 0.1))
        made._again[1] = differences(whole, whole)
        return made

    kill = Kill("copy", 1, "SIGTERM", "the command", "in step 5", 5, 5, 0.5)
    same, changed = _Copy("copy", stopped, [1, 1], [kill]), _Copy("copy", stopped, [1, 2], [kill])
    case = stage(0.01)._exact_case(same)
    assert (case.kept, list(case.differences)) == (False, ["losses"])
    assert "differs from step 6 on, after it had continued from step 5: something that the run depends on" in case.why
    case = stage(0.01)._changed_case(changed, [])
    assert (case.kept, case.promise, case.why) == (False, "tolerance", "losses differ by more than 1 %")
    assert stage(2 * case.relative_difference)._changed_case(changed, []).kept
    case = stage(0.01)._changed_case(changed, ["torch's"])
    assert (case.kept, case.promise) == (True, "none")
    assert "draws from torch's random generator" in case.why
    # What was the same up to the change is not any more, or a kill was no good.
    late = _Copy("copy", stopped, [1, 2], [replace(kill, continued_from=6)])
    assert not stage(2.0)._changed_case(late, ["torch's"]).kept
    slow = _Copy("copy", stopped, [1, 2], [replace(kill, fault="ended after 31 s")])
    case = stage(2.0)._changed_case(slow, [])
    assert (case.kept, case.why.endswith("ended after 31 s")) == (False, True)


def test_what_is_wrong_with_a_recipe_comes_through_as_one_sentence(tmp_path, capsys):
    recipe = write_recipe(tmp_path / "line.yaml")
    (tmp_path / "my.jsonl").write_text('{"text": 3}\n')
    assert main(["rehearse", str(recipe)]) == 2
    error = capsys.readouterr().err
    assert error.startswith("vislang: ")
    assert error.count("vislang: ") == 1
    assert "my.jsonl:1" in error


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["--processes", "1,x"], "--processes 1,x: give numbers with commas"),
        (["--processes", "0"], "--processes lists numbers of processes"),
        (["--kills", "1", "--processes", "1,2"], "--kills is 1; with 2 numbers of processes it must be"),
        (["--kills", "0"], "--kills is 0"),
        (["--steps", "1"], "a run of less than 2 steps"),
        (["--tolerance", "-1"], "--tolerance is -1.0"),
        (["--train.lr", "-1"], "train.lr is -1.0"),
        (["--out", "."], "is not empty"),
    ],
)
def test_options_that_cannot_be(words, message, tmp_path, capsys, monkeypatch):
    recipe = write_recipe(tmp_path / "line.yaml")
    monkeypatch.chdir(tmp_path)
    assert main(["rehearse", str(recipe), *words]) == 2
    assert message in capsys.readouterr().err


def test_kills_of_each_kind_go_to_each_number_of_processes(tmp_path):
    recipe, _ = read_recipe(write_recipe(tmp_path / "line.yaml"))
    kinds = {Strike(sent, writing) for sent in ("SIGKILL", "SIGTERM") for writing in (False, True)}
    plan = _plan(Settings(Path("x"), kills=25, processes=(1, 2)), recipe)
    assert plan.legs == [1, 2, 1]
    assert {count: len(strikes) for count, strikes in plan.own.items()} == {1: 11, 2: 12}
    assert all(set(strikes) == kinds for strikes in plan.own.values())
    assert plan.between == [Strike("SIGTERM", True), Strike("SIGTERM", True)]
    few = _plan(Settings(Path("x"), kills=2, processes=(1, 2)), recipe)
    assert (few.legs, len(few.between), few.own) == ([1, 2], 1, {1: [Strike("SIGKILL", True)]})
    alone = _plan(Settings(Path("x"), kills=3), recipe)
    assert (alone.legs, alone.between, len(alone.own[1])) == ([], [], 3)
    with pytest.raises(UserError, match="--kills is 2; with 3"):
        _plan(Settings(Path("x"), kills=2, processes=(1, 2, 4)), recipe)


NEST = (
    "import subprocess, sys, time\n"
    "subprocess.Popen([sys.executable, '-c', 'import time; time.sleep(600)'], start_new_session=True)\n"
    "print('started', flush=True)\n"
    "time.sleep(600)\n"
)


def test_a_child_knows_its_processes_and_ends_them_all(tmp_path):
    log = tmp_path / "log"
    log.write_text("earlier\n")
    child = Child(["-c", NEST], log)
    while "started" not in child.said():
        time.sleep(0.02)
    assert child.said() == "started\n"
    members = child.members()
    assert len(members) == 2
    # The other one is in a session of its own, and outlives its parent.
    child.send(signal.SIGKILL)
    assert child.status() == -signal.SIGKILL
    assert child.members() == [pid for pid in members if pid != child.pid]
    assert child.wait_for_all(0.1) is None
    child.end()
    assert child.members() == []


CODE = "import sys; from vislang.cli import main; sys.exit(main(sys.argv[1:]))"


def test_a_rehearsal_that_is_stopped_ends_its_runs(tmp_path):
    recipe = write_recipe(tmp_path / "line.yaml")
    out = tmp_path / "runs"
    words = ["rehearse", str(recipe), "--train.steps", "100000", "--steps", "100000", "--out", str(out)]
    rehearsal = Child(["-c", CODE, *words], tmp_path / "log")
    metrics = out / "whole-1" / "metrics.jsonl"
    while not (metrics.is_file() and metrics.read_text().count("\n") > 2):
        assert not rehearsal.ended(), rehearsal.said()
        time.sleep(0.05)
    assert len(rehearsal.members()) == 2
    rehearsal.send(signal.SIGTERM)
    assert rehearsal.status() == 130
    assert rehearsal.members() == []
