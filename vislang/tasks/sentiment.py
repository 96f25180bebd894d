"""Sentiment as a number, as in CMU-MOSI and MOSEI (Zadeh et al. 2016, 2018)."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from vislang.document import Document
from vislang.example import Example, Prediction, Value, Wording
from vislang.metrics.by_kind import numbers_of
from vislang.metrics.figure import Figures
from vislang.metrics.regression import SENTIMENT_METRICS, sentiment
from vislang.tasks.benchmark import Benchmark, must_have_target
from vislang.tasks.files import each, image_in, read_lines, written_lines


class Sentiment(Benchmark):
    """Numbers from -3 to 3 in ``SPLIT.jsonl``: ``{"id", "image", "text", "score"}``; the image is a frame of the
    video."""

    name = "sentiment"
    about = "how positive a speaker is, from -3 to 3"
    kind = "value"
    media = frozenset({"image", "text"})
    metrics = SENTIMENT_METRICS
    splits = ("train", "val", "test")
    patterns = (r"(.+)\.jsonl",)
    files = "SPLIT.jsonl with id, image, text and score"
    wording = Wording('How positive are the words "{text}", as a number from -3 to 3?')

    def read(self, split: str) -> list[Example]:
        """The records of a split, in the order of the file."""
        path = self.split_files[split]

        def example(record: Mapping[str, Any]) -> Example:
            source = f"{path.name}, {record['id']}"
            prompt = Document([image_in(self.folder, record["image"]), record["text"]], name=source)
            target = Value(float(record["score"]))
            return Example(str(record["id"]), prompt, target, (), record["image"], source, self.name, self.wording)

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
        return each(path, read_lines(path), lambda r: Prediction(str(r["id"]), float(r["score"])))

    def submission(self, examples: Sequence[Example], predictions: Sequence[Prediction]) -> tuple[str, str]:
        """The format of :meth:`read_official`; a missing number is the mean of the others, as it is scored."""
        numbers, _ = numbers_of(predictions)
        records = ({"id": p.id, "score": number} for p, number in zip(predictions, numbers, strict=True))
        return "sentiment_predictions.jsonl", written_lines(records)
