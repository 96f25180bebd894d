"""``vislang train``: train a model by a recipe, or resume a run."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

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
        dry_run: read the data, build the model and try one batch, but write nothing
        skip_bad_records: skip bad records and count them
    """

    recipe: Path | None = optional_positional()
    data: str | None = None
    out: Path | None = None
    resume: Path | None = None
    dry_run: bool = False
    skip_bad_records: bool = False
    overrides: list[str] = overrides()

    def run(self) -> int:
        """Train or resume; returns 0, or 130 if interrupted."""
        if self.resume is not None and self.out is not None and self.resume != self.out:
            raise UserError(f"--out {self.out}: a resumed run stays in its own folder, {self.resume}. Leave --out out.")
        if self.recipe is None and self.resume is None:
            raise UserError("give a recipe (recipes/ has several), or a run to resume with --resume DIR.")
        from vislang.recipe import read_recipe, recipe_of
        from vislang.runs.folder import read_json
        from vislang.runs.run import run_recipe
        from vislang.runs.tables import run_table

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
                raise UserError(f"{folder}: not the folder of a run (it has no run.json).")
            recipe, values = recipe_of(read_json(folder / "run.json")["recipe"], changes, str(folder / "run.json"))
        must_hold_folder(folder)
        run = run_recipe(recipe, values, folder, self.resume is not None, self.dry_run)
        if run is None:
            return 0 if self.dry_run else 130
        console.print(run_table(run.metrics))
        return 0
