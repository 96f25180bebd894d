"""Hateful Memes (Kiela et al. 2020): is a picture with its words hateful?"""

from __future__ import annotations

import csv
import io
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from vislang.case import Case, Decision, Label
from vislang.data.jsonl import DataError
from vislang.document import Document
from vislang.tasks.answers import proportion
from vislang.tasks.official import Benchmark, Score, complete, each, image_in, one_file, read_lines, read_text


class HatefulMemes(Benchmark):
    """``train.jsonl``, ``dev_seen.jsonl``, ...: id, img, label, text; images under ``img/``."""

    name = "hateful-memes"
    files = "SPLIT.jsonl, images by their img"

    def __init__(self, folder: Path, split: str):
        path = one_file(folder, f"{split}.jsonl")

        def case(record: Mapping[str, Any]) -> Case:
            name = f"{path.name}, {record['id']}"
            document = Document([image_in(folder, record["img"]), record["text"]], name=name)
            label = Label(str(record["label"])) if "label" in record else None
            return Case(name, (document,), label, self.name, record["img"], str(record["id"]))

        self.cases = each(path, read_lines(path), case)

    def score(self, decisions: Mapping[str, Decision]) -> Score:
        """``AUROC``, over the probability of being hateful, and ``accuracy``."""
        found = complete(self.cases, decisions, self.name)
        labels = []
        for case in self.cases:
            if not isinstance(case.target, Label):
                raise DataError(f"{case.name}: has no label, so it cannot be scored.")
            labels.append(case.target.name == "1")
        return {
            "AUROC": area_under_curve([hateful(decision) for decision in found], labels),
            "accuracy": proportion(
                sum((decision.best == "1") == label for decision, label in zip(found, labels, strict=True)), len(labels)
            ),
        }

    def read_predictions(self, path: Path) -> dict[str, Decision]:
        """A CSV with ``id``, ``proba`` and ``label``."""
        rows = list(csv.DictReader(io.StringIO(read_text(path), newline="")))

        def decide(row: Mapping[str, str]) -> tuple[str, Decision]:
            sure = float(row["proba"])
            if not 0 <= sure <= 1:
                raise ValueError(f"proba is {row['proba']}, and not from 0 to 1")
            return row["id"], Decision(str(int(row["label"])), ("0", "1"), (1 - sure, sure))

        return dict(each(path, rows, decide))


def hateful(decision: Decision) -> float:
    """The probability of label 1.

    Raises:
        DataError: the labels that were decided among are others.
    """
    sure = dict(zip(decision.candidates, decision.probabilities, strict=True))
    if "1" not in sure:
        known = ", ".join(str(candidate) for candidate in decision.candidates)
        raise DataError(f"hateful memes have the labels 0 and 1, and the model decides among {known}.")
    return sure["1"]


def area_under_curve(scores: Sequence[float], labels: Sequence[bool]) -> float:
    """The area under the ROC curve: how often a positive scores above a negative, ties counting half.

    NaN where one of the two is missing.
    """
    positive = np.array([score for score, label in zip(scores, labels, strict=True) if label])
    negative = np.array([score for score, label in zip(scores, labels, strict=True) if not label])
    if not len(positive) or not len(negative):
        return float("nan")
    ordered = np.sort(negative)
    below = np.searchsorted(ordered, positive, side="left")
    level = np.searchsorted(ordered, positive, side="right") - below
    return float((below + level / 2).sum() / (len(positive) * len(negative)))
