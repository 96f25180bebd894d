"""NLVR2 (Suhr et al. 2019): is a sentence true of two images?"""

from __future__ import annotations

import csv
import io
from collections import defaultdict
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from vislang.case import Case, Decision, Label
from vislang.document import Document
from vislang.tasks.answers import proportion
from vislang.tasks.official import Benchmark, Score, complete, each, image_in, one_file, read_lines, read_text


class NLVR2(Benchmark):
    """``train.json``, ``dev.json``, ``test1.json``: a record a line; images by the identifier without its last part."""

    name = "nlvr2"
    files = "SPLIT.json (a record a line), images as <identifier without its last part>-img0.png and -img1.png"

    def __init__(self, folder: Path, split: str):
        path = one_file(folder, f"{split}.json", f"{split}.jsonl")

        def case(record: Mapping[str, Any]) -> Case:
            identifier = record["identifier"]
            if len(identifier.split("-")) != 4:
                raise ValueError(f"identifier {identifier!r} is not of four parts, such as dev-850-0-1")
            pair = identifier.rpartition("-")[0]
            images = [image_in(folder, f"{pair}-img{side}.png") for side in (0, 1)]
            name = f"{path.name}, {identifier}"
            document = Document([*images, record["sentence"]], name=name)
            return Case(name, (document,), Label(str(record["label"])), self.name, pair, identifier)

        self.cases = each(path, read_lines(path), case)

    def together(self, case: Case) -> str:
        """A sentence is judged on several pairs."""
        split, group, _, sentence = case.id.split("-")
        return f"{split}-{group}-{sentence}"

    def score(self, decisions: Mapping[str, Decision]) -> Score:
        """``accuracy``; and ``consistency``, the share of sentences that are judged right on all their pairs."""
        sentences: dict[str, list[bool]] = defaultdict(list)
        for case, decision in zip(self.cases, complete(self.cases, decisions, self.name), strict=True):
            assert isinstance(case.target, Label)
            sentences[self.together(case)].append(str(decision.best) == case.target.name)
        return {
            "accuracy": proportion(sum(map(sum, sentences.values())), len(self.cases)),
            "consistency": proportion(sum(map(all, sentences.values())), len(sentences)),
        }

    def read_predictions(self, path: Path) -> dict[str, Decision]:
        """Lines of ``identifier,True`` or ``identifier,False``."""
        rows = [row for row in csv.reader(io.StringIO(read_text(path), newline="")) if row]

        def decide(row: list[str]) -> tuple[str, Decision]:
            identifier, said = row
            if said.strip().lower() not in ("true", "false"):
                raise ValueError(f"{said!r} is neither True nor False")
            return identifier, Decision(said.strip().capitalize())

        return dict(each(path, rows, decide))
