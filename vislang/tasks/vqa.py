"""VQA (Antol et al. 2015; Goyal et al. 2017): questions about images, each answered by ten people."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from vislang.document import Document
from vislang.example import Answers, Example, Prediction
from vislang.metrics.figure import Figures, mean
from vislang.metrics.vqa import soft_scores, vqa_accuracy
from vislang.tasks.benchmark import Benchmark, must_have_target
from vislang.tasks.files import each, image_in, listed, one_file, read_json


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
        self._annotations: dict[str, Mapping[str, Any]] = {}

    def read(self, split: str) -> list[Example]:
        """The questions of a split, in the official order."""
        path = self.split_files[split]
        annotated = not split.startswith("test") or any(self.folder.glob(f"*{split}*annotations.json"))
        if annotated:
            source = one_file(self.folder, f"*{split}*annotations.json")
            annotations = listed(source, read_json(source), "annotations")
            self._annotations |= each(source, annotations, lambda record: (str(record["question_id"]), record))
        content = read_json(path)
        subtype = content.get("data_subtype", split) if isinstance(content, dict) else split

        def example(record: Mapping[str, Any]) -> Example:
            number, image = str(record["question_id"]), record["image_id"]
            name = f"COCO_{subtype}_{int(image):012d}.jpg"
            source = f"{path.name}, {number}"
            prompt = [image_in(self.folder, name, f"{subtype}/{name}"), record["question"]]
            target = None
            if annotated:
                if not (answers := self._answers(number)):
                    raise ValueError(f"question {number} has no answers")
                target = Answers(soft_scores(answers))
            return Example(number, Document(prompt, name=source), target, (), str(image), source, self.name)

        return each(path, listed(path, content, "questions"), example)

    def _answers(self, number: str) -> list[str]:
        return [given["answer"] for given in self._annotations[number]["answers"]]

    def score(self, examples: Sequence[Example], predictions: Sequence[Prediction]) -> Figures:
        """The official ``accuracy``, and the same by type of answer."""
        by_type: dict[str, list[float]] = {}
        for example, prediction in zip(examples, predictions, strict=True):
            must_have_target(example)
            answer = prediction.answer
            value = 0.0 if answer is None else vqa_accuracy(str(answer), self._answers(example.id))
            by_type.setdefault("accuracy", []).append(value)
            if "answer_type" in self._annotations[example.id]:
                kind = re.sub(r"\W+", "_", str(self._annotations[example.id]["answer_type"]))
                by_type.setdefault(f"accuracy_{kind}", []).append(value)
        return {name: mean(values) for name, values in by_type.items()}

    def read_official(self, path: Path, examples: Sequence[Example]) -> list[Prediction]:
        """``[{"question_id": ..., "answer": ...}, ...]``."""
        return each(path, read_json(path), lambda r: Prediction(str(r["question_id"]), r["answer"]))

    def submission(self, examples: Sequence[Example], predictions: Sequence[Prediction]) -> tuple[str, str]:
        """The format of :meth:`read_official`."""
        records = [{"question_id": int(p.id), "answer": "" if p.answer is None else str(p.answer)} for p in predictions]
        return "vqa_results.json", json.dumps(records)
