"""``vislang train``: a recipe becomes a run."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from vislang.commands.options import optional_positional, overrides
from vislang.commands.outputs import must_hold_folder
from vislang.console import console
from vislang.errors import UserError


@dataclass(frozen=True)
class Train:
    """Train as a recipe says; any of its values can be changed: --train.lr 3e-4

    Attributes:
        recipe: YAML file; with --resume it may be left out, and the run is continued as it was started
        data: what to learn from: a source (see vislang data list), a file or a folder
        out: folder of the run (default: runs/ and the recipe's name)
        resume: continue the run in this folder
        dry_run: build everything, try one batch, write nothing
        skip_bad_records: leave bad records out and count them
        track: experiment trackers that also get each row of metrics.jsonl, separated by commas: tensorboard, trackio,
            wandb, mlflow; a resumed run keeps those that it had
    """

    recipe: Path | None = optional_positional()
    data: str | None = None
    out: Path | None = None
    resume: Path | None = None
    dry_run: bool = False
    skip_bad_records: bool = False
    track: str | None = None
    overrides: list[str] = overrides()

    def run(self) -> int:
        """Train, or continue; returns 0, or 130 where the run was interrupted."""
        if self.resume is not None and self.out is not None and self.resume != self.out:
            raise UserError(f"--out {self.out}: a resumed run goes on in its own folder, {self.resume}; leave it out.")
        if self.recipe is None and self.resume is None:
            raise UserError("name a recipe (recipes/ has some), or a run to continue with --resume DIR.")
        from vislang.recipe import read_recipe, recipe_of
        from vislang.runs.folder import read_json
        from vislang.runs.run import run_recipe
        from vislang.runs.tables import run_table
        from vislang.runs.trackers import tracker_names

        changes = [*self.overrides]
        changes += [f"--data={self.data}"] if self.data is not None else []
        changes += ["--skip_bad_records=true"] if self.skip_bad_records else []
        if self.recipe is not None:
            recipe, values = read_recipe(self.recipe, changes)
            folder = self.resume or self.out or Path("runs") / self.recipe.stem
        else:
            assert self.resume is not None
            folder = self.resume
            if not (folder / "run.json").is_file():
                raise UserError(f"{folder}: no run to resume in it (no run.json).")
            recipe, values = recipe_of(read_json(folder / "run.json")["recipe"], changes, str(folder / "run.json"))
        must_hold_folder(folder)
        track = None if self.track is None else tracker_names(self.track)
        run = run_recipe(recipe, values, folder, self.resume is not None, self.dry_run, track)
        if run is None:
            return 0 if self.dry_run else 130
        console.print(run_table(run.metrics))
        return 0
