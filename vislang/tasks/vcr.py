"""VCR (Zellers et al. 2019): choose the answer to a question, then the reason for it.

Accuracies are of the answer given the question (Q->A), of the reason given question and right answer (QA->R), and of
both right on one record (Q->AR). Decisions are matched by record and part: ``ANNOT_ID answer``, ``ANNOT_ID rationale``.
"""

from __future__ import annotations

import csv
import io
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from vislang.case import Case, Choice, Decision
from vislang.data.jsonl import DataError
from vislang.document import Document
from vislang.tasks.answers import proportion
from vislang.tasks.official import Benchmark, Score, complete, each, image_in, one_file, read_lines, read_text

NEUTRAL_NAMES = ("Casey", "Riley", "Jessie", "Jackie", "Avery", "Jaime", "Peyton", "Kerry", "Jody", "Kendall")
"""What people in an image are called, by their number, instead of a tag that no vocabulary knows."""


class VCR(Benchmark):
    """``train.jsonl``, ``val.jsonl`` and images; each record becomes two cases, for the answer and for the reason."""

    name = "vcr"
    files = "SPLIT.jsonl, images under vcr1images/ by their img_fn"

    def __init__(self, folder: Path, split: str):
        path = one_file(folder, f"{split}.jsonl")
        made = each(path, read_lines(path), lambda record: self._cases(folder, path, record))
        self.cases = [case for cases in made for case in cases]

    def _cases(self, folder: Path, path: Path, record: Mapping[str, Any]) -> list[Case]:
        image = image_in(folder, f"vcr1images/{record['img_fn']}", record["img_fn"])
        objects, annotation = record["objects"], record["annot_id"]

        def text(tokens: Sequence[Any]) -> str:
            return written(tokens, objects)

        question = text(record["question"])
        right = text(record["answer_choices"][record["answer_label"]]) if "answer_label" in record else ""
        cases = []
        for part, asked, options in (
            ("answer", question, record["answer_choices"]),
            ("rationale", f"{question} {right}", record["rationale_choices"]),
        ):
            name = f"{path.name}, {annotation}, {part}"
            label = record.get(f"{part}_label")
            cases.append(
                Case(
                    name,
                    tuple(Document([image, asked, text(option)], name=name) for option in options),
                    None if label is None else Choice(int(label)),
                    self.name,
                    record["img_fn"],
                    f"{annotation} {part}",
                )
            )
        return cases

    def together(self, case: Case) -> str:
        """An answer goes with its rationale."""
        return case.id.rsplit(" ", 1)[0]

    def score(self, decisions: Mapping[str, Decision]) -> Score:
        """``Q->A``, ``QA->R`` and ``Q->AR``."""
        complete(self.cases, decisions, self.name)
        right: dict[str, dict[str, bool]] = {}
        for case in self.cases:
            annotation, part = self.together(case), case.id.rsplit(" ", 1)[1]
            if not isinstance(case.target, Choice):
                raise DataError(f"{case.name}: has no label; the test split is scored by its authors only.")
            right.setdefault(annotation, {})[part] = decisions[case.id].best == case.target.index
        n = len(right)
        return {
            "Q->A": proportion(sum(parts["answer"] for parts in right.values()), n),
            "QA->R": proportion(sum(parts["rationale"] for parts in right.values()), n),
            "Q->AR": proportion(sum(all(parts.values()) for parts in right.values()), n),
        }

    def read_predictions(self, path: Path) -> dict[str, Decision]:
        """The leaderboard's CSV: annot_id, answer_0 ... answer_3, rationale_conditioned_on_aA_R for all sixteen."""
        rows = list(csv.DictReader(io.StringIO(read_text(path), newline="")))
        labels = {
            case.id.rsplit(" ", 1)[0]: case.target.index
            for case in self.cases
            if case.id.endswith(" answer") and isinstance(case.target, Choice)
        }

        def decide(row: Mapping[str, str]) -> list[tuple[str, Decision]]:
            annotation = row["annot_id"]
            answers = [float(row[f"answer_{n}"]) for n in range(4)]
            given = labels[annotation]
            reasons = [float(row[f"rationale_conditioned_on_a{given}_{n}"]) for n in range(4)]
            return [
                (f"{annotation} {part}", Decision(int(np.argmax(values)), (0, 1, 2, 3), tuple(values)))
                for part, values in (("answer", answers), ("rationale", reasons))
            ]

        return dict(pair for pairs in each(path, rows, decide) for pair in pairs)


def written(tokens: Sequence[Any], objects: Sequence[str]) -> str:
    """Tokens as text: people by a neutral name, other objects by what they are."""
    words: list[str] = []
    for token in tokens:
        if isinstance(token, str):
            words.append(token)
            continue
        named = [
            NEUTRAL_NAMES[number % len(NEUTRAL_NAMES)] if objects[number] == "person" else objects[number]
            for number in token
        ]
        words.append(" and ".join(named))
    return " ".join(words)
