"""Runs of several processes on a small model: other numbers of them, failures, signals, evaluation."""

from __future__ import annotations

import os
import pickle
import time
from pathlib import Path

import pytest
import torch
from torch.multiprocessing import ProcessExitedException, ProcessRaisedException

from tests.train.line import Line, run
from tests.train.several import free_port, start, together
from vislang.train.checkpoint import Checkpoints, list_checkpoints
from vislang.train.processes import Processes
from vislang.train.watchdog import STATUS, Watchdog

FLOAT64 = {"batch_size": 5, "lr": 1e-2}


def _two_then_four(rank: int, ports: list[int], folder: Path) -> None:
    """4 steps in two processes, then to step 8 in four."""
    if rank < 2:
        with together(rank, 2, ports[0]):
            run(folder, 12, model=Line(0.0, stop_after=4).double(), parallel="fsdp2", **FLOAT64)
    with together(rank, 4, ports[1]) as processes:
        model = Line(0.0, stop_after=8).double()
        run(folder, 12, resume=True, model=model, parallel="ddp", **FLOAT64)
        seen = processes.gather(model.seen)
        if processes.is_first:
            (folder / "seen.pickle").write_bytes(pickle.dumps(seen))


def test_a_run_goes_from_two_processes_to_four_and_to_one(tmp_path):
    _, losses = run(tmp_path / "whole", 12, model=Line(0.0).double(), **FLOAT64)
    folder = tmp_path / "run"
    start(4, _two_then_four, [free_port(), free_port()], folder)
    model, again = run(folder, 12, resume=True, model=Line(0.0).double(), **FLOAT64)
    assert again == pytest.approx(losses, rel=1e-12)
    assert model.steps == 12
    whole, _ = run(tmp_path / "once more", 12, model=Line(0.0).double(), **FLOAT64)
    torch.testing.assert_close(model.head.weight, whole.head.weight, rtol=0, atol=1e-12)
    # Five examples a step in four processes: one has two.
    seen = pickle.loads((folder / "seen.pickle").read_bytes())
    assert [[len(names) for names in own] for own in seen] == [[1] * 4, [1] * 4, [1] * 4, [2] * 4]


def _all_checks(rank: int, ports: list[int], folder: Path) -> None:
    ports = iter(ports)
    # Dropout draws from each process's own generator, whose state is in the checkpoint.
    with together(rank, 2, next(ports)):
        run(folder / "whole", 12, parallel="ddp")
    with together(rank, 2, next(ports)):
        run(folder / "cut", 12, model=Line(stop_after=6), parallel="ddp")
    with together(rank, 2, next(ports)):
        run(folder / "cut", 12, resume=True, parallel="ddp")
    # A signal that one process gets stops all of them after the same step.
    with together(rank, 2, next(ports)):
        model = Line(stop_after=6 * rank)
        run(folder / "stopped", 50, model=model, parallel="ddp")
        (folder / f"steps-{rank}").write_text(str(model.steps))
    # The first process evaluates for longer than a collective would wait, and the others learn the figures.
    with together(rank, 2, next(ports)) as processes:
        found = processes.from_first(lambda: (time.sleep(0.3), rank)[1])
        assert found == 0
        assert processes.sum([1.0, float(rank)]) == [2.0, 1.0]
        assert processes.gather(rank) == [0, 1]
        assert sum(processes.gather(processes.claim("message"))) == 1


def test_two_processes_resume_stop_and_wait(tmp_path):
    start(2, _all_checks, [free_port() for _ in range(5)], tmp_path)
    whole, cut = (
        [path.name for path in list_checkpoints(tmp_path / name / "checkpoints")] for name in ("whole", "cut")
    )
    assert whole == cut
    read = [Checkpoints(tmp_path / name / "checkpoints").latest().model_state() for name in ("whole", "cut")]
    assert all(torch.equal(tensor, read[1][name]) for name, tensor in read[0].items())
    assert {(tmp_path / f"steps-{rank}").read_text() for rank in range(2)} == {"6"}
    assert [path.name for path in list_checkpoints(tmp_path / "stopped" / "checkpoints")][-1] == "step-00000006"


def _one_dies(rank: int, port: int, folder: Path) -> None:
    with together(rank, 2, port):
        model = Line()
        if rank == 1:
            model.after_step = lambda: os._exit(3)
        run(folder, 50, model=model, parallel="ddp")


def test_a_process_that_dies_ends_the_other(tmp_path):
    started = time.monotonic()
    with pytest.raises((ProcessExitedException, ProcessRaisedException)):
        start(2, _one_dies, free_port(), tmp_path)
    assert time.monotonic() - started < 60


def _hangs(rank: int, folder: Path) -> None:
    with (folder / "stderr").open("w") as file:
        os.dup2(file.fileno(), 2)
        watchdog = Watchdog(0.2 / 60, Processes(1, 2), grace=0)
        with watchdog.step(7):
            time.sleep(60)


def test_a_step_that_hangs_says_where(tmp_path):
    with pytest.raises(ProcessExitedException) as caught:
        start(1, _hangs, tmp_path)
    assert caught.value.exit_code == STATUS
    said = (tmp_path / "stderr").read_text()
    assert "process 1 of 2 has been in step 7" in said
    assert "time.sleep(60)" in said
