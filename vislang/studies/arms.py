"""Arms of a study: ways of learning that are compared, each trained once a seed."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

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
