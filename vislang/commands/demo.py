"""``vislang demo``: the main job, on real models and real data, in ten minutes."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from rich.table import Table

from vislang.commands.train import Run, run_recipe
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
    console.print(figures(run.metrics))
    console.print(questions(run))
    return 0


def figures(metrics: dict[str, Any]) -> Table:
    """The result as a table."""
    table = Table(title=f"{metrics['task']}, {metrics['n']:,} test questions", title_justify="left")
    table.add_column("who answers")
    table.add_column("accuracy", justify="right")
    table.add_column("95 % interval", justify="right")
    table.add_row(
        "[bold]the bridge[/bold]",
        f"[bold]{100 * metrics['accuracy']:.1f} %[/bold]",
        f"{100 * metrics['accuracy_low']:.1f} to {100 * metrics['accuracy_high']:.1f}",
    )
    for what, key in (
        ("the same model, images taken away (blind)", "blind_accuracy"),
        ("most frequent answer to each question", "majority_by_question_accuracy"),
        ("most frequent answer", "majority_accuracy"),
        ("chance", "chance_accuracy"),
    ):
        table.add_row(what, f"{100 * metrics[key]:.1f} %", "")
    table.caption = (
        f"{metrics['train_seconds'] / 60:.1f} minutes of training, {metrics['total_seconds'] / 60:.1f} in all"
    )
    return table


def questions(run: Run, count: int = 6) -> Table:
    """A few test questions, asked of the trained model one by one."""
    table = Table(title="six questions, asked of test images", title_justify="left")
    for heading in ("image", "question", "generated", "true"):
        table.add_column(heading)
    right, wrong = choose(run.test, run.answered)
    for place in [*right[: count - min(1, len(wrong))], *wrong[:1]][:count]:
        example = run.test[place]
        assert example.image is not None
        generated = run.model.ask(example.image, example.question)
        table.add_row(Path(example.image.name).name, example.question or "", generated, example.target)
    return table
