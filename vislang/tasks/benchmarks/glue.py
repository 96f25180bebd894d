"""GLUE's tasks (Wang et al. 2019) about single sentences: CoLA (Warstadt et al. 2019), SST-2 (Socher et al. 2013)."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import ClassVar

from vislang.data.fields import one_of
from vislang.data.problems import DataError, RecordError
from vislang.document import Document
from vislang.example import Example, Label, Prediction, Wording
from vislang.metrics import by_kind
from vislang.metrics.classification import matthews
from vislang.metrics.figure import Figures
from vislang.tasks.benchmark import Benchmark
from vislang.tasks.files import each, read_text

TEST_HEADER = ["index", "sentence"]


class SingleSentence(Benchmark):
    """``train.tsv``, ``dev.tsv`` and ``test.tsv`` of a task of GLUE, with tabs between columns and no quotes.

    The id of a sentence is its index in the file, from 0. The sentences of the test split have no labels.

    Attributes:
        header: the first line of the files with labels; empty without one.
        sentence, label: the columns of the sentence and of its label.
        official: name of the official file of predictions.
    """

    kind = "label"
    media = frozenset({"text"})
    splits = ("train", "dev", "test")
    patterns = (r"(train|dev|test)\.tsv",)
    files = "train.tsv, dev.tsv, test.tsv"
    header: ClassVar[list[str]]
    sentence: ClassVar[int]
    label: ClassVar[int]
    columns: ClassVar[int]
    official: ClassVar[str]

    def read(self, split: str) -> list[Example]:
        """The sentences of a split, in the official order."""
        path = self.split_files[split]
        header = TEST_HEADER if split == "test" else self.header
        rows = _rows(path, header)

        def example(row: tuple[int, list[str]]) -> Example:
            index, cells = row
            if len(cells) != (columns := len(header) or self.columns):
                raise RecordError(f"{len(cells)} columns; there must be {columns}, with tabs between them.")
            target = None
            if split != "test":
                target = Label(self.labels[int(one_of(cells[self.label], ("0", "1")))])
                text = cells[self.sentence]
            else:
                if cells[0] != str(index):
                    raise RecordError(f"its index is {cells[0]}; the file is complete if it is {index}.")
                text = cells[1]
            if not text.strip():
                raise RecordError("its sentence is empty.")
            source = f"{path.name}, {index}"
            return Example(
                str(index), Document([text.strip()], name=source), target, (), "", source, self.name, self.wording
            )

        return each(path, enumerate(rows), example)

    def read_official(self, path: Path, examples: Sequence[Example]) -> list[Prediction]:
        """Lines of index and 0 or 1, with a tab between them, after the line ``index prediction``."""

        def predict(row: list[str]) -> Prediction:
            if len(row) != 2:
                raise RecordError(f"{len(row)} columns; a line is an index and 0 or 1, with a tab between them.")
            return Prediction(row[0].strip(), self.labels[int(one_of(row[1].strip(), ("0", "1")))])

        return each(path, _rows(path, ["index", "prediction"]), predict)

    def submission(self, examples: Sequence[Example], predictions: Sequence[Prediction]) -> tuple[str, str]:
        """The format of :meth:`read_official`; a missing answer is 0."""
        lines = [f"{p.id}\t{int(p.answer == self.labels[1])}" for p in predictions]
        return self.official, "\n".join(["index\tprediction", *lines]) + "\n"


def _rows(path: Path, header: list[str]) -> list[list[str]]:
    """The rows of a TSV file after its header.

    Raises:
        DataError: it has another header.
    """
    rows = [line.rstrip("\r").split("\t") for line in read_text(path).split("\n") if line.strip()]
    if header:
        if not rows or [cell.strip() for cell in rows[0]] != header:
            raise DataError(f"{path}: its first line is not {' '.join(header)}, with tabs between them.")
        rows = rows[1:]
    return rows


class CoLA(SingleSentence):
    """Whether a sentence is acceptable English. Its files have four columns without a header: source, label, the mark
    of the original author, sentence."""

    name = "cola"
    about = "sentences that are acceptable English, or not"
    metrics = ("matthews", "accuracy")
    labels = ("unacceptable", "acceptable")
    header: ClassVar[list[str]] = []
    columns, label, sentence = 4, 1, 3
    official = "CoLA.tsv"
    wording = Wording(
        'Is "{text}" acceptable English?',
        {"acceptable": "yes", "unacceptable": "no"},
        {"": "{label} English: {text}"},
    )

    def score(self, examples: Sequence[Example], predictions: Sequence[Prediction]) -> Figures:
        """The official Matthews correlation ``matthews``, and ``accuracy``."""
        accuracy = by_kind.score(examples, predictions)
        truth = [example.target == Label("acceptable") for example in examples]
        return {"matthews": matthews([p.answer == "acceptable" for p in predictions], truth), **accuracy}


class SST2(SingleSentence):
    """Whether a phrase or sentence of a film review is positive."""

    name = "sst-2"
    about = "sentences of film reviews, positive or negative"
    metrics = ("accuracy",)
    labels = ("negative", "positive")
    header: ClassVar[list[str]] = ["sentence", "label"]
    columns, sentence, label = 2, 0, 1
    official = "SST-2.tsv"
    wording = Wording('Is the review "{text}" positive or negative?', captions={"": "{label}: {text}"})
