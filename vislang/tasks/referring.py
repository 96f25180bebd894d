"""Referring expressions: RefCOCO, RefCOCO+ and RefCOCOg (Yu et al. 2016; Mao et al. 2016): point at what is meant.

A prediction is right where its box overlaps the right one by more than one half (intersection over union).
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from vislang.boxes import overlaps
from vislang.case import Case, Decision, Place
from vislang.data.jsonl import DataError
from vislang.document import Document
from vislang.pickles import read_pickle
from vislang.tasks.answers import proportion
from vislang.tasks.official import Benchmark, Score, complete, each, image_in, listed, one_file, read_json


class Referring(Benchmark):
    """``refs(...).p`` and ``instances.json`` of one of the three sets; each sentence is a case."""

    name = "refcoco"
    files = "refs(unc).p, refs(umd).p or refs(google).p, instances.json, images of MS COCO by their file_name"

    def __init__(self, folder: Path, split: str):
        # Several sets of references may share a folder; then the split names one: "refs(unc).p val".
        named, _, split = split.rpartition(" ")
        path = one_file(folder, named or "refs(*).p")
        references = read_pickle(path.read_bytes(), str(path))
        instances = one_file(folder, "instances.json")
        content = read_json(instances)
        boxes = dict(each(instances, listed(instances, content, "annotations"), lambda a: (a["id"], a["bbox"])))
        files = dict(each(instances, listed(instances, content, "images"), lambda i: (i["id"], i["file_name"])))

        def cases(reference: Mapping[str, Any]) -> list[Case]:
            # 'test' is testA, testB or test, as in the authors' own reader.
            if reference["split"] != split and not (split == "test" and reference["split"].startswith("test")):
                return []
            left, top, width, height = boxes[reference["ann_id"]]
            target = Place(float(left), float(top), float(left + width), float(top + height))
            image = image_in(folder, files[reference["image_id"]])
            return [
                Case(
                    f"{path.name}, sentence {sentence['sent_id']}",
                    (Document([image, sentence["sent"]], name=f"{path.name}, sentence {sentence['sent_id']}"),),
                    target,
                    self.name,
                    str(reference["image_id"]),
                    str(sentence["sent_id"]),
                )
                for sentence in reference["sentences"]
            ]

        self.cases = [case for made in each(path, references, cases) for case in made]
        if not self.cases:
            splits = ", ".join(sorted({reference["split"] for reference in references}))
            raise DataError(f"{path}: nothing of the split {split}; there are {splits}.")

    def score(self, decisions: Mapping[str, Decision]) -> Score:
        """``accuracy``; and ``upper bound``, where candidates are known: of whoever points at the best of them."""
        return pointing(self.cases, complete(self.cases, decisions, self.name))

    def read_predictions(self, path: Path) -> dict[str, Decision]:
        """``[{"sent_id": ..., "box": [left, top, width, height]}, ...]``, boxes in pixels as COCO has them."""

        def decide(record: Mapping[str, Any]) -> tuple[str, Decision]:
            left, top, width, height = map(float, record["box"])
            return str(record["sent_id"]), Decision(Place(left, top, left + width, top + height))

        return dict(each(path, read_json(path), decide))


def pointing(cases: list[Case], decisions: list[Decision]) -> Score:
    """The share of places that are right, and, where candidates are known, the most that pointing at them can reach."""
    right, reachable = 0, 0
    for case, decision in zip(cases, decisions, strict=True):
        assert isinstance(case.target, Place)
        assert isinstance(decision.best, Place)
        wanted = as_boxes(case.target)
        right += bool(overlaps(as_boxes(decision.best), wanted)[0, 0] > 0.5)
        places = [place for place in decision.candidates if isinstance(place, Place)]
        reachable += bool(places) and bool((overlaps(as_boxes(*places), wanted) > 0.5).any())
    found: dict[str, Any] = {"accuracy": proportion(right, len(cases))}
    if any(decision.candidates for decision in decisions):
        found["upper bound"] = proportion(reachable, len(cases))
    return found


def as_boxes(*places: Place) -> np.ndarray:
    """(places, 4), as :func:`vislang.regions.overlaps` wants them."""
    return np.array([[place.left, place.top, place.right, place.bottom] for place in places], dtype=np.float32)
