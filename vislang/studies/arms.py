"""The arms of a study: training configurations to compare, each trained once for each seed."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

import torch

from vislang.program import run_program
from vislang.recipe import Recipe, read_recipe
from vislang.runs.run import run_recipe


@dataclass(frozen=True)
class Arm:
    """A training configuration.

    Attributes:
        name: name in the table.
        recipe: the recipe that is run.
        changes: overrides of the recipe.
        start: the arm whose trained model is the initial model.
        length: length of its run, as a share of a full run of the study.
    """

    name: str
    recipe: Path
    changes: tuple[str, ...] = ()
    start: str | None = None
    length: float = 1.0


def trained(arm: Arm, arms: Sequence[Arm], seed: int, runs: Path) -> Path:
    """The folder of an arm's finished run; an unfinished one is trained or resumed first.

    Args:
        arm: the arm to run.
        arms: all arms of the study, among which is ``arm.start``.
        seed: seed of the run, and of the run that it starts from.
        runs: folder of the runs.

    Raises:
        KeyboardInterrupt: the run was interrupted; its state is saved.
    """
    folder = runs / f"{arm.name.replace(', ', '-').replace(' ', '-')}-{seed}"
    if is_finished(folder):
        return folder
    changes = [*arm.changes, f"--train.seed={seed}", "--train.eval_every=0"]
    if arm.start is not None:
        (start,) = (other for other in arms if other.name == arm.start)
        changes.append(f"--model.start_from={trained(start, arms, seed, runs) / 'model'}")
    finish(*read_recipe(arm.recipe, changes), folder)
    return folder


def is_finished(folder: Path) -> bool:
    """Whether a run is finished."""
    return (folder / "metrics.json").is_file()


def finish(recipe: Recipe, values: dict, folder: Path) -> None:
    """Run a recipe, or resume its run in the folder.

    Raises:
        KeyboardInterrupt: the run was interrupted; its state is saved.
    """
    if run_recipe(recipe, values, folder, resume=(folder / "run.json").is_file(), report=False) is None:
        raise KeyboardInterrupt


def command_line(about: str, runs: Path, run: Callable[[Sequence[int], Path, Path], None]) -> None:
    """Run a study with the options ``--seeds``, ``--out``, ``--runs`` and ``--threads``, and end the program.

    Args:
        about: the help text.
        runs: default folder of the runs.
        run: called with the seeds, the folder of the results and that of the runs.
    """
    parser = argparse.ArgumentParser(description=about, formatter_class=argparse.RawDescriptionHelpFormatter)
    add_options(parser, runs)
    options = parser.parse_args()
    use_threads(options.threads)
    sys.exit(run_program(lambda: run(options.seeds, options.out, options.runs)))


def add_options(parser: argparse.ArgumentParser, runs: Path) -> None:
    """Add the options that all studies with training have."""
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2], help="each arm is run once for each seed")
    parser.add_argument("--out", type=Path, required=True, help="folder of the results")
    parser.add_argument("--runs", type=Path, default=runs, help="folder of the runs")
    parser.add_argument("--threads", type=int, default=0, help="CPU threads; 0: torch's default")


def use_threads(threads: int) -> None:
    """Set the number of CPU threads; 0 keeps torch's default."""
    if threads:
        torch.set_num_threads(threads)
