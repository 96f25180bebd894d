"""MVSA (Niu et al. 2016): is a post with an image positive, neutral or negative?"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from vislang.data.fields import field, id_field, one_of
from vislang.data.problems import DataError, RecordError
from vislang.document import Document
from vislang.example import Example, Label, Prediction, Wording
from vislang.metrics import by_kind
from vislang.metrics.classification import f1
from vislang.metrics.figure import Figures
from vislang.tasks.benchmark import Benchmark
from vislang.tasks.files import each, image_in, keyed, one_file, read_lines, read_text, written_lines

TENTHS = {"train": range(8), "val": range(8, 9), "test": range(9, 10)}
"""Splits by index: tenths of the records. The set has no official split."""


class MVSA(Benchmark):
    """``labelResultAll.txt``: ID, then labels of text and image by one annotator (MVSA-Single) or three (-Multiple).

    The usual clean-up: records whose text and image have opposite labels are dropped; if one is neutral, the other
    label is used. With three annotators, the majority for text and for image is used, and records without one are
    dropped.
    """

    name = "mvsa"
    about = "posts with a picture: positive, neutral or negative"
    kind = "label"
    media = frozenset({"image", "text"})
    metrics = ("accuracy", "weighted_f1", "macro_f1")
    splits = tuple(TENTHS)
    labels = ("positive", "neutral", "negative")
    files = "labelResultAll.txt, data/<ID>.jpg and data/<ID>.txt"
    wording = Wording(
        'Is the mood of this picture and its words, "{text}", positive, neutral or negative?',
        captions={"": "a {label} picture: {text}"},
    )

    def find_splits(self) -> tuple[str, ...]:
        """Three, by the index of a record."""
        one_file(self.folder, "labelResultAll.txt", required=self.files)
        return tuple(TENTHS)

    def read(self, split: str) -> list[Example]:
        """The records of a split that annotators agree on, in the order of the file."""
        path = one_file(self.folder, "labelResultAll.txt")
        header, *rows = [line.rstrip().split("\t") for line in read_text(path).splitlines() if line.strip()] or [[""]]
        if header[0].strip().lower() != "id":
            raise DataError(f"{path}: its first line does not begin with ID. Give the official file, with its header.")

        def labelled(row: list[str]) -> tuple[str, str | None]:
            if not row[0].strip() or len(row) != len(header):
                raise RecordError(f"{len(row)} columns; the first line names {len(header)}.")
            return row[0].strip(), agreed([cell.strip() for cell in row[1:]])

        kept = [(number, label) for number, label in keyed(path, rows, labelled).items() if label is not None]
        examples = []
        for index, (number, label) in enumerate(kept):
            if index % 10 not in TENTHS[split]:
                continue
            words = self.folder / "data" / f"{number}.txt"
            try:
                text = words.read_text(encoding="utf-8", errors="replace").strip()
            except OSError as error:
                raise DataError(f"{words}: cannot be read ({error.strerror}).") from None
            source = f"{path.name}, {number}"
            prompt = Document([image_in(self.folder, f"data/{number}.jpg"), text], name=source)
            examples.append(Example(number, prompt, Label(label), (), number, source, self.name, self.wording))
        return examples

    def score(self, examples: Sequence[Example], predictions: Sequence[Prediction]) -> Figures:
        """``accuracy``, and ``weighted_f1`` and ``macro_f1`` over the classes."""
        truth = [example.target.name for example in examples if isinstance(example.target, Label)]
        return {**by_kind.score(examples, predictions), **f1([p.answer for p in predictions], truth)}  # type: ignore[misc]

    def read_official(self, path: Path, examples: Sequence[Example]) -> list[Prediction]:
        """A record a line: ``{"id": ..., "label": ...}``."""

        def predict(record: Mapping[str, Any]) -> Prediction:
            return Prediction(id_field(record, "id"), one_of(field(record, "label"), self.labels))

        return each(path, read_lines(path), predict)

    def submission(self, examples: Sequence[Example], predictions: Sequence[Prediction]) -> tuple[str, str]:
        """The format of :meth:`read_official`."""
        return "mvsa_predictions.jsonl", written_lines({"id": p.id, "label": p.answer} for p in predictions)


def agreed(cells: Sequence[str]) -> str | None:
    """The label of a record, or None where text and image contradict each other or annotators do not agree.

    Raises:
        RecordError: a cell is not two labels with a comma between them.
    """
    pairs = [[one_of(label.strip(), MVSA.labels) for label in cell.split(",")] for cell in cells]
    if not pairs or any(len(pair) != 2 for pair in pairs):
        raise RecordError(f"{' '.join(cells) or 'nothing'!r} is not a label of the text and one of the image.")
    sides = []
    for side in zip(*pairs, strict=True):
        (label, count), *_ = Counter(side).most_common(1)
        if len(pairs) > 1 and count * 2 <= len(pairs):
            return None
        sides.append(label)
    text, image = sides
    if {text, image} == {"positive", "negative"}:
        return None
    return image if text == "neutral" else text
