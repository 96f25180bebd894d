"""Referring expressions: RefCOCO, RefCOCO+ and RefCOCOg (Yu et al. 2016; Mao et al. 2016).

A prediction is correct if its box overlaps the ground truth by more than one half (intersection over union).
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from functools import cached_property
from pathlib import Path
from typing import Any

from vislang.boxes import Box
from vislang.capabilities import Progress
from vislang.data.problems import DataError, Problem
from vislang.document import Document
from vislang.example import Example, Prediction
from vislang.pickles import read_pickle
from vislang.tasks.benchmark import Benchmark
from vislang.tasks.files import each, image_in, listed, one_file, read_json


class RefCOCO(Benchmark):
    """``refs(...).p`` and ``instances.json`` of one of the three sets; each sentence is an example.

    If a folder has several files of references, the name of a split contains both: ``refs(unc).p val``. The split
    ``test`` is ``testA`` and ``testB`` together, as in the authors' code.
    """

    name = "refcoco"
    about = "expressions that refer to one thing in a photograph"
    kind = "box"
    media = frozenset({"image", "text"})
    metrics = ("accuracy", "upper_bound")
    splits = ("train", "val", "test", "testA", "testB")
    files = "refs(unc).p, refs(umd).p or refs(google).p, instances.json, images of MS COCO by their file_name"

    def find_splits(self) -> list[str]:
        """The splits of the references in each file."""
        one_file(self.folder, "instances.json", required=self.files)
        return list(self._by_split)

    @cached_property
    def _by_split(self) -> dict[str, tuple[Path, list[Mapping[str, Any]]]]:
        """For each split its file and its references."""
        paths = sorted(self.folder.glob("refs(*).p")) or [one_file(self.folder, "refs(*).p", required=self.files)]
        found: dict[str, tuple[Path, list[Mapping[str, Any]]]] = {}
        for path in paths:
            prefix = f"{path.name} " if len(paths) > 1 else ""
            by_split: dict[str, list[Mapping[str, Any]]] = {}
            for split, reference in each(path, read_pickle(path.read_bytes(), str(path)), lambda r: (r["split"], r)):
                by_split.setdefault(split, []).append(reference)
                if split in ("testA", "testB"):
                    by_split.setdefault("test", []).append(reference)
            found |= {f"{prefix}{split}": (path, own) for split, own in sorted(by_split.items())}
        return found

    def examples(
        self, split: str, problems: list[Problem] | None = None, progress: Progress | None = None
    ) -> list[Example]:
        """The examples of a split; its name may always begin with the name of the file."""
        only = {path for path, _ in self._by_split.values()}
        return super().examples(split.removeprefix(f"{only.pop().name} ") if len(only) == 1 else split)

    def read(self, split: str) -> list[Example]:
        """The sentences of a split, in the official order."""
        path, references = self._by_split[split]
        instances = one_file(self.folder, "instances.json")
        content = read_json(instances)
        boxes = dict(each(instances, listed(instances, content, "annotations"), lambda a: (a["id"], a["bbox"])))
        files = dict(each(instances, listed(instances, content, "images"), lambda i: (i["id"], i["file_name"])))

        def examples(reference: Mapping[str, Any]) -> list[Example]:
            left, top, width, height = boxes[reference["ann_id"]]
            target = Box(float(left), float(top), float(left + width), float(top + height))
            image = image_in(self.folder, files[reference["image_id"]])
            found = []
            for sentence in reference["sentences"]:
                source = f"{path.name}, sentence {sentence['sent_id']}"
                prompt = Document([image, sentence["sent"]], name=source)
                group = str(reference["image_id"])
                found.append(Example(str(sentence["sent_id"]), prompt, target, (), group, source, self.name))
            return found

        return [example for made in each(path, references, examples) for example in made]

    def read_official(self, path: Path, examples: Sequence[Example]) -> list[Prediction]:
        """``[{"sent_id": ..., "box": [left, top, width, height]}, ...]``, boxes in pixels as COCO has them."""

        def predict(record: Mapping[str, Any]) -> Prediction:
            left, top, width, height = map(float, record["box"])
            return Prediction(str(record["sent_id"]), Box(left, top, left + width, top + height))

        return each(path, read_json(path), predict)

    def submission(self, examples: Sequence[Example], predictions: Sequence[Prediction]) -> tuple[str, str]:
        """The format of :meth:`read_official`."""
        records = []
        for prediction in predictions:
            box = prediction.answer
            if not isinstance(box, Box):
                raise DataError(f"prediction {prediction.id}: {box!r} is not a box.")
            edges = [box.left, box.top, box.right - box.left, box.bottom - box.top]
            records.append({"sent_id": int(prediction.id), "box": edges})
        return "refcoco_predictions.json", json.dumps(records)
