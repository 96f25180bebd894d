"""A run that is killed, interrupted or led astray: real processes, real signals."""

import json
import os
import random
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

from tests import tiny
from tests.train.line import EXAMPLES, Line, Silent
from vislang.cli import main
from vislang.train.batches import Stream
from vislang.train.checkpoint import Checkpoints, list_checkpoints
from vislang.train.config import TrainConfig
from vislang.train.log import MetricsLog, read_metrics, without_measurements
from vislang.train.loop import train


def start(recipe: Path, out: Path, *more: str) -> subprocess.Popen:
    return subprocess.Popen(
        [sys.executable, "-m", "vislang.cli", "train", str(recipe), *more, "--out", str(out)],
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        env={**os.environ, "OMP_NUM_THREADS": "1"},
    )


def finish(process: subprocess.Popen, status: int = 0) -> str:
    output, _ = process.communicate(timeout=240)
    assert process.returncode == status, output
    return output


def trained(capsys, recipe: Path, out: Path, *more: str, status: int = 0) -> str:
    """The same in this process, which need not be killed: it has imported everything already. No report is drawn."""
    assert main(["train", str(recipe), *more, "--out", str(out), "--no-report"]) == status
    said = capsys.readouterr()
    return said.out + said.err


def steps(folder: Path) -> dict[int, dict]:
    """What each step logged, but for the time it took and the memory."""
    rows = [row for row in read_metrics(folder / "metrics.jsonl") if "loss" in row]
    assert [row["step"] for row in rows] == list(range(1, len(rows) + 1))
    return {row["step"]: without_measurements(row) for row in rows}


def wait_for_step(process: subprocess.Popen, folder: Path, step: int) -> None:
    metrics = folder / "metrics.jsonl"
    deadline = time.monotonic() + 120
    while not metrics.exists() or metrics.read_text().count('"loss"') < step:
        assert process.poll() is None, process.communicate()[0]
        assert time.monotonic() < deadline
        time.sleep(0.002)


@pytest.fixture
def long_recipe(towers, pictures) -> Path:
    return tiny.write_recipe(pictures / "long.yaml", *towers, steps=80, checkpoint_every=20, eval_every=1000)


def test_killed_at_a_random_step_and_resumed_it_goes_on_bit_for_bit(long_recipe, tmp_path):
    whole, killed = tmp_path / "whole", tmp_path / "killed"
    finish(start(long_recipe, whole))
    process = start(long_recipe, killed, "--track", "tensorboard")
    wait_for_step(process, killed, random.Random().randint(21, 60))
    process.kill()
    process.communicate()
    before = len(steps(killed))
    assert 21 <= before < 80
    finish(start(long_recipe, killed, "--resume", str(killed)))
    assert steps(killed) == steps(whole)
    weights = "model/model.safetensors"
    assert (killed / weights).read_bytes() == (whole / weights).read_bytes()
    assert len(list((killed / "tensorboard").iterdir())) == 2, "the resumed run keeps its tracker"
    events = EventAccumulator(str(killed / "tensorboard"))
    events.Reload()
    assert [event.step for event in events.Scalars("loss")] == list(range(1, 81))
    assert [event.step for event in events.Scalars("final/my/accuracy")] == [80]


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_ctrl_c_saves_and_ends_cleanly(long_recipe, tmp_path, number):
    folder = tmp_path / "run"
    process = start(long_recipe, folder)
    wait_for_step(process, folder, 25)
    process.send_signal(number)
    output = finish(process, status=130)
    assert "Traceback" not in output
    assert f"--resume {folder}" in output.replace("\n", "")
    done = max(steps(folder))
    assert list_checkpoints(folder / "checkpoints")[-1].name == f"step-{done:08d}"
    assert (folder / "model" / "model.safetensors").is_file()


def test_a_loss_that_is_no_number_stops_the_run_and_keeps_the_last_checkpoint(towers, pictures, tmp_path):
    recipe = tiny.write_recipe(
        pictures / "wild.yaml", *towers, steps=50, checkpoint_every=1, lr=1e30, warmup_steps=0, clip_norm=1e30
    )
    folder = tmp_path / "run"
    output = finish(start(recipe, folder), status=2)
    assert "Traceback" not in output
    flat = " ".join(output.split())
    done = len(steps(folder))
    assert f"step {done + 1}: " in flat
    assert "my.jsonl:" in flat, "the records are not named"
    assert list_checkpoints(folder / "checkpoints")[-1].name == f"step-{done:08d}"
    assert all(value == value for value in (row["loss"] for row in steps(folder).values()))


def test_resuming_another_run_is_refused(recipe, pictures, tmp_path, capsys):
    folder = tmp_path / "run"
    trained(capsys, recipe, folder)
    output = trained(capsys, recipe, folder, "--resume", str(folder), "--train.lr=0.5", status=2)
    assert "lr was 0.003, is 0.5" in " ".join(output.split())
    output = trained(capsys, recipe, tmp_path / "none", "--resume", str(tmp_path / "none"), status=2)
    assert "not the folder of a run" in " ".join(output.split())
    output = trained(capsys, recipe, folder, "--resume", str(folder), "--model.bridge.latents=5", status=2)
    assert "a run with another model" in " ".join(output.split())


def test_a_new_run_never_overwrites_an_old_one(recipe, pictures, tmp_path, capsys):
    folder = tmp_path / "run"
    trained(capsys, recipe, folder)
    first = (folder / "metrics.jsonl").read_text()
    trained(capsys, recipe, folder, "--train.steps=4")
    assert (tmp_path / "run.1" / "metrics.jsonl").read_text() == first
    assert len(steps(folder)) == 4


def test_a_line_that_a_kill_cut_short_is_dropped(tmp_path):
    path = tmp_path / "metrics.jsonl"
    path.write_text('{"step": 1, "loss": 2.0}\n{"step": 2, "loss": 1.5}\n{"step": 3, "lo')
    assert [row["step"] for row in read_metrics(path)] == [1, 2]
    log = MetricsLog(path, steps_done=1)
    log.write({"step": 2, "loss": 1.25})
    log.close()
    assert [json.loads(line) for line in path.read_text().splitlines()] == [
        {"step": 1, "loss": 2.0},
        {"step": 2, "loss": 1.25},
    ]


def test_worker_processes_change_nothing_but_who_prepares_the_batches(recipe, pictures, tmp_path, capsys):
    trained(capsys, recipe, tmp_path / "alone")
    trained(capsys, recipe, tmp_path / "helped", "--train.workers", "2")
    assert steps(tmp_path / "helped") == steps(tmp_path / "alone")


def test_a_signal_while_the_last_checkpoint_is_written_waits_for_it(tmp_path, monkeypatch):
    """Sent by the thread that writes, after the last step."""
    real = Checkpoints._write

    def slowly(self, step, *arguments):
        if step == 4:
            os.kill(os.getpid(), signal.SIGTERM)
            time.sleep(0.1)
        real(self, step, *arguments)

    monkeypatch.setattr(Checkpoints, "_write", slowly)
    stream = Stream("numbers", EXAMPLES, 1.0, 4)
    outcome = train(Line(), [stream], TrainConfig(steps=4, batch_size=4, device="cpu"), tmp_path, Silent())
    assert (outcome.steps, outcome.interrupted) == (4, True)
    assert [path.name for path in list_checkpoints(tmp_path / "checkpoints")] == ["step-00000004"]
