"""Arms of a study: ways of learning that are compared, each trained once a seed."""

from __future__ import annotations

import argparse
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

import torch

from vislang.commands.train import run_recipe
from vislang.recipe import read_recipe
from vislang.train.checkpoint import list_checkpoints


@dataclass(frozen=True)
class Arm:
    """One way of learning.

    Attributes:
        name: for the table.
        recipe: what it runs.
        changes: what is changed of it.
        start: the arm whose model it begins with.
    """

    name: str
    recipe: Path
    changes: tuple[str, ...] = ()
    start: str | None = None


def trained(arm: Arm, arms: Sequence[Arm], seed: int, runs: Path) -> Path:
    """The folder of an arm's finished run; trained, or taken up where it stopped.

    Args:
        arm: what to run.
        arms: all of the study, among which it finds its start.
        seed: of the run, and of the run that it starts from.
        runs: folder of the runs.

    Raises:
        KeyboardInterrupt: the run was interrupted; its state is kept.
    """
    folder = runs / f"{arm.name.replace(', ', '-').replace(' ', '-')}-{seed}"
    if (folder / "metrics.json").is_file():
        return folder
    changes = [*arm.changes, f"--train.seed={seed}", "--train.eval_every=0"]
    if arm.start is not None:
        (start,) = (other for other in arms if other.name == arm.start)
        changes.append(f"--model.start_from={trained(start, arms, seed, runs) / 'model'}")
    recipe, values = read_recipe(arm.recipe, changes)
    if run_recipe(recipe, values, folder, resume=bool(list_checkpoints(folder / "checkpoints"))) is None:
        raise KeyboardInterrupt
    return folder


def command_line(about: str, runs: Path, run: Callable[[Sequence[int], Path, Path], None]) -> None:
    """``--seeds``, ``--out``, ``--runs`` and ``--threads``, and what a study does with them.

    Args:
        about: what the study is.
        runs: where its runs are kept, if not said otherwise.
        run: given the seeds, the folder of the results, and that of the runs.
    """
    parser = argparse.ArgumentParser(description=about, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2], help="one run of each arm a seed")
    parser.add_argument("--out", type=Path, required=True, help="folder of the results")
    parser.add_argument("--runs", type=Path, default=runs, help="folder of the runs")
    parser.add_argument("--threads", type=int, default=0, help="CPU threads; 0 leaves torch's choice")
    options = parser.parse_args()
    if options.threads:
        torch.set_num_threads(options.threads)
    run(options.seeds, options.out, options.runs)
