"""``vislang explain``: an HTML page with a ViLBERT's answer and its co-attention."""

from __future__ import annotations

from dataclasses import dataclass, replace
from pathlib import Path

from vislang.commands.ask import checked, head_of, shown_answer
from vislang.commands.options import optional_positional, positional
from vislang.commands.outputs import must_hold_file
from vislang.console import console
from vislang.data.problems import DataError
from vislang.document import Document, Image
from vislang.errors import UserError, needs
from vislang.example import Choice, Example, reference_text


@dataclass(frozen=True)
class Explain:
    """Write an HTML page with a ViLBERT's answer and its co-attention between words and image regions.

    Attributes:
        model: folder of a ViLBERT with a task head, or a Hub id
        source: path of an image; or, without a text, any data source whose records have an image and a text
        text: a question, a caption, or a referring expression
        record: id of a record of the source (default: the first record)
        head: which of the model's heads decides, if it has several
        device: where the model runs: auto, cpu, cuda or mps
        out: HTML page to write
    """

    model: str = positional()
    source: str = positional()
    text: str | None = optional_positional()
    record: str | None = None
    head: str | None = None
    out: Path = Path("explain.html")
    device: str = "auto"

    def run(self) -> int:
        """Write the page and print the answer; returns 0.

        Raises:
            UserError: the model has no co-attention or no such head, or the page cannot be written.
            DataError: there is no such source or record, or it has no image and text.
            MediaError: the image cannot be used.
        """
        must_hold_file(self.out)
        needs("jinja2", "report", "the page")
        example = self._example()
        image = next(medium for medium in example.media if isinstance(medium, Image))
        decoded = image.decode()
        from vislang.capabilities import Explains
        from vislang.evaluate.explain_page import write_explanation
        from vislang.models.loading import load
        from vislang.train.device import device_of

        model = load(self.model, device_of(self.device))
        if not isinstance(model, Explains):
            raise UserError(f"{self.model}: a {type(model).__name__} has no co-attention. Give a ViLBERT.")
        head = head_of(model, self.model, self.head)
        explained = model.explain(example, head)
        write_explanation(self.out, decoded, example.text, explained, f"{self.model}, task {head}")
        console.print(f"[bold]{shown_answer(explained.prediction.answer)}[/bold]")
        console.print(f"wrote [bold]{self.out}[/bold]")
        return 0

    def _example(self) -> Example:
        if self.text is not None:
            if self.record is not None:
                raise UserError("--record: no effect, because a text was given. Leave one of them out.")
            document = Document([Image(self.source), checked(self.text, "the text")], name=self.source)
            return Example(self.source, document, source=self.source)
        from vislang.data.sources import load_source

        examples = [one_pair(example) for example in load_source(self.source)]
        chosen = [e for e in examples if self.record in (None, e.id) and e.text and has_image(e)]
        if not chosen:
            named = f"record {self.record}" if self.record else "record"
            raise DataError(
                f"{self.source}: no {named} with an image and a text. Give a text after the path of an image, or a "
                "source of questions or captions (vislang data show SOURCE prints records with their ids)."
            )
        return chosen[0]


def one_pair(example: Example) -> Example:
    """An example as one image and one text: with its correct choice, or with its caption."""
    if isinstance(example.target, Choice):
        return replace(example, prompt=example.with_choice(example.target.index), choices=())
    caption = None if example.text else reference_text(example)
    return example if caption is None else replace(example, prompt=Document([*example.prompt.parts, caption]))


def has_image(example: Example) -> bool:
    """Whether an example has an image."""
    return any(isinstance(medium, Image) for medium in example.media)
