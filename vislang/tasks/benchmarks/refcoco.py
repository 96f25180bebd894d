"""Referring expressions: RefCOCO, RefCOCO+ and RefCOCOg (Yu et al. 2016; Mao et al. 2016).

A prediction is correct if its box overlaps the ground truth by at least one half (intersection over union).
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from functools import cached_property
from pathlib import Path
from typing import Any

from vislang.boxes import Box
from vislang.capabilities import Progress
from vislang.data.fields import finite, id_field, list_field, text_field
from vislang.data.problems import DataError, Problem, RecordError, must_be_file
from vislang.document import Document
from vislang.example import Example, Prediction
from vislang.pickles import read_pickle
from vislang.tasks.benchmark import Benchmark
from vislang.tasks.files import each, image_in, keyed, listed, one_file, read_json


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
            must_be_file(path, "the official file")
            references = read_pickle(path.read_bytes(), str(path))
            for split, reference in each(path, references, lambda r: (text_field(r, "split"), r)):
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
        boxes = keyed(instances, listed(instances, content, "annotations"), lambda a: (id_field(a, "id"), a))
        files = keyed(
            instances,
            listed(instances, content, "images"),
            lambda i: (id_field(i, "id"), text_field(i, "file_name")),
        )

        def examples(reference: Mapping[str, Any]) -> list[Example]:
            box, image = id_field(reference, "ann_id"), id_field(reference, "image_id")
            for kind, name, known in (("annotation", box, boxes), ("image", image, files)):
                if name not in known:
                    raise RecordError(f"{kind} {name} is not in {instances.name}.")
            try:
                target = _box(boxes[box], "bbox")
            except RecordError as error:
                raise DataError(f"{instances}, annotation {box}: {error}") from None
            if target.right == target.left or target.bottom == target.top:
                raise DataError(f"{instances}, annotation {box}: its bbox is empty.")
            found = []
            for sentence in list_field(reference, "sentences"):
                name = id_field(sentence, "sent_id")
                source = f"{path.name}, sentence {name}"
                prompt = Document([image_in(self.folder, files[image]), text_field(sentence, "sent")], name=source)
                found.append(Example(name, prompt, target, (), image, source, self.name))
            return found

        return [example for made in each(path, references, examples) for example in made]

    def read_official(self, path: Path, examples: Sequence[Example]) -> list[Prediction]:
        """``[{"sent_id": ..., "box": [left, top, width, height]}, ...]``, boxes in pixels as COCO has them."""
        return each(path, read_json(path), lambda r: Prediction(id_field(r, "sent_id"), _box(r, "box")))

    def submission(self, examples: Sequence[Example], predictions: Sequence[Prediction]) -> tuple[str, str]:
        """The format of :meth:`read_official`."""
        records = []
        for prediction in predictions:
            box = prediction.answer
            if not isinstance(box, Box):
                raise DataError(f"prediction {prediction.id}: {box!r} is not a box.")
            edges = [box.left, box.top, box.right - box.left, box.bottom - box.top]
            records.append({"sent_id": int(prediction.id) if prediction.id.isdigit() else prediction.id, "box": edges})
        return "refcoco_predictions.json", json.dumps(records)


def _box(record: Any, key: str) -> Box:
    """The box in a field, which holds left, top, width and height, as MS COCO has them."""
    left, top, width, height = (finite(edge, f'"{key}"') for edge in list_field(record, key, 4))
    if width < 0 or height < 0:
        raise RecordError(f'"{key}" has a negative size.')
    return Box(left, top, left + width, top + height)
