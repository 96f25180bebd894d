"""``vislang explain``: an HTML page with a ViLBERT's answer and its co-attention, or a Flamingo's answer and what each
shot of its prompt changed."""

from __future__ import annotations

from dataclasses import dataclass, replace
from pathlib import Path

from vislang.commands.ask import checked, head_of, options_of, shot_of
from vislang.commands.options import given, optional_positional, positional, repeated
from vislang.commands.outputs import must_hold_file
from vislang.console import console
from vislang.data.problems import DataError
from vislang.document import Document, Image
from vislang.errors import UserError, needs
from vislang.example import Choice, Example, reference_text, shown_answer


@dataclass(frozen=True)
class Explain:
    """Write an HTML page that explains an answer: of a ViLBERT, its co-attention between words and image regions; of a
    Flamingo with shots in its prompt, what each shot changed.

    Attributes:
        model: folder of a ViLBERT with a task head, or of a Flamingo; or a Hub id
        source: path of an image; or, without a text, any data source whose records have an image and a text; with
            --shots, a task
        text: a question, a caption, or a referring expression
        record: id of a record of the source (default: the first record)
        head: which of the model's heads decides, if it has several
        shot: an example in the prompt: an image, and "question? answer" or an answer to the same question
        shots: draw this many examples of the task, as vislang eval --shots does
        draw: with --shots: which of the draws of vislang eval, counted from 0
        options: with --shot: possible answers with commas between them; without them, the answer is generated
        device: where the model runs: auto, cpu, cuda or mps
        out: HTML page to write
    """

    model: str = positional()
    source: str = positional()
    text: str | None = optional_positional()
    record: str | None = None
    head: str | None = None
    shot: list[list[str]] = repeated("IMAGE", "TEXT")
    shots: int = 0
    draw: int = 0
    options: str | None = None
    out: Path = Path("explain.html")
    device: str = "auto"

    def run(self) -> int:
        """Write the page and print the answer; returns 0.

        Raises:
            UserError: the model has no co-attention or no such head, there are no shots to explain, or the page cannot
                be written.
            DataError: there is no such source or record, or it has no image and text.
            MediaError: the image cannot be used.
        """
        must_hold_file(self.out)
        needs("jinja2", "report", "the page")
        if self.shot or self.shots:
            return self._explain_shots()
        if ignored := given(self, ("draw", "options")):
            raise UserError(f"{ignored}: only used together with --shot or --shots. Leave it out.")
        example = self._example()
        image = next(medium for medium in example.media if isinstance(medium, Image))
        decoded = image.decode()
        from vislang.capabilities import Explains, Prefills
        from vislang.evaluate.explain_page import write_explanation
        from vislang.models.loading import load
        from vislang.train.device import device_of

        model = load(self.model, device_of(self.device))
        if isinstance(model, Prefills):
            raise UserError(
                f"{self.model}: of a {type(model).__name__}, the shots of a prompt are explained. Give --shot IMAGE "
                "TEXT, or a task and --shots N."
            )
        if not isinstance(model, Explains):
            raise UserError(f"{self.model}: a {type(model).__name__} has no co-attention. Give a ViLBERT.")
        head = head_of(model, self.model, self.head)
        explained = model.explain(example, head)
        write_explanation(self.out, decoded, example.text, explained, f"{self.model}, task {head}")
        console.print(f"[bold]{shown_answer(explained.prediction.answer)}[/bold]")
        console.print(f"wrote [bold]{self.out}[/bold]")
        return 0

    def _explain_shots(self) -> int:
        if self.head is not None:
            raise UserError("--head: a model that is prompted with examples has no heads. Leave it out.")
        example, shots, labels = self._drawn() if self.shots else self._given()
        from vislang.capabilities import Prefills
        from vislang.evaluate.shot_effects import explain_shots
        from vislang.evaluate.shots_page import write_shots_page
        from vislang.models.loading import load
        from vislang.train.device import device_of

        model = load(self.model, device_of(self.device))
        if not isinstance(model, Prefills):
            raise UserError(f"{self.model}: a {type(model).__name__} is not prompted with examples. Give a Flamingo.")
        explained = explain_shots(model, example, shots, labels)
        write_shots_page(self.out, explained, model, self.model)
        console.print(f"[bold]{shown_answer(explained.answer)}[/bold]")
        for number, effect in enumerate(explained.effects, start=1):
            console.print(f"shot {number} ({effect.shot.id}): {effect.change:+.3f} nats")
        console.print(f"wrote [bold]{self.out}[/bold]")
        return 0

    def _given(self) -> tuple[Example, list[Example], tuple[str, ...]]:
        """The query, the shots and the possible answers of the command line."""
        if ignored := given(self, ("draw",)):
            raise UserError(f"{ignored}: only used together with --shots. Leave it out.")
        labels = options_of(self.options) or ()
        example = self._example()
        shots = [shot_of(path, text, example.text or None) for path, text in self.shot]
        for medium in (medium for own in (example, *shots) for medium in own.media if isinstance(medium, Image)):
            medium.decode()
        return example, shots, labels

    def _drawn(self) -> tuple[Example, list[Example], tuple[str, ...]]:
        """A query of a task, the shots of one draw of its evaluation, and its labels."""
        if ignored := given(self, ("shot", "options", "text")):
            raise UserError(f"{ignored}: not used together with --shots, which takes all from a task. Leave it out.")
        if min(self.shots, self.draw) < 0:
            raise UserError(f"--shots {self.shots} --draw {self.draw}: must not be negative.")
        from vislang.commands.few_shot import sides
        from vislang.evaluate.shots import drawn
        from vislang.tasks.catalogue import open_task

        task = open_task(self.source)
        support, queries = sides(task, task.examples(task.default_split), 0, 0)
        if task.kind == "pairs" or self.shots > len(support):
            raise UserError(
                f"--shots {self.shots}: {self.source} has {len(support)} examples to draw from, and is a task of "
                f"{task.kind}. Give a smaller number, and a task with answers."
            )
        chosen = [query for query in queries if self.record in (None, query.id)]
        if not chosen:
            raise DataError(f"{self.source}: no query {self.record}. Its first is {queries[0].id}.")
        (shots,) = drawn(support, self.shots, self.draw)
        return chosen[0], shots, task.labels

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
