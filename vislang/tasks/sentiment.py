"""Sentiment of a picture with its words: classes (MVSA, Niu et al. 2016) and numbers (as in CMU-MOSI and MOSEI)."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np

from vislang.case import Case, Decision, Label, Value
from vislang.data.jsonl import DataError
from vislang.document import Document
from vislang.tasks.answers import proportion
from vislang.tasks.official import Benchmark, Score, complete, each, image_in, one_file, read_lines, read_text

SHARES = {"train": range(8), "val": range(8, 9), "test": range(9, 10)}
"""Tenths of the records, by their place: the set has no official split, and this one draws nothing."""


class MVSA(Benchmark):
    """``labelResultAll.txt``: ID, then what one annotator (MVSA-Single) or three (MVSA-Multiple) say of text and image.

    The usual clean-up: text and image must not say positive and negative; where one is neutral, the other counts; of
    three annotators the majority of each, and no record without one.
    """

    name = "mvsa"
    files = "labelResultAll.txt, data/<ID>.jpg and data/<ID>.txt"

    def __init__(self, folder: Path, split: str):
        path = one_file(folder, "labelResultAll.txt")
        if split not in SHARES:
            raise DataError(f"{path}: has no split {split}; here they are {', '.join(SHARES)} (8 : 1 : 1 by place).")
        rows = [line.split("\t") for line in read_text(path).splitlines()[1:] if line.strip()]

        def labelled(row: list[str]) -> tuple[str, str | None]:
            return row[0].strip(), agreed([cell.strip() for cell in row[1:]])

        kept = [(number, label) for number, label in each(path, rows, labelled) if label is not None]
        self.cases = []
        for place, (number, label) in enumerate(kept):
            if place % 10 not in SHARES[split]:
                continue
            try:
                text = (folder / "data" / f"{number}.txt").read_text(encoding="utf-8", errors="replace").strip()
            except OSError as error:
                raise DataError(f"{folder / 'data' / number}.txt: cannot be read ({error.strerror}).") from None
            name = f"{path.name}, {number}"
            document = Document([image_in(folder, f"data/{number}.jpg"), text], name=name)
            self.cases.append(Case(name, (document,), Label(label), self.name, number, number))

    def score(self, decisions: Mapping[str, Decision]) -> Score:
        """``accuracy``, and ``weighted F1`` and ``macro F1`` over the classes."""
        found = complete(self.cases, decisions, self.name)
        wanted = [case.target.name for case in self.cases if isinstance(case.target, Label)]
        said = [str(decision.best) for decision in found]
        return {
            "accuracy": proportion(sum(s == w for s, w in zip(said, wanted, strict=True)), len(wanted)),
            **f1(said, wanted),
        }

    def read_predictions(self, path: Path) -> dict[str, Decision]:
        """A record a line: ``{"id": ..., "label": ...}``."""
        return dict(each(path, read_lines(path), lambda r: (str(r["id"]), Decision(r["label"]))))


def agreed(cells: Sequence[str]) -> str | None:
    """The label of a record, or None where text and image contradict each other or annotators do not agree."""
    pairs = [cell.split(",") for cell in cells if cell]
    sides = []
    for side in zip(*pairs, strict=True):
        (label, count), *_ = Counter(part.strip() for part in side).most_common(1)
        if len(pairs) > 1 and count * 2 <= len(pairs):
            return None
        sides.append(label)
    text, image = sides
    if {text, image} == {"positive", "negative"}:
        return None
    return image if text == "neutral" else text


def f1(said: Sequence[str], wanted: Sequence[str]) -> dict[str, float]:
    """F1 over the classes that occur, as a mean weighted by their frequency and as a plain mean."""
    classes = sorted(set(wanted))
    scores, weights = [], []
    for name in classes:
        hits = sum(s == w == name for s, w in zip(said, wanted, strict=True))
        scores.append(2 * hits / max(1, said.count(name) + wanted.count(name)))
        weights.append(wanted.count(name))
    return {"weighted F1": float(np.average(scores, weights=weights)), "macro F1": float(np.mean(scores))}


class SentimentNumbers(Benchmark):
    """Numbers from -3 to 3 in ``SPLIT.jsonl``: ``{"id", "image", "text", "score"}``; a frame stands for a video."""

    name = "sentiment"
    files = "SPLIT.jsonl with id, image, text and score"

    def __init__(self, folder: Path, split: str):
        path = one_file(folder, f"{split}.jsonl")

        def case(record: Mapping) -> Case:
            name = f"{path.name}, {record['id']}"
            document = Document([image_in(folder, record["image"]), record["text"]], name=name)
            return Case(name, (document,), Value(float(record["score"])), self.name, record["image"], str(record["id"]))

        self.cases = each(path, read_lines(path), case)

    def score(self, decisions: Mapping[str, Decision]) -> Score:
        """See :func:`sentiment_scores`."""
        found = complete(self.cases, decisions, self.name)
        wanted = [case.target.number for case in self.cases if isinstance(case.target, Value)]
        return sentiment_scores([float(decision.best) for decision in found], wanted)  # type: ignore[arg-type]

    def read_predictions(self, path: Path) -> dict[str, Decision]:
        """A record a line: ``{"id": ..., "score": ...}``."""
        return dict(each(path, read_lines(path), lambda r: (str(r["id"]), Decision(float(r["score"])))))


def sentiment_scores(said: Sequence[float], wanted: Sequence[float]) -> Score:
    """The figures that papers on MOSI and MOSEI give, both readings of "two classes" among them.

    ``MAE``; ``Pearson r`` (NaN where one side is constant); ``accuracy, 7 classes``: rounded after clipping to
    [-3, 3]; ``accuracy, negative or not`` (0 counts as not negative) and ``accuracy, negative or positive`` (records
    at 0 left out), each with its weighted F1.
    """
    a, b = np.asarray(said, float), np.asarray(wanted, float)
    seven = np.round(a.clip(-3, 3)) == np.round(b.clip(-3, 3))
    scores: dict = {
        "MAE": float(np.abs(a - b).mean()),
        "Pearson r": math.nan if a.std() == 0 or b.std() == 0 else float(np.corrcoef(a, b)[0, 1]),
        "accuracy, 7 classes": proportion(int(seven.sum()), len(a)),
    }
    signs = (("negative or not", np.ones(len(b), bool), np.greater_equal), ("negative or positive", b != 0, np.greater))
    for name, kept, compare in signs:
        if not kept.any():
            continue
        left, right = compare(a[kept], 0), compare(b[kept], 0)
        scores[f"accuracy, {name}"] = proportion(int((left == right).sum()), int(kept.sum()))
        scores[f"weighted F1, {name}"] = f1([str(v) for v in left], [str(v) for v in right])["weighted F1"]
    return scores
