"""``vislang report``: draw a run's page once more, from what lies in its folder."""

from __future__ import annotations

import json
from pathlib import Path

from vislang.commands.train import goal_of
from vislang.console import console
from vislang.errors import UserError
from vislang.recipe import recipe_of


def report(folder: Path) -> int:
    """Write ``report.html``; returns 0."""
    for needed in ("run.json", "metrics.json", "metrics.jsonl", "model/config.json"):
        if not (folder / needed).is_file():
            raise UserError(f"{folder}: no {needed} in it; give the folder of a run that came to its end.")
    run = json.loads((folder / "run.json").read_text(encoding="utf-8"))
    recipe = recipe_of(run["recipe"])
    goal_of(recipe.model.open(folder / "model"), recipe).report(folder)
    console.print(f"[bold]{folder / 'report.html'}[/bold] shows the run")
    return 0
