"""What the tests of rehearsals train: a line through numbers as a recipe has it, and lines that cannot be resumed."""

from __future__ import annotations

import json
import random
from dataclasses import dataclass
from pathlib import Path

import torch

from tests.train.line import Line
from vislang.capabilities import ModelRecipe
from vislang.models.base import write_model
from vislang.recipe import read_recipe, recipe_of
from vislang.runs.folder import recorded
from vislang.runs.run import run_recipe

SHORT = ["--train.steps=8", "--train.checkpoint_every=4"]


class Saved(Line):
    """A line that can be saved."""

    def save(self, folder: Path) -> None:
        write_model(folder, self, {})


class Unseeded(Saved):
    """Adds noise from a generator that starts elsewhere each time."""

    def __init__(self, **settings):
        super().__init__(**settings)
        self.noise = random.Random()

    def forward(self, batch):
        return {"error": super().forward(batch)["error"] + self.training * self.noise.random()}


class Forgetful(Saved):
    """Adds noise from a generator with a seed, whose state is in no checkpoint."""

    def __init__(self, **settings):
        super().__init__(**settings)
        self.noise = random.Random(0)

    def forward(self, batch):
        return {"error": super().forward(batch)["error"] + self.training * self.noise.random()}


@dataclass
class LineRecipe(ModelRecipe):
    """The recipe of a line.

    Attributes:
        kind: its class.
        dropout: of its inputs.
        stop_after: sends its process SIGTERM after so many steps; 0 for never.
    """

    kind: str = "Saved"
    dropout: float = 0.0
    stop_after: int = 0

    def build(self, device: torch.device | str = "cpu") -> Line:
        return globals()[self.kind](dropout=self.dropout, stop_after=self.stop_after)

    def open(self, folder: Path, device: torch.device | str = "cpu") -> Line:
        raise NotImplementedError


def write_recipe(path: Path, **settings) -> Path:
    """A recipe of a line, and its data beside it."""
    rows = [{"text": f"number {n}", "score": n / 10} for n in range(10)]
    (path.parent / "my.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    values = {
        "model": {"class_path": "tests.runs.rehearsed.LineRecipe", "init_args": settings},
        "data": str(path.parent / "my.jsonl"),
        "hold_out": 0.2,
        "train": {"batch_size": 4, "warmup_steps": 0, "device": "cpu", "lr_scale": {"head": 2.0}},
    }
    # YAML has JSON in it.
    path.write_text(json.dumps(values), encoding="utf-8")
    return path


def run(folder, **settings):
    """A run in a folder; one that is stopped is continued."""
    recipe = write_recipe(folder.parent / "recipe.yaml", **settings)
    run_recipe(*read_recipe(recipe, SHORT), folder, report=False)
    if settings.get("stop_after"):
        run_recipe(*recipe_of(recorded(folder)["recipe"]), folder, resume=True, report=False)
    return folder
