"""``vislang explain``: an HTML page with a ViLBERT's answer and its co-attention."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from vislang.commands.ask import checked, head_of, shown_answer
from vislang.commands.options import positional
from vislang.commands.outputs import must_hold_file
from vislang.console import console
from vislang.document import Document, Image
from vislang.errors import UserError, needs
from vislang.example import Example


@dataclass(frozen=True)
class Explain:
    """Write an HTML page with a ViLBERT's answer and its co-attention between words and image regions.

    Attributes:
        model: folder of a ViLBERT with a task head, or a Hub id
        image: path of an image
        text: a question, a caption, or a referring expression
        head: which of the model's heads decides, if it has several
        device: where the model runs: auto, cpu, cuda or mps
        out: HTML page to write
    """

    model: str = positional()
    image: str = positional()
    text: str = positional()
    head: str | None = None
    out: Path = Path("explain.html")
    device: str = "auto"

    def run(self) -> int:
        """Write the page and print the answer; returns 0.

        Raises:
            UserError: the model has no co-attention or no such head, or the page cannot be written.
            MediaError: the image cannot be used.
        """
        must_hold_file(self.out)
        needs("jinja2", "report", "the page")
        image = Image(self.image)
        decoded = image.decode()
        text = checked(self.text, "the text")
        from vislang.capabilities import Explains
        from vislang.evaluate.explain_page import write_explanation
        from vislang.models.loading import load
        from vislang.train.device import device_of

        model = load(self.model, device_of(self.device))
        if not isinstance(model, Explains):
            raise UserError(f"{self.model}: a {type(model).__name__} has no co-attention. Give a ViLBERT.")
        head = head_of(model, self.model, self.head)
        example = Example(self.image, Document([image, text], name=self.image), source=self.image)
        explained = model.explain(example, head)
        write_explanation(self.out, decoded, text, explained, f"{self.model}, task {head}")
        console.print(f"[bold]{shown_answer(explained.prediction.answer)}[/bold]")
        console.print(f"wrote [bold]{self.out}[/bold]")
        return 0
