"""A study: a published claim, the runs that test it, and the verdict that follows from their figures.

A study is a file with one :class:`Study`; ``two_streams.py`` is an example to copy, and docs/studies.md says how.
:func:`run` trains what is missing and keeps a row for each arm and seed in ``results.json``; the verdict is computed
from these rows by :func:`verdict_on`, the same way for all studies.
"""

from __future__ import annotations

import hashlib
import json
from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Literal, NamedTuple

import torch

from vislang.console import console
from vislang.errors import UserError
from vislang.metrics.figure import Figure, figures_as_json, figures_from_json, metric
from vislang.metrics.paired import difference_over_seeds
from vislang.recipe import read_recipe
from vislang.runs.folder import read_json
from vislang.studies.arms import Arm, trained
from vislang.studies.measures import Measure
from vislang.studies.results import Results, read_results

RECIPES = Path(__file__).parent / "recipes"
"""The recipes of the studies, which are part of the package."""

LEAST = 0.1
"""Least number of minutes of a run: fewer do not leave time for the trial that chooses the number of steps."""

Row = Mapping[str, Any]
"""A measurement: ``arm``, ``seed``, ``figures``; of a budgeted run also ``minutes``, ``settings``, ``steps``,
``seconds`` and ``starts``, the runs that it started from."""

Word = Literal["supported", "not supported", "undecided at this scale"]


@dataclass(frozen=True)
class Claim(ABC):
    """A claim that one arm is better than others.

    Attributes:
        name: as it is typed on the command line; also the folder of the results.
        claim: what the paper says, in a sentence.
        source: paper, and table, figure or section.
        metric: the metric that decides; see :data:`~vislang.metrics.figure.METRICS`.
        better: the arm that the claim says is better.
        than: the arms that it says are worse; the claim needs all of these comparisons.
        note: what a reader of the results has to know.
    """

    name: str
    claim: str
    source: str
    metric: str
    better: str
    than: tuple[str, ...]
    note: str = ""

    @abstractmethod
    def rows(self, out: Path) -> list[Row]:
        """The rows that the verdict is about, from the results in the folder ``out``; empty without results."""


@dataclass(frozen=True, kw_only=True)
class Study(Claim):
    """A claim that is tested by training each arm once for each seed.

    Attributes:
        arms: the training configurations. Their recipes say nothing of the number of steps: the budget decides.
        measure: the figures of a finished run; or several measures by name. Then each gives a row of its own, called
            ``ARM, NAME``, and ``better`` and ``than`` name these.
        starts: further arms that are only trained because ``arms`` start from them; they are not measured.
        equal: what the runs have in common. ``minutes``: each has the same share of the budget. ``steps``: of the runs
            of each recipe, the first with seed 0 has its share of the budget, and all others take as many steps, so the
            first arm should be the slowest. Other work on the machine then favours no run.
        minutes: default budget.
    """

    arms: tuple[Arm, ...]
    measure: Measure | Mapping[str, Measure]
    starts: tuple[Arm, ...] = ()
    equal: Literal["minutes", "steps"] = "minutes"
    minutes: float = 30.0

    def __post_init__(self):
        trained = {arm.name for arm in self.trained_arms}
        measured = {self.row_name(arm, name) for arm in self.arms for name in self.measures}
        unknown = {self.better, *self.than} - measured
        unknown |= {arm.start for arm in self.trained_arms if arm.start is not None} - trained
        if unknown or not self.than:
            wrong = ", ".join(sorted(unknown)) or "nothing"
            raise UserError(f"{self.name}: better, than and start must name arms of the study, not {wrong}.")

    @property
    def trained_arms(self) -> tuple[Arm, ...]:
        """All arms, those that are only trained among them."""
        return (*self.arms, *self.starts)

    @property
    def measures(self) -> Mapping[str, Measure]:
        """The measures by name; a single one has no name."""
        return self.measure if isinstance(self.measure, Mapping) else {"": self.measure}

    @staticmethod
    def row_name(arm: Arm, measure: str) -> str:
        """The name of an arm's row for one of the measures."""
        return f"{arm.name}, {measure}" if measure else arm.name

    @property
    def run_lengths(self) -> float:
        """The training of all arms with one seed, in lengths of a full run."""
        return sum(arm.length for arm in self.trained_arms)

    def rows(self, out: Path) -> list[Row]:
        """The rows of the longest budget; runs of different lengths are never compared."""
        path = out / self.name / "results.json"
        rows = read_results(path, ("arm", "seed", "minutes", "figures"))["rows"] if path.is_file() else []
        longest = max((row["minutes"] for row in rows), default=0)
        return [row for row in rows if row["minutes"] == longest]


class Verdict(NamedTuple):
    """What the results say about a claim.

    Attributes:
        word: the verdict; None without results.
        differences: by how much ``better`` is better than each arm of ``than``, with 95 % intervals; positive if it is.
        seeds: the least number of seeds of a comparison.
    """

    word: Word | None
    differences: dict[str, Figure]
    seeds: int


def verdict_on(claim: Claim, rows: Sequence[Row]) -> Verdict:
    """The verdict on a claim: the rule that all studies share.

    Runs of the same seed are paired. A claim is **supported** if the interval of each of its differences lies above 0,
    and **not supported** if that of one lies below 0. Otherwise, and with a single seed, it is **undecided at this
    scale**. For the intervals see :func:`~vislang.metrics.paired.difference_over_seeds`.
    """
    sign = 1 if metric(claim.metric).higher_is_better else -1
    found = {
        (row["arm"], row["seed"]): _signed(figures_from_json(row["figures"])[claim.metric], sign)
        for row in rows
        if row["arm"] in (claim.better, *claim.than)
    }
    differences, counts = {}, []
    for other in claim.than:
        seeds = sorted(seed for arm, seed in found if arm == claim.better and (other, seed) in found)
        counts.append(len(seeds))
        if seeds:
            sides = ([found[arm, seed] for seed in seeds] for arm in (claim.better, other))
            differences[other] = difference_over_seeds(*sides)
    if not differences:
        return Verdict(None, {}, 0)
    word: Word = "undecided at this scale"
    if any(figure.high is not None and figure.high < 0 for figure in differences.values()):
        word = "not supported"
    elif len(differences) == len(claim.than) and all((figure.low or 0) > 0 for figure in differences.values()):
        word = "supported"
    return Verdict(word, differences, min(counts))


def _signed(figure: Figure, sign: int) -> Figure:
    """A figure of which higher is better."""
    ends = (figure.low, figure.high) if sign > 0 else (figure.high, figure.low)
    low, high = (None if end is None else sign * end for end in ends)
    return Figure(sign * figure.value, low, high, figure.n)


def run(study: Study, seeds: int, budget: float | None, out: Path, runs: Path) -> None:
    """Train and measure what is missing; ``results.json`` is written after each run.

    A row whose arm, seed and settings agree is not measured again, and a run that was killed is continued.

    Args:
        study: the study.
        seeds: number of seeds, from 0.
        budget: minutes of training of all runs together; None takes the study's own.
        out: folder of the results; the study has a folder there.
        runs: folder of the runs.

    Raises:
        UserError: the budget is too small, or the results of an earlier call cannot be read.
        KeyboardInterrupt: a run was interrupted; the same call continues it.
    """
    minutes = share_of(study, seeds, budget)
    for measure in study.measures.values():
        measure.check()
    results = Results(out / study.name, study=study.name, cpu=torch.backends.cpu.get_cpu_capability())
    lengths = Lengths(study.equal, minutes)
    for seed in range(seeds):
        for arm in study.arms:
            chain = _planned(study, arm, lengths)
            for name, measure in study.measures.items():
                keys = {"arm": study.row_name(arm, name), "seed": seed, "minutes": minutes}
                if not results.known(**keys, settings=chain[0].settings):
                    folder, about = _train(chain, seed, runs / study.name)
                    figures = figures_as_json(measure(folder))
                    results.forget(**keys)
                    results.add({**keys, **about, "figures": figures})
                    console.print(f"{study.name}: {keys['arm']}, seed {seed} done", markup=False)
            (row,) = (row for row in results.rows if keys.items() <= row.items())
            for planned, run_of_it in zip(chain, [row, *row.get("starts", [])], strict=True):
                lengths.took(planned.of, run_of_it["steps"])


class Lengths:
    """The lengths of a study's runs: equal minutes, or as many steps as the first run of the same recipe took.

    Args:
        equal: ``minutes`` or ``steps``.
        minutes: minutes of a full run.
    """

    def __init__(self, equal: Literal["minutes", "steps"], minutes: float):
        self.equal, self.minutes = equal, minutes
        self._steps: dict[Path, int] = {}

    def of(self, arm: Arm) -> str:
        """The override of the recipe that sets the length of an arm's run."""
        if arm.recipe in self._steps:
            return f"--train.steps={max(1, round(arm.length * self._steps[arm.recipe]))}"
        return f"--train.minutes={round(arm.length * self.minutes, 3)}"

    def took(self, arm: Arm, steps: int) -> None:
        """A run of this arm took so many steps."""
        if self.equal == "steps":
            self._steps.setdefault(arm.recipe, round(steps / arm.length))


def share_of(study: Study, seeds: int, budget: float | None) -> float:
    """The minutes of each full run.

    Raises:
        UserError: no seeds, or too few minutes.
    """
    if seeds < 1:
        raise UserError(f"--seeds {seeds}: give at least 1; with fewer than 2, every claim is undecided.")
    count = seeds * study.run_lengths
    minutes = round((study.minutes if budget is None else budget) / count, 3)
    least = LEAST / min(arm.length for arm in study.trained_arms)
    if not minutes >= least:
        raise UserError(
            f"{study.name}: {len(study.trained_arms)} arms and {seeds} seeds leave {minutes:g} minutes for each run; "
            f"{least:g} is the least. Give --budget {least * count:g} or more."
        )
    return minutes


class Planned(NamedTuple):
    """A run to make.

    Attributes:
        arm: the arm with the length of its run. Its name has the hash of its settings, so that no run with other
            settings is taken for it.
        settings: hash of all its settings, those of the runs that it starts from among them.
        of: the arm of the study.
    """

    arm: Arm
    settings: str
    of: Arm


def _planned(study: Study, arm: Arm, lengths: Lengths) -> list[Planned]:
    """The run of an arm, then those that it starts from."""
    starts: list[Planned] = []
    if arm.start is not None:
        (start,) = (other for other in study.trained_arms if other.name == arm.start)
        starts = _planned(study, start, lengths)
    changes = (*arm.changes, lengths.of(arm))
    _, recipe = read_recipe(arm.recipe, changes)
    begins = starts[0].arm.name if starts else None
    parts = json.dumps((recipe, repr(study.measure), study.equal, begins), sort_keys=True, default=str)
    settings = hashlib.sha256(parts.encode()).hexdigest()[:16]
    return [Planned(replace(arm, name=f"{arm.name} {settings}", changes=changes, start=begins), settings, arm), *starts]


def _train(chain: Sequence[Planned], seed: int, runs: Path) -> tuple[Path, dict[str, Any]]:
    """Train what is missing of a run and those that it starts from; its folder, and how long they all took."""
    arms, took = [planned.arm for planned in chain], []
    for planned in reversed(chain):
        folder = trained(planned.arm, arms, seed, runs)
        metrics = read_json(folder / "metrics.json")
        took.append({"settings": planned.settings, "steps": metrics["steps"], "seconds": metrics["train_seconds"]})
    *starts, own = took
    return folder, {**own, **({"starts": starts[::-1]} if starts else {})}


def minutes_spent(rows: Sequence[Row]) -> float:
    """Minutes of training of some rows, each run counted once; those without a time count 0."""
    runs = {
        (run.get("settings", run.get("arm")), row["seed"]): run.get("seconds", 0.0)
        for row in rows
        for run in (row, *row.get("starts", []))
    }
    return sum(runs.values()) / 60


Select = Callable[[dict[str, Any]], list[Row]]
"""Chooses the rows of a claim from the content of a results file."""


@dataclass(frozen=True, kw_only=True)
class Recorded(Claim):
    """A claim that is judged by the committed results of an experiment with a program of its own.

    Attributes:
        file: the results, in the folder of results.
        select: chooses the rows from its content.
        command: repeats the experiment.
    """

    file: str
    select: Select
    command: str

    def rows(self, out: Path) -> list[Row]:
        """The rows of the results file; empty if there is none."""
        path = out / self.file
        return self.select(read_json(path)) if path.is_file() else []
