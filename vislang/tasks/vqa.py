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
    """The answers of the annotators to a question, and the kind of answer: ``yes_no``, ``number``, ``other``."""

    answers: list[str]
    kind: str


class VQA(Benchmark):
    """Questions, annotations and images of MS COCO, as released for VQA 1.0 and 2.0.

    The questions of a test split have no annotations, so their examples have no target.
    """

    name = "vqa"
    about = "questions about photographs, answered by ten people each"
    kind = "answers"
    media = frozenset({"image", "text"})
    metrics = ("accuracy", "accuracy_yes_no", "accuracy_number", "accuracy_other")
    splits = ("train2014", "val2014", "test2015", "test-dev2015")
    patterns = (r".*OpenEnded.*?([^_]+?)_?questions\.json", r".*?([^_]+?)_?questions\.json")
    files = "*OpenEnded*SPLIT*questions.json, *SPLIT*annotations.json, images as COCO_SPLIT_<12 digits>.jpg"

    def __init__(self, folder: Path):
        super().__init__(folder)
        self._annotations: dict[str, Annotation] = {}

    def read(self, split: str) -> list[Example]:
        """The questions of a split, in the official order."""
        path = self.split_files[split]
        annotated = not split.startswith("test") or any(self.folder.glob(f"*{split}*annotations.json"))
        if annotated:
            source = one_file(self.folder, f"*{split}*annotations.json")
            annotations = keyed(source, listed(source, read_json(source), "annotations"), _annotation)
            self._annotations |= annotations
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

    def score_each(self, examples: Sequence[Example], predictions: Sequence[Prediction]) -> Items:
        """The official ``accuracy`` of each answer."""
        scores = []
        for example, prediction in zip(examples, predictions, strict=True):
            must_have_target(example)
            answer = prediction.answer
            scores.append(0.0 if answer is None else vqa_accuracy(str(answer), self._annotations[example.id].answers))
        return graded(scores)

    def score(self, examples: Sequence[Example], predictions: Sequence[Prediction]) -> Figures:
        """The official ``accuracy``, and the same by type of answer."""
        by_type: dict[str, list[float]] = {}
        for example, value in zip(examples, self.score_each(examples, predictions).scores, strict=True):
            by_type.setdefault("accuracy", []).append(value)
            if kind := self._annotations[example.id].kind:
                by_type.setdefault(f"accuracy_{kind}", []).append(value)
        return {name: mean(values) for name, values in by_type.items()}

    def read_official(self, path: Path, examples: Sequence[Example]) -> list[Prediction]:
        """``[{"question_id": ..., "answer": ...}, ...]``."""
        return each(path, read_json(path), lambda r: Prediction(id_field(r, "question_id"), text_field(r, "answer")))

    def submission(self, examples: Sequence[Example], predictions: Sequence[Prediction]) -> tuple[str, str]:
        """The format of :meth:`read_official`."""
        records = [{"question_id": int(p.id), "answer": "" if p.answer is None else str(p.answer)} for p in predictions]
        return "vqa_results.json", json.dumps(records)


def _annotation(record: Mapping[str, Any]) -> tuple[str, Annotation]:
    """The id of a question and its annotation."""
    given = list_field(record, "answers")
    answers = [text_field(answer, "answer") for answer in given]
    numbers = [answer["answer_id"] for answer in given if "answer_id" in answer]
    if len(set(map(str, numbers))) < len(numbers):
        raise RecordError('two of its "answers" have the same "answer_id".')
    kind = re.sub(r"\W+", "_", text_field(record, "answer_type")) if "answer_type" in record else ""
    return str(whole_field(record, "question_id")), Annotation(answers, kind)
