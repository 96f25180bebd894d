"""A rehearsal of interruptions: copies of a short run are killed and resumed, and compared with one that was not.

What is run is ``vislang train``, as a user would run it. A copy that keeps its number of processes has to give the same
run, bit for bit. One that changes it has to follow the uninterrupted run within a tolerance, unless the recipe's
forward pass draws random numbers, which are others in another number of processes.
"""

from __future__ import annotations

import random
import shutil
import signal
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Literal

from vislang.errors import UserError
from vislang.recipe import Recipe, read_recipe
from vislang.runs.child import Child
from vislang.runs.folder import RUN
from vislang.runs.kills import GRACE, STRIKES, Kill, Killer, Strike, Timing, Watch, last_step
from vislang.runs.same import Differences, differences, generators_that_moved, same_until
from vislang.train.launch import MISTAKE
from vislang.train.log import read_metrics

STEPS = 12
"""Steps of a run, unless the recipe has fewer."""

FEW = 8
"""Examples of an evaluation, which is no part of what is rehearsed but its effect on the training is."""

MOST_KILLS = 5
"""Kills of one copy."""


@dataclass(frozen=True)
class Case:
    """A copy beside the uninterrupted run.

    Attributes:
        copy: its name.
        processes: how many it had, from start to end.
        kills: how often it was killed.
        promise: what the comparison has to give: ``exact``, ``tolerance``, or ``none`` from the first change of the
            number of processes on.
        kept: whether the promise was kept, and each of its kills went as it should.
        largest_difference: of any loss, absolute; infinite if the copy did not come to its end.
        relative_difference: the same as a share of the largest size of that loss.
        exact: what is the same, bit for bit.
        differences: the largest absolute difference in everything else, by name.
        why: why something differs, or why the promise was broken; empty if all is the same.
    """

    copy: str
    processes: list[int]
    kills: int
    promise: Literal["exact", "tolerance", "none"]
    kept: bool
    largest_difference: float
    relative_difference: float
    exact: list[str]
    differences: dict[str, float]
    why: str


@dataclass(frozen=True)
class Rehearsal:
    """What a rehearsal found.

    Attributes:
        steps: of each run.
        checkpoint_every: steps between its checkpoints.
        draws: the random generators that the forward pass draws from.
        tolerance: for other numbers of processes, as a share of the largest size of a loss.
        kills: each of them.
        cases: each copy.
        folder: where the runs are; None if they were removed.
    """

    steps: int
    checkpoint_every: int
    draws: list[str]
    tolerance: float
    kills: list[Kill]
    cases: list[Case]
    folder: Path | None

    @property
    def kept(self) -> bool:
        """Whether every promise was kept."""
        return all(case.kept for case in self.cases)

    @property
    def exact(self) -> bool:
        """Whether every copy that kept its number of processes is the same as the uninterrupted run, bit for bit."""
        return all(not case.differences for case in self.cases if case.promise == "exact")

    @property
    def largest_difference(self) -> float:
        """The largest difference of any loss in any copy."""
        return max(case.largest_difference for case in self.cases)


@dataclass(frozen=True)
class Settings:
    """What to rehearse.

    Attributes:
        recipe: file of the recipe.
        changes: of the recipe, as on the command line.
        kills: how many in all.
        processes: numbers of processes. One copy goes from each to the next.
        steps: of each run; None for 12, or fewer if the recipe has fewer.
        seed: of the moments of the kills.
        tolerance: see :class:`Rehearsal`.
        parallel: how several processes share the work; empty for the recipe's choice, or ``ddp`` where it has none.
        grace: seconds in which a run that SIGTERM stops has to save and to end.
    """

    recipe: Path
    changes: Sequence[str] = ()
    kills: int = 5
    processes: Sequence[int] = (1,)
    steps: int | None = None
    seed: int = 0
    tolerance: float = 0.01
    parallel: str = ""
    grace: float = GRACE


def rehearse(
    settings: Settings, folder: Path, keep: bool = True, report: Callable[[str], object] = lambda line: None
) -> Rehearsal:
    """Rehearse the interruption of a recipe.

    Args:
        settings: what to rehearse.
        folder: an empty folder for all runs.
        keep: keep the runs. If not, they are removed unless a promise was broken.
        report: called with a line about each run.

    Raises:
        UserError: the recipe cannot be trained, or cannot be rehearsed like this.
        RunFailed: the uninterrupted run failed otherwise.
    """
    recipe, _ = read_recipe(settings.recipe, settings.changes)
    plan = _plan(settings, recipe)
    with _children() as children:
        return _Stage(settings, recipe, folder, keep, report, children).play(plan)


@dataclass(frozen=True)
class Plan:
    """Which copies are killed how.

    Attributes:
        own: for each number of processes, the kills of copies that keep it.
        legs: the numbers of processes of the copy that changes them; empty without one.
        between: its kills, one less than it has legs.
    """

    own: dict[int, list[Strike]]
    legs: list[int]
    between: list[Strike]


def _plan(settings: Settings, recipe: Recipe) -> Plan:
    processes, kills = list(dict.fromkeys(settings.processes)), settings.kills
    if not processes or min(processes) < 1:
        raise UserError("--processes lists numbers of processes, such as 1,2; each must be at least 1.")
    if kills < len(processes):
        raise UserError(f"--kills is {kills}; with {len(processes)} numbers of processes it must be that many or more.")
    if not settings.tolerance >= 0:
        raise UserError(f"--tolerance is {settings.tolerance}; it must not be negative.")
    if steps_of(settings, recipe) < 2:
        raise UserError("a run of less than 2 steps cannot be interrupted between them. Set --steps.")
    # Back to the first number, where there are kills enough.
    legs = [*processes, processes[0]] if kills >= 2 * len(processes) else processes
    legs = legs if len(processes) > 1 else []
    strikes = [STRIKES[number % len(STRIKES)] for number in range(kills)]
    cut = kills - max(0, len(legs) - 1)
    # What another number of processes has trained is saved, and lasts: only the first of these kills may lose steps.
    between = [strike._replace(signal="SIGTERM") if n else strike for n, strike in enumerate(strikes[cut:])]
    own: dict[int, list[Strike]] = {}
    for number, strike in enumerate(strikes[:cut]):
        # Moved on after each round, so that every number of processes meets every kind.
        own.setdefault(processes[(number + number // len(STRIKES)) % len(processes)], []).append(strike)
    return Plan(own, legs, between)


def steps_of(settings: Settings, recipe: Recipe) -> int:
    """The number of steps of each run."""
    return settings.steps if settings.steps is not None else min(STEPS, recipe.train.steps or STEPS)


class RunFailed(UserError):
    """The uninterrupted run ended with an error that is no user's mistake; its output is kept."""


@dataclass
class _Whole:
    """An uninterrupted run.

    Attributes:
        folder: of the run.
        timing: how long it took.
    """

    folder: Path
    timing: Timing


@dataclass
class _Copy:
    """A copy while it is killed and resumed: its folder, what happened, and the kills that came too late."""

    name: str
    folder: Path
    legs: list[int]
    kills: list[Kill] = field(default_factory=list)
    missed: list[Strike] = field(default_factory=list)
    failed: str = ""

    @property
    def faults(self) -> list[str]:
        return [kill.fault for kill in self.kills if kill.fault] + ([self.failed] if self.failed else [])


class _Stage:
    """Runs of one rehearsal."""

    def __init__(
        self,
        settings: Settings,
        recipe: Recipe,
        folder: Path,
        keep: bool,
        report: Callable[[str], object],
        children: list[Child],
    ):
        self.settings, self.folder, self.keep, self.report, self.children = settings, folder, keep, report, children
        self.rng = random.Random(settings.seed)
        self.steps, self.minutes = steps_of(settings, recipe), recipe.train.minutes
        self.every = max(1, self.steps // 4)
        self.killer = Killer(self.rng, self.steps, self.every, settings.grace)
        self.short = _shortened(recipe, self.steps, self.every)
        self.whole: dict[int, _Whole] = {}
        self.kills: list[Kill] = []
        self.cases: list[Case] = []
        self._again: dict[int, Differences] = {}

    def play(self, plan: Plan) -> Rehearsal:
        """Run everything."""
        first = plan.legs[0] if plan.legs else min(plan.own)
        for count in dict.fromkeys([first, *plan.own]):
            self.whole[count] = self._uninterrupted(f"whole-{count}", count)
        draws = generators_that_moved(self.whole[first].folder)
        for count, strikes in plan.own.items():
            self._copies(count, strikes)
        if plan.legs:
            self._changing_copy(plan.legs, plan.between, draws)
        kept = all(case.kept for case in self.cases)
        if kept and not self.keep:
            shutil.rmtree(self.folder)
        left = None if kept and not self.keep else self.folder
        return Rehearsal(self.steps, self.every, draws, self.settings.tolerance, self.kills, self.cases, left)

    # ------------------------------------------------------------------------------------------------ uninterrupted

    def _uninterrupted(self, name: str, count: int) -> _Whole:
        child, folder = self._start(name, count)
        started = recorded = time.monotonic()
        first = None
        while not child.ended():
            now = time.monotonic()
            if not (folder / RUN).is_file():
                recorded = now
            elif first is None and last_step(folder):
                first = now
            time.sleep(0.02)
        if child.status() == MISTAKE:
            raise UserError(_message(child))
        if child.status():
            raise RunFailed(f"the uninterrupted run failed ({_message(child)}). Its output is in {folder}.log.")
        rows = [row for row in read_metrics(folder / "metrics.jsonl") if "loss" in row]
        if (done := last_step(folder)) < self.steps:
            raise UserError(
                f"train.minutes is {self.minutes:g}, which is enough for {done} steps and not for {self.steps}. Raise "
                "it, or set fewer --steps."
            )
        each = (rows[-1]["seconds"] - rows[0]["seconds"]) / max(1, len(rows) - 1)
        whole = _Whole(folder, Timing(max(0.0, (first or recorded) - recorded), each))
        self.report(
            f"{_processes(count)}, uninterrupted: {self.steps} steps of {each:.2g} s, "
            f"{time.monotonic() - started:.0f} s in all"
        )
        return whole

    def _differs_again(self, count: int) -> Differences:
        """How far a second uninterrupted run is from the first."""
        if count not in self._again:
            again = self._uninterrupted(f"whole-{count}-again", count)
            self._again[count] = differences(self.whole[count].folder, again.folder)
        return self._again[count]

    # ------------------------------------------------------------------------------------------------------- copies

    def _copies(self, count: int, strikes: Sequence[Strike]) -> None:
        """Copies that keep their number of processes, until each kill has been done."""
        most = min(MOST_KILLS, self.steps - 1)
        waiting, number = list(strikes), 0
        while waiting:
            number += 1
            # As many in each copy.
            size = -(-len(waiting) // -(-len(waiting) // most))
            some, waiting = waiting[:size], waiting[size:]
            copy = self._killed_copy(f"copy-{count}-{number}", [count] * (len(some) + 1), some)
            if not copy.kills and not copy.failed:
                raise UserError("the run ended before any kill could reach it. Give it more --steps.")
            self._finish(copy, self._exact_case(copy))
            if copy.failed:
                # The next one would fail alike.
                return
            waiting += copy.missed

    def _changing_copy(self, legs: list[int], strikes: list[Strike], draws: list[str]) -> None:
        """The copy that changes its number of processes; tried again where a kill came too late."""
        for attempt in range(1, 4):
            copy = self._killed_copy(f"changing-{attempt}", legs, strikes)
            if copy.failed or not copy.missed:
                self._finish(copy, self._changed_case(copy, draws))
                return
        raise UserError("the run ended before its number of processes could be changed. Give it more --steps.")

    def _finish(self, copy: _Copy, case: Case) -> None:
        self.kills += copy.kills
        self.cases.append(case)
        self.report(f"{copy.name}: {'as promised' if case.kept else case.why}")
        if case.kept and not self.keep:
            shutil.rmtree(copy.folder)

    def _exact_case(self, copy: _Copy) -> Case:
        count = copy.legs[0]
        case = Case(copy.name, [count], len(copy.kills), "exact", False, float("inf"), float("inf"), [], {}, "")
        if copy.failed:
            return replace(case, differences={"losses": float("inf")}, why="; ".join(copy.faults))
        found = differences(self.whole[count].folder, copy.folder)
        case = _compared(case, found)
        if found.different:
            return replace(case, why="; ".join([self._cause(found, copy), *copy.faults]))
        return replace(case, kept=not copy.faults, why="; ".join(copy.faults))

    def _changed_case(self, copy: _Copy, draws: list[str]) -> Case:
        promise: Literal["none", "tolerance"] = "none" if draws else "tolerance"
        case = Case(copy.name, copy.legs, len(copy.kills), promise, False, float("inf"), float("inf"), [], {}, "")
        if copy.failed:
            return replace(case, differences={"losses": float("inf")}, why="; ".join(copy.faults))
        whole = self.whole[copy.legs[0]].folder
        found = differences(whole, copy.folder, same_processes=False)
        case = _compared(case, found)
        if not same_until(whole, copy.folder, copy.kills[0].continued_from):
            return replace(case, why="; ".join([self._cause(found, copy), *copy.faults]))
        if draws:
            why = (
                f"the forward pass draws from {' and '.join(draws)} random generator (dropout or noise), and each "
                "process draws its own"
            )
            return replace(case, kept=not copy.faults, why="; ".join([why, *copy.faults]))
        within = found.relative <= self.settings.tolerance
        order = "sums over processes are taken in another order" if found.different else ""
        why = order if within else f"losses differ by more than {100 * self.settings.tolerance:g} %"
        return replace(case, kept=within and not copy.faults, why="; ".join(filter(None, [why, *copy.faults])))

    def _cause(self, found: Differences, copy: _Copy) -> str:
        """Why a copy is not the same as the uninterrupted run, as far as a second uninterrupted run can tell."""
        again = self._differs_again(copy.legs[0])
        if again.different:
            where = f"from step {again.first_step} on" if again.first_step is not None else "at the end"
            return (
                f"two uninterrupted runs differ {where} ({', '.join(again.different)}): this recipe is not "
                "deterministic. Something in it draws from a generator without a seed, or depends on timing"
            )
        if found.first_step is None:
            return f"two uninterrupted runs are the same, but {', '.join(found.different)} of this copy differ"
        before = [kill for kill in copy.kills if kill.continued_from < found.first_step]
        last = f", after it had continued from step {before[-1].continued_from}" if before else ""
        return (
            f"two uninterrupted runs are the same, but this copy differs from step {found.first_step} on{last}: "
            "something that the run depends on is not in its checkpoints"
        )

    def _killed_copy(self, name: str, legs: list[int], strikes: Sequence[Strike]) -> _Copy:
        """Start a copy, kill it, resume it, and so on to its end."""
        copy = _Copy(name, self.folder / name, legs)
        child, _ = self._start(name, legs[0])
        watch = Watch(copy.folder)
        for number, (count, strike) in enumerate(zip(legs, strikes, strict=False)):
            # Each kill has its part of the run.
            size = self.steps / len(strikes)
            target = self.rng.randint(int(number * size), max(int(number * size), int((number + 1) * size) - 1))
            timing = (self.whole.get(count) or self.whole[legs[0]]).timing
            kill = self.killer.kill(name, count, child, watch, strike, target, timing)
            if kill is None:
                copy.missed += strikes[number:]
                break
            copy.kills.append(kill)
            self.report(f"{name}: {kill.signal} {kill.moment}, {kill.seconds:.1f} s; {kill.fault or 'resumed'}")
            child.end()
            watch = Watch(copy.folder)
            child, _ = self._start(name, legs[number + 1])
        if child.status():
            copy.failed = f"a resumed copy failed: {_message(child)}"
        return copy

    # ----------------------------------------------------------------------------------------------------- starting

    def _start(self, name: str, count: int) -> tuple[Child, Path]:
        """Start a run, or resume it if it has begun."""
        folder = self.folder / name
        words = ["-m", "vislang.cli", "train", "--no-report"]
        words += ["--devices", str(count)] if count > 1 else []
        words += ["--parallel", self.settings.parallel] if count > 1 and self.settings.parallel else []
        if (folder / RUN).is_file():
            words += ["--resume", str(folder)]
        else:
            words += [str(self.settings.recipe), "--out", str(folder), *self.settings.changes, *self.short]
        child = Child(words, self.folder / f"{name}.log")
        self.children.append(child)
        return child, folder


def _shortened(recipe: Recipe, steps: int, every: int) -> list[str]:
    """The changes of a recipe that make a short run of it. What it computes in a step stays as it is."""
    train = recipe.train
    changes = {
        "train.steps": steps,
        "train.checkpoint_every": every,
        "train.warmup_steps": min(train.warmup_steps, steps // 4),
        # Not with a checkpoint, so that a run is also resumed from between the two.
        "train.eval_every": every + 1 if train.eval_every else 0,
        "train.eval_examples": min(train.eval_examples, FEW),
        "eval_limit": min(recipe.eval_limit or FEW, FEW),
        # On a GPU a step is in the log only then.
        "train.log_every": 1,
    }
    return [f"--{name}={value}" for name, value in changes.items()]


def _compared(case: Case, found: Differences) -> Case:
    return replace(
        case,
        largest_difference=found.parts["losses"],
        relative_difference=found.relative,
        exact=found.same,
        differences={name: found.parts[name] for name in found.different},
    )


def _processes(count: int) -> str:
    return f"{count} process{'es' if count > 1 else ''}"


def _message(child: Child) -> str:
    """The sentence with which a run said why it failed; without one, the last line that it printed."""
    lines = [line.strip() for line in child.said().splitlines() if line.strip()]
    starts = [number for number, line in enumerate(lines) if line.startswith("vislang: ")]
    if starts:
        # It may go on for some lines. Of several processes, the launcher says last that one of them has failed.
        end = starts[1] if len(starts) > 1 else len(lines)
        return "\n".join(lines[starts[0] : end]).removeprefix("vislang: ")
    return lines[-1] if lines else f"status {child.status()}, and it printed nothing"


@contextmanager
def _children() -> Iterator[list[Child]]:
    """A list of children that are all ended at the end. SIGTERM ends the rehearsal as Ctrl-C does."""
    children: list[Child] = []

    def interrupt(number, frame):
        raise KeyboardInterrupt

    in_main = threading.current_thread() is threading.main_thread()
    before = signal.signal(signal.SIGTERM, interrupt) if in_main else None
    try:
        yield children
    finally:
        if in_main:
            signal.signal(signal.SIGTERM, before)
        for child in children:
            child.end()
