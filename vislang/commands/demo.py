"""``vislang demo``: the main job, on real models and real data, in ten minutes."""

from __future__ import annotations

from pathlib import Path

from rich.table import Table

from vislang.commands.answering import Answering
from vislang.commands.train import Run, figures, run_recipe
from vislang.console import console
from vislang.evaluate.report import choose
from vislang.recipe import read_recipe

RECIPE = Path(__file__).with_name("demo.yaml")


def demo(folder: Path, overrides: list[str]) -> int:
    """Train the demo's bridge, score it, ask it six questions; returns the exit status."""
    recipe, values = read_recipe(RECIPE, overrides)
    console.print("[bold]Two frozen towers, one for images and one for language, and a bridge to train.[/bold]")
    run = run_recipe(recipe, values, folder)
    if run is None:
        return 130
    console.print(figures(run))
    console.print(questions(run))
    return 0


def questions(run: Run, count: int = 6) -> Table:
    """A few test questions, asked of the trained model one by one."""
    table = Table(title="six questions, asked of test images", title_justify="left")
    for heading in ("image", "question", "generated", "true"):
        table.add_column(heading)
    assert isinstance(run.goal, Answering)
    assert run.goal.answered is not None
    right, wrong = choose(run.goal.test, run.goal.answered)
    for place in [*right[: count - min(1, len(wrong))], *wrong[:1]][:count]:
        example = run.goal.test[place]
        assert example.image is not None
        generated = run.model.ask(example.image, example.question)
        table.add_row(Path(example.image.name).name, example.question or "", generated, example.target)
    return table
