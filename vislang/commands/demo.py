"""``vislang demo``: train, score and ask a small Flamingo on real models and real data, in ten minutes."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

from rich.table import Table

from vislang.commands.options import overrides
from vislang.commands.outputs import must_hold_folder
from vislang.console import console

RECIPE = Path(__file__).with_name("demo.yaml")


@dataclass(frozen=True)
class Demo:
    """Train a bridge between two frozen models in ten minutes, score it, and ask it six questions.

    Attributes:
        out: folder of the run
    """

    out: Path = Path("runs/demo")
    overrides: list[str] = overrides()

    def run(self) -> int:
        """Train, score, ask; returns 0, or 130 if interrupted."""
        must_hold_folder(self.out)
        from vislang.recipe import read_recipe
        from vislang.runs.run import run_recipe
        from vislang.runs.tables import run_table

        recipe, values = read_recipe(RECIPE, self.overrides)
        console.print("[bold]Training a bridge between a frozen vision encoder and a frozen language model.[/bold]")
        run = run_recipe(recipe, values, self.out)
        if run is None:
            return 130
        console.print(run_table(run.metrics))
        console.print(questions(run))
        return 0


def questions(run: Any, count: int = 6) -> Table:
    """Answers of the trained model to a few test questions, at most one of them wrong."""
    from vislang.evaluate.gallery import choose
    from vislang.example import reference_text

    table = Table(title="questions about test images", title_justify="left")
    for heading in ("image", "question", "generated", "ground truth"):
        table.add_column(heading)
    (evaluation,) = run.evaluations.values()
    right, wrong = choose(evaluation)
    for index in [*right[: count - min(1, len(wrong))], *wrong[:1]][:count]:
        example = evaluation.examples[index]
        (image,) = example.media
        generated = run.model.ask(image, example.text)
        table.add_row(Path(image.name).name, example.text, generated, reference_text(example))
    return table
