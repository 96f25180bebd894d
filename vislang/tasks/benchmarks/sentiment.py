"""Sentiment as a number, as in CMU-MOSI and MOSEI (Zadeh et al. 2016, 2018)."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from vislang.data.fields import id_field, number_field, text_field
from vislang.data.problems import RecordError
from vislang.document import Document
from vislang.example import Example, Prediction, Value, Wording
from vislang.metrics.by_kind import numbers_of
from vislang.metrics.figure import Figures
from vislang.metrics.regression import SENTIMENT_METRICS, sentiment
from vislang.tasks.benchmark import Benchmark, must_have_target
from vislang.tasks.files import each, image_in, read_lines, written_lines

STRONGEST = 3
"""The score of the strongest feeling; that of the opposite one is its negative."""


class Sentiment(Benchmark):
    """Numbers from -3 to 3 in ``SPLIT.jsonl``: ``{"id", "image", "text", "score"}``; the image is a frame of the
    video."""

    name = "sentiment"
    about = "how positive a speaker is, from -3 to 3"
    kind = "value"
    media: frozenset[str] = frozenset({"image", "text"})
    metrics = SENTIMENT_METRICS
    splits = ("train", "val", "test")
    patterns = (r"(.+)\.jsonl",)
    files = "SPLIT.jsonl with id, image, text and score"
    wording = Wording('How positive are the words "{text}", as a number from -3 to 3?')

    def read(self, split: str) -> list[Example]:
        """The records of a split, in the order of the file."""
        path = self.split_files[split]

        def example(record: Mapping[str, Any]) -> Example:
            name, image, score = id_field(record, "id"), text_field(record, "image"), number_field(record, "score")
            if abs(score) > STRONGEST:
                raise RecordError(f'"score" is {score:g}, not from {-STRONGEST} to {STRONGEST}.')
            source = f"{path.name}, {name}"
            prompt = Document([image_in(self.folder, image), text_field(record, "text")], name=source)
            return Example(name, prompt, Value(score), (), image, source, self.name, self.wording)

        return each(path, read_lines(path), example)

    def score(self, examples: Sequence[Example], predictions: Sequence[Prediction]) -> Figures:
        """See :func:`vislang.metrics.regression.sentiment`; and ``answered``, where a prediction has no number."""
        for example in examples:
            must_have_target(example)
        numbers, answered = numbers_of(predictions)
        truth = [example.target.number for example in examples if isinstance(example.target, Value)]
        return {**sentiment(numbers, truth), **answered}

    def read_official(self, path: Path, examples: Sequence[Example]) -> list[Prediction]:
        """A record a line: ``{"id": ..., "score": ...}``."""
        return each(path, read_lines(path), lambda r: Prediction(id_field(r, "id"), number_field(r, "score")))

    def submission(self, examples: Sequence[Example], predictions: Sequence[Prediction]) -> tuple[str, str]:
        """The format of :meth:`read_official`; a missing number is the mean of the others, as it is scored."""
        numbers, _ = numbers_of(predictions)
        records = ({"id": p.id, "score": number} for p, number in zip(predictions, numbers, strict=True))
        return f"{self.name.replace('-', '_')}_predictions.jsonl", written_lines(records)
