"""VizWiz (Gurari et al. 2018): questions that blind people asked about their photographs; some have no answer there."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from vislang.data.fields import field, one_of, text_field
from vislang.data.problems import RecordError
from vislang.document import Document
from vislang.example import Answers, Example, Prediction
from vislang.metrics.figure import Figures, plain
from vislang.metrics.vqa import clean, soft_scores
from vislang.tasks.benchmarks.vqa import AnnotatedQuestions, Annotation, people_answers
from vislang.tasks.files import each, image_in, read_json, splits_in

UNANSWERABLE = "unanswerable"
"""The answer to a question whose image does not show it."""

KINDS = ("yes/no", "number", "other", UNANSWERABLE)


class VizWiz(AnnotatedQuestions):
    """``train.json``, ``val.json`` and ``test.json``; the questions of the test split have no answers.

    Unanswerable questions are scored like all others: ``unanswerable`` is what most people answered to them. The id of
    a question is the name of its image.
    """

    name = "viz-wiz"
    about = "questions of blind people about their photographs; some cannot be answered"
    metrics = (
        "accuracy",
        "accuracy_yes_no",
        "accuracy_number",
        "accuracy_other",
        "accuracy_unanswerable",
        "f1_answerable",
    )
    splits = ("train", "val", "test")
    patterns = (r"(train|val|test)\.json",)
    files = "SPLIT.json, also in Annotations/; images as SPLIT/<image>"
    id_key = "image"

    def __init__(self, folder: Path):
        self._answerable: dict[str, bool] = {}
        super().__init__(folder)

    def find_splits(self) -> Mapping[str, Path]:
        """See :meth:`~vislang.tasks.benchmark.Benchmark.find_splits`; the files may be in ``Annotations``."""
        self.split_files = splits_in(self.folder, "Annotations", self.files, *self.patterns)
        return self.split_files

    def read(self, split: str) -> list[Example]:
        """The questions of a split, in the official order."""
        path = self.split_files[split]

        def example(record: Mapping[str, Any]) -> Example:
            picture = text_field(record, "image")
            source = f"{path.name}, {picture}"
            prompt = Document(
                [image_in(self.folder, f"{split}/{picture}", picture), text_field(record, "question")], name=source
            )
            target = None
            if "answers" in record:
                answers = people_answers(record)
                kind = one_of(field(record, "answer_type"), KINDS).replace("/", "_")
                answerable = field(record, "answerable")
                if answerable not in (0, 1) or isinstance(answerable, bool | float):
                    raise RecordError(f'"answerable" is {answerable!r}, neither 0 nor 1.')
                self.annotations[picture] = Annotation(answers, kind)
                self._answerable[picture] = bool(answerable)
                target = Answers(soft_scores(answers))
            elif split != "test":
                raise RecordError('has no "answers".')
            return Example(picture, prompt, target, (), picture, source, self.name)

        return each(path, read_json(path), example)

    def score(self, examples: Sequence[Example], predictions: Sequence[Prediction]) -> Figures:
        """The official ``accuracy``, the same by type of answer, and ``f1_answerable``.

        The last is the F1 of the challenge's second task, whether a question can be answered, as it follows from the
        answers: any other answer than ``unanswerable`` says that it can. The challenge ranks that task by an average
        precision, for which a model would have to give a confidence.
        """
        figures = super().score(examples, predictions)
        truth = [self._answerable[example.id] for example in examples]
        said = [p.answer is not None and clean(str(p.answer)) != UNANSWERABLE for p in predictions]
        found = sum(a and b for a, b in zip(said, truth, strict=True))
        total = sum(said) + sum(truth)
        return {**figures, "f1_answerable": plain(2 * found / total if total else 0.0, len(examples))}

    def official_id(self, name: str) -> str:
        """The name of the image."""
        return name
