"""VCR (Zellers et al. 2019): choose the answer to a question, then the reason for it.

Accuracies are of the answer given the question (Q->A), of the reason given question and right answer (QA->R), and of
both right on one record (Q->AR).
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from vislang.data.fields import (
    as_list,
    field,
    finite,
    finite_text,
    id_field,
    index_field,
    list_field,
    number_field,
    shown,
    text_field,
)
from vislang.data.problems import DataError, RecordError
from vislang.document import Document, Image, Mark, Marked
from vislang.example import Choice, Example, Prediction
from vislang.metrics.by_kind import score_of
from vislang.metrics.figure import Figures, plain, share
from vislang.tasks.benchmark import Benchmark, must_have_target
from vislang.tasks.files import each, image_in, read_csv, read_json, read_lines, written_csv

NEUTRAL_NAMES = ("Casey", "Riley", "Jessie", "Jackie", "Avery", "Jaime", "Peyton", "Kerry", "Jody", "Kendall")
"""Names for the people in an image, by number; the original tags are in no vocabulary."""

CHOICES = range(4)


class VCR(Benchmark):
    """``train.jsonl``, ``val.jsonl``, ``test.jsonl``, and images with their metadata.

    The texts name objects of the image. Their boxes, from the metadata, are drawn on the image with the same names
    (as MERLOT does, Zellers et al. 2021), and models of regions of a grid read a region for each. All objects are
    drawn that the question, an answer or a reason of the record names, so boxes do not tell which choice is correct.

    Each record becomes two examples: ``ANNOT_ID answer``, and ``ANNOT_ID rationale`` with the correct answer in its
    prompt. If that is not known, as in the test split, there is a rationale example for each answer, ``ANNOT_ID
    rationale 0`` to ``3``; these have no target.
    """

    name = "vcr"
    about = "questions about film scenes: the right answer of four, and the right reason of four"
    kind = "choice"
    media = frozenset({"image", "text"})
    metrics = ("q_to_a", "qa_to_r", "q_to_ar")
    splits = ("train", "val", "test")
    patterns = (r"(.+)\.jsonl",)
    files = "SPLIT.jsonl, images and metadata in vcr1images/ by their img_fn and metadata_fn"

    def __init__(self, folder: Path):
        super().__init__(folder)
        self._found: dict[Path, tuple[float, float, list[tuple[float, float, float, float]]]] = {}

    def read(self, split: str) -> list[Example]:
        """The examples of a split, in the official order."""
        path = self.split_files[split]
        made = each(path, read_lines(path), lambda record: self._examples(path, record))
        return [example for examples in made for example in examples]

    def _examples(self, path: Path, record: Mapping[str, Any]) -> list[Example]:
        picture, annotation = text_field(record, "img_fn"), id_field(record, "annot_id")
        objects = [one for one in list_field(record, "objects") if isinstance(one, str)]
        if len(objects) < len(record["objects"]):
            raise RecordError('"objects" are not all names of classes.')
        names = names_of(objects)
        asked = list_field(record, "question")
        choices_of = [list_field(record, f"{part}_choices", len(CHOICES)) for part in ("answer", "rationale")]
        question = written(asked, names)
        answers, rationales = ([written(choice, names) for choice in choices] for choices in choices_of)
        image = self._image(record, picture, names, [asked, *choices_of[0], *choices_of[1]])

        def example(part: str, text: str, choices: Sequence[str], label: int | None) -> Example:
            source = f"{path.name}, {annotation}, {part}"
            return Example(
                f"{annotation} {part}",
                Document([image, text], name=source),
                None if label is None else Choice(label),
                tuple(Document([choice], name=source) for choice in choices),
                picture,
                source,
                self.name,
            )

        if "answer_label" in record:
            right = index_field(record, "answer_label", len(CHOICES))
            reason = index_field(record, "rationale_label", len(CHOICES))
            return [
                example("answer", question, answers, right),
                example("rationale", f"{question} {answers[right]}", rationales, reason),
            ]
        return [
            example("answer", question, answers, None),
            *(example(f"rationale {n}", f"{question} {answer}", rationales, None) for n, answer in enumerate(answers)),
        ]

    def _image(
        self, record: Mapping[str, Any], picture: str, names: Sequence[str], texts: Sequence[Sequence[Any]]
    ) -> Image:
        """The image, with a box and a name for each object that a text of the record names."""
        image = image_in(self.folder, f"vcr1images/{picture}", picture)
        if "metadata_fn" not in record:
            return image
        file = text_field(record, "metadata_fn")
        path = self.folder / "vcr1images" / file
        if not path.exists() and not image.is_there:
            # A model that reads region files needs neither.
            return image
        if path not in self._found:
            self._found[path] = _boxes(path)
        width, height, boxes = self._found[path]
        if len(boxes) != len(names):
            raise RecordError(f"has {len(names)} objects, and {path} has {len(boxes)} boxes.")
        named = {number for text in texts for token in text if isinstance(token, list) for number in token}
        marks = tuple(Mark(names[number], *boxes[number]) for number in sorted(named))
        return Image(Marked(Path(image.name), marks, width, height))

    def together(self, example: Example) -> str:
        """The record, which has an answer and a rationale."""
        return _annotation(example.id)

    def score(self, examples: Sequence[Example], predictions: Sequence[Prediction]) -> Figures:
        """``q_to_a``, ``qa_to_r`` and ``q_to_ar``."""
        right: dict[str, dict[str, bool]] = {}
        for example, prediction in zip(examples, predictions, strict=True):
            must_have_target(example)
            annotation = _annotation(example.id)
            part = example.id[len(annotation) + 1 :]
            right.setdefault(annotation, {})[part] = bool(score_of(prediction.answer, example))
        n = len(right)
        return {
            "q_to_a": share(sum(parts["answer"] for parts in right.values()), n),
            "qa_to_r": share(sum(parts["rationale"] for parts in right.values()), n),
            "q_to_ar": share(sum(all(parts.values()) for parts in right.values()), n),
        }

    def guesses(self, support: Sequence[Example], examples: Sequence[Example]) -> dict[str, Figures]:
        """Random choices."""
        n, one = len({self.together(example) for example in examples}), 1 / len(CHOICES)
        return {"chance": {"q_to_a": plain(one, n), "qa_to_r": plain(one, n), "q_to_ar": plain(one**2, n)}}

    def read_official(self, path: Path, examples: Sequence[Example]) -> list[Prediction]:
        """The leaderboard's CSV: annot_id, answer_0 ... answer_3, rationale_conditioned_on_aA_R for all sixteen."""
        parts: dict[str, list[tuple[str, str]]] = {}
        for example, columns in zip(examples, _columns(examples), strict=True):
            parts.setdefault(_annotation(example.id), []).append((example.id, columns))

        def predictions(row: Mapping[str, str]) -> list[Prediction]:
            annotation = id_field(row, "annot_id")
            found = []
            for name, columns in parts.get(annotation, [(f"{annotation} answer", "answer")]):
                keys = [f"{columns}_{n}" for n in CHOICES]
                scores = tuple(finite_text(field(row, key), key) for key in keys)
                found.append(Prediction(name, int(np.argmax(scores)), tuple(CHOICES), scores))
            return found

        return [prediction for made in each(path, read_csv(path), predictions) for prediction in made]

    def submission(self, examples: Sequence[Example], predictions: Sequence[Prediction]) -> tuple[str, str]:
        """The format of :meth:`read_official`; if rationales are known only for the correct answer, the columns of
        other answers are 0."""
        rows: dict[str, dict[str, float]] = {}
        for prediction, columns in zip(predictions, _columns(examples), strict=True):
            scores: dict[object, float] = dict(zip(prediction.candidates, prediction.scores, strict=True))
            scores = scores or {prediction.answer: 1.0}
            row = rows.setdefault(_annotation(prediction.id), {})
            row |= {f"{columns}_{n}": float(scores.get(n, 0.0)) for n in CHOICES}
        header = [f"answer_{n}" for n in CHOICES]
        header += [f"rationale_conditioned_on_a{a}_{n}" for a in CHOICES for n in CHOICES]
        body = [[name, *(row.get(column, 0.0) for column in header)] for name, row in rows.items()]
        return "vcr_submission.csv", written_csv([["annot_id", *header], *body])


def _annotation(name: str) -> str:
    """The record's identifier, from an example's id."""
    return re.sub(r" (answer|rationale( \d)?)$", "", name)


def _columns(examples: Sequence[Example]) -> list[str]:
    """For each example, the prefix of its columns in the leaderboard's file."""
    answers = {
        _annotation(example.id): example.target.index
        for example in examples
        if example.id.endswith(" answer") and isinstance(example.target, Choice)
    }
    columns = []
    for example in examples:
        given = example.id[-1] if example.id[-1].isdigit() else answers.get(_annotation(example.id))
        columns.append("answer" if example.id.endswith(" answer") else f"rationale_conditioned_on_a{given}")
    return columns


def names_of(objects: Sequence[str]) -> list[str]:
    """A name for each object: neutral names for people, the class for others, with a number where it is not the only
    one of its class.

    >>> names_of(["person", "dog", "cup", "cup"])
    ['Casey', 'dog', 'cup 1', 'cup 2']
    """
    counts, seen = Counter(objects), Counter[str]()
    names = []
    for number, kind in enumerate(objects):
        seen[kind] += 1
        if kind == "person":
            turn, index = divmod(number, len(NEUTRAL_NAMES))
            names.append(NEUTRAL_NAMES[index] + (f" {turn + 1}" if turn else ""))
        else:
            names.append(f"{kind} {seen[kind]}" if counts[kind] > 1 else kind)
    return names


def _boxes(path: Path) -> tuple[float, float, list[tuple[float, float, float, float]]]:
    """The width and height of an image and the box of each of its objects, from its metadata.

    Raises:
        DataError: another format.
    """
    content = read_json(path)
    try:
        width, height = number_field(content, "width"), number_field(content, "height")
        boxes = []
        for number, row in enumerate(as_list(field(content, "boxes"), "boxes")):
            edges = [finite(value, f"box {number}") for value in as_list(row, "boxes", 5)]
            left, top, right, bottom = edges[:4]
            if not (left <= right and top <= bottom) or min(width, height) <= 0:
                raise RecordError(f"box {number} is {shown(row)}; it must be left, top, right, bottom and a score.")
            # Detectors may place edges outside.
            boxes.append((max(0.0, left), max(0.0, top), min(width, right), min(height, bottom)))
        return width, height, boxes
    except RecordError as error:
        raise DataError(f"{path}: {error}") from None


def written(tokens: Sequence[Any], names: Sequence[str]) -> str:
    """Tokens as text, with the names of objects for their indices.

    Raises:
        RecordError: a token is neither a word nor a list of indices of objects.
    """
    if not isinstance(tokens, list):
        raise RecordError(f"{shown(tokens)} is not a list of tokens.")
    words: list[str] = []
    for token in tokens:
        if isinstance(token, str):
            words.append(token)
            continue
        if (
            not isinstance(token, list)
            or not token
            or any(type(n) is not int or not 0 <= n < len(names) for n in token)
        ):
            raise RecordError(f"token {shown(token)} is neither a word nor a list of indices of its objects.")
        words.append(" and ".join(names[number] for number in token))
    return " ".join(words)
