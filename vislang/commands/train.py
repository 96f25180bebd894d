"""``vislang train``: train a model by a recipe, or resume a run."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from vislang.commands.options import optional_positional, overrides
from vislang.commands.outputs import must_hold_folder
from vislang.console import console
from vislang.errors import UserError


@dataclass(frozen=True)
class Train:
    """Train a model by a recipe, or resume a run. Any value of the recipe can be changed, such as --train.lr 3e-4.

    Attributes:
        recipe: YAML file; not needed with --resume
        data: data to train on: a file, a folder, or the name of a data set (vislang data list)
        out: folder of the run (default: runs/ and the recipe's name)
        resume: resume the run in this folder, with its settings
        device: where to train: auto, cpu, cuda or mps; the same as --train.device
        devices: start so many processes on this machine, each with a GPU of its own where there are GPUs
        parallel: how they share the work: ddp or fsdp2; the same as --train.parallel
        dry_run: read the data, build the model and try one batch, but write nothing
        skip_bad_records: skip bad records and count them
        track: experiment trackers that get each row of metrics.jsonl too, separated by commas: tensorboard, trackio,
            wandb, mlflow (a resumed run keeps those that it had)
        no_report: do not draw report.html at the end (vislang report draws it later)
    """

    recipe: Path | None = optional_positional()
    data: str | None = None
    out: Path | None = None
    resume: Path | None = None
    device: Literal["auto", "cpu", "cuda", "mps"] | None = None
    devices: int = 1
    parallel: Literal["none", "ddp", "fsdp2"] | None = None
    dry_run: bool = False
    skip_bad_records: bool = False
    track: str | None = None
    no_report: bool = False
    overrides: list[str] = overrides()

    def run(self) -> int:
        """Train or resume; returns 0, or 130 if interrupted.

        Raises:
            UserError: the recipe or the folder cannot be used, or options do not go together.
        """
        if self.devices < 1:
            raise UserError(f"--devices is {self.devices}; it must be at least 1.")
        if self.resume is not None and self.out is not None and self.resume != self.out:
            raise UserError(f"--out {self.out}: a resumed run stays in its own folder, {self.resume}. Leave --out out.")
        if self.recipe is None and self.resume is None:
            raise UserError("give a recipe (recipes/ has several), or a run to resume with --resume DIR.")
        from vislang.recipe import read_recipe, recipe_of
        from vislang.runs.folder import RUN, recorded
        from vislang.runs.run import run_recipe
        from vislang.runs.tables import run_table
        from vislang.runs.trackers import tracker_names
        from vislang.train.processes import OtherProcessFailed, restarts, started_by_launcher

        changes = [*self.overrides]
        changes += [f"--data={self.data}"] if self.data is not None else []
        changes += ["--skip_bad_records=true"] if self.skip_bad_records else []
        changes += [f"--train.device={self.device}"] if self.device is not None else []
        changes += [f"--train.parallel={self.parallel}"] if self.parallel is not None else []
        if self.recipe is not None:
            recipe, values = read_recipe(self.recipe, changes)
            folder = self.resume or self.out or Path("runs") / self.recipe.stem
        else:
            assert self.resume is not None
            folder = self.resume
            recipe, values = recipe_of(recorded(folder)["recipe"], changes, str(folder / RUN))
        must_hold_folder(folder)
        if self.devices > 1 and not self.dry_run and not started_by_launcher():
            return self._launch(recipe.train.parallel)
        # torchrun starts a run again whose processes failed.
        resume = self.resume is not None or (restarts() > 0 and (folder / RUN).is_file())
        try:
            track = None if self.track is None else tracker_names(self.track)
            run = run_recipe(recipe, values, folder, resume, self.dry_run, track, not self.no_report)
        except OtherProcessFailed:
            return 2
        if run is None:
            return 0 if self.dry_run else 130
        console.print(run_table(run.metrics))
        return 0

    def _launch(self, parallel: str) -> int:
        """Run the same command in several processes."""
        from vislang.train.launch import launch

        words = ["-m", "vislang.cli", "train"]
        for name in ("recipe", "data", "out", "resume", "device", "parallel", "track"):
            value = getattr(self, name)
            if value is not None:
                words += [str(value)] if name == "recipe" else [f"--{name}", str(value)]
        words += ["--skip-bad-records"] if self.skip_bad_records else []
        words += ["--no-report"] if self.no_report else []
        words += self.overrides
        words += ["--train.parallel=ddp"] if parallel == "none" else []
        return launch(words, self.devices)
