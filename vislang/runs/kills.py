"""Kills of a run by SIGKILL and SIGTERM, at random moments and while a checkpoint is written, and what they leave."""

from __future__ import annotations

import random
import signal
import time
import warnings
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Literal, NamedTuple

from vislang.runs.child import Child
from vislang.runs.folder import RUN
from vislang.train.checkpoint import UNFINISHED, CheckpointError, Checkpoints, DamagedCheckpoint
from vislang.train.launch import INTERRUPTED
from vislang.train.log import read_metrics

GRACE = 30.0
"""Seconds from SIGTERM to the end of all processes: what torchrun and Slurm give a run by default."""

ENDS_WITHIN = 60.0
"""Seconds from the kill of one process to the end of all."""

Signal = Literal["SIGKILL", "SIGTERM"]


class Strike(NamedTuple):
    """A kill as it is planned: a signal, at a random moment or while a checkpoint is being written."""

    signal: Signal
    while_writing: bool


STRIKES = (Strike("SIGKILL", True), Strike("SIGTERM", False), Strike("SIGKILL", False), Strike("SIGTERM", True))
"""The kinds of kills, in turn."""


@dataclass(frozen=True)
class Kill:
    """A kill as it happened.

    Attributes:
        copy: name of the copy.
        processes: how many it had.
        signal: what was sent.
        to: which of its processes got it.
        moment: when, in words.
        step: the last step that the copy had logged when all its processes had ended.
        continued_from: the step of its last complete checkpoint.
        seconds: until all its processes had ended.
        fault: what went wrong; empty if nothing did.
    """

    copy: str
    processes: int
    signal: Signal
    to: str
    moment: str
    step: int
    continued_from: int
    seconds: float
    fault: str = ""

    @property
    def lost(self) -> int:
        """Steps that had to be done again."""
        return self.step - self.continued_from


class Watch:
    """What a run writes into its folder from now on.

    Attributes:
        step: the last step that it had logged before.
    """

    def __init__(self, folder: Path):
        self.folder = folder
        self._metrics = folder / "metrics.jsonl"
        self._before = self._file()
        self.step = last_step(folder)

    def recorded(self) -> bool:
        """Whether the run has a record."""
        return (self.folder / RUN).is_file()

    def continued(self) -> bool:
        """Whether training has begun: the log is written anew then, and what an earlier process left is gone."""
        return self._file() not in (None, self._before)

    def done(self) -> int:
        """The last step that is in the new log."""
        return last_step(self.folder) if self.continued() else 0

    def _file(self) -> int | None:
        try:
            return self._metrics.stat().st_ino
        except FileNotFoundError:
            return None


class Timing(NamedTuple):
    """How long a run takes: seconds from its record to its first step, and for each step."""

    before_first: float
    each: float


@dataclass(frozen=True)
class Killer:
    """Kills copies of a run.

    Attributes:
        rng: draws the moments.
        steps: of the run.
        every: steps between its checkpoints.
        grace: seconds in which a run that SIGTERM stops has to save and to end.
    """

    rng: random.Random
    steps: int
    every: int
    grace: float

    def kill(
        self, name: str, count: int, child: Child, watch: Watch, strike: Strike, target: int, timing: Timing
    ) -> Kill | None:
        """Kill a copy, and look at what is left.

        Args:
            name: of the copy.
            count: of its processes.
            child: the command that trains it.
            watch: its folder since the command was started.
            strike: how.
            target: after which step; a later one if the copy had logged more before it was started.
            timing: of a run that was not killed.

        Returns:
            What happened; None if the copy came to its end before.
        """
        target = max(target, watch.step + 1 if watch.step else 0)
        if strike.while_writing:
            written = self._freeze_while_writing(child, watch, target)
            moment = "" if written is None else f"writing step {written}"
        else:
            moment = self._wait_for_moment(child, watch, target, timing)
        if not moment:
            return None
        members, to, hit = child.members(), "the command", [child.pid]
        if strike.signal == "SIGKILL":
            to, hit = self._victims(child, count)
        child.send(signal.Signals[strike.signal], hit)
        child.send(signal.SIGCONT, members)
        limit = self.grace if strike.signal == "SIGTERM" else ENDS_WITHIN
        # Waited for longer than allowed, so that it can be told how long it takes.
        seconds = child.wait_for_all(2 * limit)
        if seconds is None:
            child.end()
        status = child.status()
        step, saved, fault = _left(watch.folder)
        took = 2 * limit if seconds is None else seconds
        kill = Kill(name, count, strike.signal, to, moment, step, saved, took, fault)
        if fault:
            return kill
        if seconds is None or seconds > limit:
            ended = "did not end" if seconds is None else f"ended after {seconds:.0f} s"
            return replace(kill, fault=f"{ended}, and has {limit:.0f} s after {strike.signal} to {to}")
        if strike.signal == "SIGTERM" and 0 < step < self.steps and status != INTERRUPTED:
            return replace(kill, fault=f"ended with status {status} after SIGTERM, and not with {INTERRUPTED}")
        allowed = self._allowed(watch.folder, strike.signal, step)
        if kill.lost > allowed:
            return replace(kill, fault=f"lost {kill.lost} steps, {allowed} are allowed")
        return kill

    def _allowed(self, folder: Path, sent: Signal, step: int) -> int:
        """How many steps a kill may cost: those since the last checkpoint was due, and none if there was time to save.

        A checkpoint that was being written is lost, too.
        """
        if sent == "SIGTERM":
            return 0
        unfinished = _being_written(folder)
        return self.every if unfinished is None else self.every + max(0, step - unfinished)

    def _victims(self, child: Child, count: int) -> tuple[str, list[int]]:
        """Which processes of a copy a SIGKILL hits: all; or, of several, one of them, or the one that started them."""
        workers = child.workers()
        if count == 1 or len(workers) < count:
            return "all processes", child.members()
        chosen = self.rng.choice(("all processes", "one process", "the launcher"))
        if chosen == "all processes":
            return chosen, child.members()
        return chosen, [child.pid] if chosen == "the launcher" else [self.rng.choice(workers)]

    def _wait_for_moment(self, child: Child, watch: Watch, target: int, timing: Timing) -> str:
        """Wait until a copy has done so many steps, and for a random part of the next; empty if it ended before."""
        delay = self.rng.random()
        while not (watch.recorded() if target == 0 else watch.done() >= target):
            if child.ended():
                return ""
            time.sleep(0.005)
        time.sleep(delay * (timing.each if target else timing.before_first))
        if child.ended():
            return ""
        done = watch.done()
        if done == 0:
            return "before step 1 was done"
        return f"in step {done + 1}" if done < self.steps else "after the last step"

    def _freeze_while_writing(self, child: Child, watch: Watch, target: int) -> int | None:
        """Stop a copy (SIGSTOP) in the middle of writing a checkpoint after the target; None if it ended before."""
        members: list[int] = []
        looked = 0.0
        while not child.ended():
            if watch.continued() and time.monotonic() - looked > 0.5:
                members, looked = child.members(), time.monotonic()
            written = _being_written(watch.folder) if watch.continued() else None
            if written is not None and written >= target:
                child.send(signal.SIGSTOP, members)
                # A stop takes effect a moment after it was sent.
                time.sleep(0.01)
                if _being_written(watch.folder) == written:
                    return written
                child.send(signal.SIGCONT, members)
            time.sleep(0.001)
        return None


def _left(folder: Path) -> tuple[int, int, str]:
    """What a killed copy left: its last logged step, the step of its last complete checkpoint, and a fault."""
    step = last_step(folder)
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        try:
            saved = Checkpoints(folder / "checkpoints").latest()
        except CheckpointError as error:
            return step, 0, str(error)
    damaged = [str(warning.message) for warning in caught if issubclass(warning.category, DamagedCheckpoint)]
    return step, saved.step if saved is not None else 0, "; ".join(damaged)


def last_step(folder: Path) -> int:
    """The last step in the log of a run, which may be writing to it; 0 for none."""
    metrics = folder / "metrics.jsonl"
    rows = read_metrics(metrics) if metrics.is_file() else []
    return rows[-1]["step"] if rows else 0


def _being_written(folder: Path) -> int | None:
    """The step of the checkpoint that is being written, or that was when the run was killed."""
    for path in (folder / "checkpoints").glob(f"{UNFINISHED}*"):
        return int(path.name.removeprefix(UNFINISHED))
    return None
