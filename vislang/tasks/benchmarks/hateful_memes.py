"""Hateful Memes (Kiela et al. 2020): is a meme hateful?"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from vislang.data.fields import field, finite_text, id_field, index_field, one_of, text_field
from vislang.data.problems import DataError, RecordError
from vislang.document import Document
from vislang.example import Example, Label, Prediction, Wording
from vislang.metrics import by_kind
from vislang.metrics.classification import area_under_curve
from vislang.metrics.figure import Figures, plain
from vislang.tasks.benchmark import Benchmark, must_have_target
from vislang.tasks.files import each, image_in, read_csv, read_lines, written_csv


class HatefulMemes(Benchmark):
    """``train.jsonl``, ``dev_seen.jsonl``, ...: id, img, label, text; images under ``img/``."""

    name = "hateful-memes"
    about = "pictures with words, hateful or not"
    kind = "label"
    media = frozenset({"image", "text"})
    metrics = ("auroc", "accuracy")
    splits = ("train", "dev_seen", "dev_unseen", "test_seen", "test_unseen")
    labels = ("0", "1")
    patterns = (r"(.+)\.jsonl",)
    files = "SPLIT.jsonl, images by their img"
    wording = Wording(
        "Is this meme hateful? It says: {text}",
        {"0": "no", "1": "yes"},
        {"0": "a harmless meme that says: {text}", "1": "a hateful meme that says: {text}"},
    )

    def read(self, split: str) -> list[Example]:
        """The memes of a split, in the official order; a test split may have no labels."""
        path = self.split_files[split]

        def example(record: Mapping[str, Any]) -> Example:
            name, image = id_field(record, "id"), text_field(record, "img")
            source = f"{path.name}, {name}"
            prompt = Document([image_in(self.folder, image), text_field(record, "text")], name=source)
            target = Label(str(index_field(record, "label", 2))) if "label" in record else None
            return Example(name, prompt, target, (), image, source, self.name, self.wording)

        return each(path, read_lines(path), example)

    def score(self, examples: Sequence[Example], predictions: Sequence[Prediction]) -> Figures:
        """``auroc``, over the probability of being hateful, and ``accuracy``."""
        for example in examples:
            must_have_target(example)
        positive = [example.target == Label("1") for example in examples]
        auroc = area_under_curve([hateful(prediction) for prediction in predictions], positive)
        return {"auroc": plain(auroc, len(examples)), **by_kind.score(examples, predictions)}

    def read_official(self, path: Path, examples: Sequence[Example]) -> list[Prediction]:
        """A CSV with ``id``, ``proba`` and ``label``."""

        def predict(row: Mapping[str, str]) -> Prediction:
            sure = finite_text(field(row, "proba"), "proba")
            if not 0 <= sure <= 1:
                raise RecordError(f"proba is {row['proba']}, and not from 0 to 1.")
            label = one_of(field(row, "label").strip(), self.labels)
            return Prediction(id_field(row, "id"), label, ("0", "1"), (1 - sure, sure))

        return each(path, read_csv(path), predict)

    def submission(self, examples: Sequence[Example], predictions: Sequence[Prediction]) -> tuple[str, str]:
        """The format of :meth:`read_official`."""
        rows = [[p.id, hateful(p), p.answer] for p in predictions]
        return "hateful_memes_predictions.csv", written_csv([["id", "proba", "label"], *rows])


def hateful(prediction: Prediction) -> float:
    """The probability of label 1; 0 or 1 where the prediction is a label alone.

    Raises:
        DataError: the model decided among other labels.
    """
    if not prediction.candidates:
        return float(prediction.answer == "1")
    scores = dict(zip(prediction.candidates, prediction.scores, strict=True))
    if "1" not in scores:
        known = ", ".join(str(candidate) for candidate in prediction.candidates)
        raise DataError(f"hateful memes have the labels 0 and 1, and the model decides among {known}.")
    if prediction.kind == "probability":
        return scores["1"]
    return 1 / sum(math.exp(min(700.0, score - scores["1"])) for score in scores.values())
