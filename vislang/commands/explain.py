"""``vislang explain``: a page that shows how a model came to what it says of an image and a text."""

from __future__ import annotations

from dataclasses import dataclass, replace
from pathlib import Path

from vislang.commands.ask import only_head, shown_answer, whole
from vislang.commands.options import optional_positional, positional
from vislang.commands.outputs import must_hold_file
from vislang.console import console
from vislang.data.problems import DataError
from vislang.document import Document, Image
from vislang.errors import UserError
from vislang.example import Choice, Example, reference_text


@dataclass(frozen=True)
class Explain:
    """Write a page: what the words and the regions of an image attended to in each other.

    Attributes:
        model: folder of a ViLBERT with a task, or a Hub id
        source: path of an image; or, without a text, any data source whose records hold an image and a text
        text: a question, a caption, or what to find
        record: of a source: the id of a record; without it, the first one
        head: which of the model's heads decides, where there are several
        out: page to write
    """

    model: str = positional()
    source: str = positional()
    text: str | None = optional_positional()
    record: str | None = None
    head: str | None = None
    out: Path = Path("explain.html")

    def run(self) -> int:
        """Write the page, print the decision; returns 0.

        Raises:
            UserError: the model has nothing to show, or no such head, or the page cannot be written.
            DataError: there is no such source or record, or it holds no image and text.
            MediaError: the image cannot be used.
        """
        must_hold_file(self.out)
        example = self._example()
        image = next(medium for medium in example.media if isinstance(medium, Image))
        decoded = image.decode()
        from vislang.capabilities import Explains
        from vislang.evaluate.explain_page import write_explanation
        from vislang.models.loading import load

        model = load(self.model)
        if not isinstance(model, Explains):
            raise UserError(f"{self.model}: is a {type(model).__name__}, which has no co-attention; give a ViLBERT.")
        head = self.head or only_head(model, self.model)
        explained = model.explain(example, head)
        write_explanation(self.out, decoded, example.text, explained, f"{self.model}, task {head}")
        console.print(f"[bold]{shown_answer(explained.prediction.answer)}[/bold]")
        console.print(f"[bold]{self.out}[/bold] shows why")
        return 0

    def _example(self) -> Example:
        if self.text is not None:
            if self.record is not None:
                raise UserError("--record: chooses a record of a source, and a text was given; leave one of them out.")
            asked = Document([Image(self.source), whole(self.text, "the text")], name=self.source)
            return Example(self.source, asked, source=self.source)
        from vislang.data.sources import load_source

        examples = [one_pair(example) for example in load_source(self.source)]
        chosen = [e for e in examples if self.record in (None, e.id) and e.text and any_image(e)]
        if not chosen:
            named = f"record {self.record}" if self.record else "record"
            raise DataError(
                f"{self.source}: no {named} with an image and a text in it. Give a text behind the path of an image, "
                "or a source of questions or captions (vislang data show SOURCE prints records with their ids)."
            )
        return chosen[0]


def one_pair(example: Example) -> Example:
    """An example as the one image and text that are explained: with its right choice, or with its caption."""
    if isinstance(example.target, Choice):
        return replace(example, prompt=example.with_choice(example.target.index), choices=())
    caption = None if example.text else reference_text(example)
    return example if caption is None else replace(example, prompt=Document([*example.prompt.parts, caption]))


def any_image(example: Example) -> bool:
    """Whether an example shows an image."""
    return any(isinstance(medium, Image) for medium in example.media)
