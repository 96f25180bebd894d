"""``vislang explain``: a page that shows how a model came to what it says of an image and a text."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from vislang.commands.ask import only_head, shown_answer, whole
from vislang.commands.options import positional
from vislang.commands.outputs import must_hold_file
from vislang.console import console
from vislang.document import Document, Image
from vislang.errors import UserError
from vislang.example import Example


@dataclass(frozen=True)
class Explain:
    """Write a page: what the words and the regions of an image attended to in each other.

    Attributes:
        model: folder of a ViLBERT with a task, or a Hub id
        image: path of an image
        text: a question, a caption, or what to find
        head: which of the model's heads decides, where there are several
        device: where the model runs: auto, cpu, cuda or mps
        out: page to write
    """

    model: str = positional()
    image: str = positional()
    text: str = positional()
    head: str | None = None
    out: Path = Path("explain.html")
    device: str = "auto"

    def run(self) -> int:
        """Write the page, print the decision; returns 0.

        Raises:
            UserError: the model has nothing to show, or no such head, or the page cannot be written.
            MediaError: the image cannot be used.
        """
        must_hold_file(self.out)
        image = Image(self.image)
        decoded = image.decode()
        text = whole(self.text, "the text")
        from vislang.capabilities import Explains
        from vislang.evaluate.explain_page import write_explanation
        from vislang.models.loading import load
        from vislang.train.device import device_of

        model = load(self.model, device_of(self.device))
        if not isinstance(model, Explains):
            raise UserError(f"{self.model}: is a {type(model).__name__}, which has no co-attention; give a ViLBERT.")
        head = self.head or only_head(model, self.model)
        example = Example(self.image, Document([image, text], name=self.image), source=self.image)
        explained = model.explain(example, head)
        write_explanation(self.out, decoded, text, explained, f"{self.model}, task {head}")
        console.print(f"[bold]{shown_answer(explained.prediction.answer)}[/bold]")
        console.print(f"[bold]{self.out}[/bold] shows why")
        return 0
