"""VQA (Antol et al. 2015; Goyal et al. 2017): questions about images, each answered by ten people."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

from vislang.data.fields import id_field, list_field, shown, text_field, whole_field
from vislang.data.problems import DataError, RecordError
from vislang.document import Document
from vislang.example import Answers, Example, Prediction
from vislang.metrics.figure import Figures, mean
from vislang.metrics.items import Items, graded
from vislang.metrics.vqa import soft_scores, vqa_accuracy
from vislang.tasks.benchmark import Benchmark, must_have_target
from vislang.tasks.files import each, image_in, keyed, listed, one_file, read_json


class Annotation(NamedTuple):
    """The answers of the annotators to a question, and its kind, such as ``yes_no``, by which scores are also shown."""

    answers: list[str]
    kind: str


class AnnotatedQuestions(Benchmark):
    """Questions that several people answered, scored by how many of them gave an answer.

    A subclass reads the questions and stores what people answered in ``annotations``, by the id of the question.

    Attributes:
        id_key: the field of a question's id in a file of results.
    """

    kind = "answers"
    media = frozenset({"image", "text"})
    metrics: tuple[str, ...] = ("accuracy",)
    id_key = "question_id"

    def __init__(self, folder: Path):
        super().__init__(folder)
        self.annotations: dict[str, Annotation] = {}

    def accuracy(self, answer: str, answers: Sequence[str]) -> float:
        """The official score of an answer, from 0 to 1, by those of people."""
        return vqa_accuracy(answer, answers)

    def score_each(self, examples: Sequence[Example], predictions: Sequence[Prediction]) -> Items:
        """The official ``accuracy`` of each answer."""
        scores = []
        for example, prediction in zip(examples, predictions, strict=True):
            must_have_target(example)
            answer, given = prediction.answer, self.annotations[example.id].answers
            scores.append(0.0 if answer is None else self.accuracy(str(answer), given))
        return graded(scores)

    def score(self, examples: Sequence[Example], predictions: Sequence[Prediction]) -> Figures:
        """The official ``accuracy``, and the same by kind of question."""
        by_kind: dict[str, list[float]] = {}
        for example, value in zip(examples, self.score_each(examples, predictions).scores, strict=True):
            by_kind.setdefault("accuracy", []).append(value)
            if kind := self.annotations[example.id].kind:
                by_kind.setdefault(f"accuracy_{kind}", []).append(value)
        return {name: mean(values) for name, values in by_kind.items()}

    def read_official(self, path: Path, examples: Sequence[Example]) -> list[Prediction]:
        """``[{"question_id": ..., "answer": ...}, ...]``; the key of the id is ``id_key``."""
        return each(path, read_json(path), lambda r: Prediction(id_field(r, self.id_key), text_field(r, "answer")))

    def submission(self, examples: Sequence[Example], predictions: Sequence[Prediction]) -> tuple[str, str]:
        """The format of :meth:`read_official`."""
        records = [
            {self.id_key: self.official_id(p.id), "answer": "" if p.answer is None else str(p.answer)}
            for p in predictions
        ]
        return f"{self.name.replace('-', '_')}_results.json", json.dumps(records)

    def official_id(self, name: str) -> str | int:
        """The id of a question as a file of results has it."""
        return int(name)


class VQA(AnnotatedQuestions):
    """Questions, annotations and images of MS COCO, as released for VQA 1.0 and 2.0.

    The questions of a test split have no annotations, so their examples have no target.
    """

    name = "vqa"
    about = "questions about photographs, answered by ten people each"
    metrics: tuple[str, ...] = ("accuracy", "accuracy_yes_no", "accuracy_number", "accuracy_other")
    splits: tuple[str, ...] = ("train2014", "val2014", "test2015", "test-dev2015")
    patterns = (r".*OpenEnded.*?([^_]+?)_?questions\.json", r".*?([^_]+?)_?questions\.json")
    files = "*OpenEnded*SPLIT*questions.json, *SPLIT*annotations.json, images as COCO_SPLIT_<12 digits>.jpg"

    def kind_of(self, record: Mapping[str, Any], content: Mapping[str, Any]) -> str:
        """The kind of an annotated question, by which its accuracy is also reported; empty for none.

        Args:
            record: the annotation.
            content: the file of annotations.

        Raises:
            RecordError: it has another type.
        """
        return text_field(record, "answer_type") if "answer_type" in record else ""

    def read(self, split: str) -> list[Example]:
        """The questions of a split, in the official order."""
        path = self.split_files[split]
        annotated = not split.startswith("test") or any(self.folder.glob(f"*{split}*annotations.json"))
        if annotated:
            source = one_file(self.folder, f"*{split}*annotations.json")
            noted = read_json(source)

            def annotation(record: Mapping[str, Any]) -> tuple[str, Annotation]:
                answers = people_answers(record)
                kind = re.sub(r"\W+", "_", self.kind_of(record, noted)).lower()
                return str(whole_field(record, "question_id")), Annotation(answers, kind)

            annotations = keyed(source, listed(source, noted, "annotations"), annotation)
            self.annotations |= annotations
        content = read_json(path)
        asked = listed(path, content, "questions")
        subtype = content.get("data_subtype", split)
        if not isinstance(subtype, str):
            raise DataError(f'{path}: "data_subtype" is {shown(subtype)}, not text.')

        def example(record: Mapping[str, Any]) -> Example:
            number, image = str(whole_field(record, "question_id")), whole_field(record, "image_id")
            name = f"COCO_{subtype}_{image:012d}.jpg"
            image_file = image_in(self.folder, name, f"{subtype}/{name}")
            origin = f"{path.name}, {number}"
            prompt = Document([image_file, text_field(record, "question")], name=origin)
            if annotated and number not in annotations:
                raise RecordError(f"question {number} has no annotation in {source.name}.")
            target = Answers(soft_scores(annotations[number].answers)) if annotated else None
            return Example(number, prompt, target, (), str(image), origin, self.name)

        examples = each(path, asked, example)
        if annotated and (extra := annotations.keys() - {example.id for example in examples}):
            named = ", ".join(sorted(extra)[:5])
            raise DataError(f"{source}: annotations of {len(extra)} questions that are not in {path.name}: {named}.")
        return examples


def people_answers(record: Mapping[str, Any]) -> list[str]:
    """The answers of an annotation, which has ``{"answer", "answer_id", ...}`` for each of several people.

    Raises:
        RecordError: it has none, or two with the same ``answer_id``.
    """
    given = list_field(record, "answers")
    answers = [text_field(answer, "answer") for answer in given]
    numbers = [answer["answer_id"] for answer in given if "answer_id" in answer]
    if len(set(map(str, numbers))) < len(numbers):
        raise RecordError('two of its "answers" have the same "answer_id".')
    return answers
