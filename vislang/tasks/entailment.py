"""SNLI-VE (Xie et al. 2019): does a sentence follow from an image, contradict it, or neither?"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from vislang.case import Case, Decision, Label
from vislang.document import Document
from vislang.tasks.answers import proportion
from vislang.tasks.official import Benchmark, Score, complete, each, image_in, one_file, read_lines


class SNLIVE(Benchmark):
    """``snli_ve_train.jsonl``, ``snli_ve_dev.jsonl``, ``snli_ve_test.jsonl``, and the images of Flickr30k."""

    name = "snli-ve"
    files = "snli_ve_SPLIT.jsonl, images as <Flickr30K_ID>.jpg"

    def __init__(self, folder: Path, split: str):
        path = one_file(folder, f"snli_ve_{split}.jsonl", f"*{split}*.jsonl")

        def case(record: Mapping[str, Any]) -> Case:
            # The released files spell the first key in two ways.
            picture = record.get("Flickr30K_ID") or record.get("Flikr30kID") or record["Flickr30kID"]
            name = f"{path.name}, {record['pairID']}"
            image = image_in(folder, f"{str(picture).removesuffix('.jpg')}.jpg")
            document = Document([image, record["sentence2"]], name=name)
            return Case(name, (document,), Label(record["gold_label"]), self.name, str(picture), record["pairID"])

        self.cases = each(path, read_lines(path), case)

    def score(self, decisions: Mapping[str, Decision]) -> Score:
        """``accuracy``."""
        found = complete(self.cases, decisions, self.name)
        right = sum(
            isinstance(case.target, Label) and decision.best == case.target.name
            for case, decision in zip(self.cases, found, strict=True)
        )
        return {"accuracy": proportion(right, len(self.cases))}

    def read_predictions(self, path: Path) -> dict[str, Decision]:
        """A record a line: ``{"pairID": ..., "prediction": "entailment"}``."""
        return dict(each(path, read_lines(path), lambda r: (r["pairID"], Decision(r["prediction"]))))
