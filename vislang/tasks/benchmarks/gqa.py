"""GQA (Hudson and Manning 2019): compositional questions, scored also by consistency and validity."""

from __future__ import annotations

import json
from collections import Counter, defaultdict
from collections.abc import Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

from vislang.data.fields import field, id_field, list_of_texts, shown, text_field
from vislang.data.problems import DataError, RecordError
from vislang.document import Document
from vislang.example import Answers, Example, Prediction
from vislang.metrics.figure import Figure, Figures, mean, plain, share
from vislang.metrics.items import Items, graded
from vislang.tasks.benchmark import Benchmark, must_have_target
from vislang.tasks.files import each, image_in, read_json

COMMON = ("color", "material", "shape")
"""The valid answers to what two objects have in common, which the files of choices do not hold."""


class Question(NamedTuple):
    """What the score of a question depends on.

    Attributes:
        answer: the correct answer.
        balanced: whether it is in the balanced set; accuracies are over these questions only.
        structural, semantic: its types.
        group: the group of questions whose answers are compared as a distribution; None for none.
        entailed: ids of the other questions whose answers follow from this one's.
        valid, plausible: its valid and its plausible answers; None without a file of choices.
    """

    answer: str
    balanced: bool
    structural: str
    semantic: str
    group: str | None
    entailed: tuple[str, ...]
    valid: tuple[str, ...] | None
    plausible: tuple[str, ...] | None


class GQA(Benchmark):
    """``SPLIT_questions.json``, where SPLIT is ``train_balanced``, ``val_all`` and so on, or a folder of such files.

    Validity and plausibility need ``train_choices.json`` or ``val_choices.json``. Consistency needs the answers to
    entailed questions, most of which are not balanced: it is a figure of the ``_all`` splits. The questions of the test
    and challenge splits have no answers.
    """

    name = "gqa"
    about = "compositional questions about photographs"
    kind = "answers"
    media = frozenset({"image", "text"})
    metrics = (
        "accuracy",
        "accuracy_binary",
        "accuracy_open",
        "consistency",
        "validity",
        "plausibility",
        "distribution",
    )
    splits = ("train_balanced", "val_balanced", "testdev_balanced", "train_all", "val_all", "testdev_all", "test_all")
    prefer = ("testdev_balanced", "val_balanced", "testdev", "val", "test")
    patterns = (r"((?:train|val|testdev|test|challenge)_(?:balanced|all))_questions(?:\.json)?",)
    files = (
        "SPLIT_questions.json (SPLIT: train_balanced, val_all, ...), val_choices.json, images as images/<imageId>.jpg"
    )

    def __init__(self, folder: Path):
        super().__init__(folder)
        self._questions: dict[str, Question] = {}
        if "train_balanced" in self.splits:
            self.support_split = "train_balanced"

    def find_splits(self) -> dict[str, Path]:
        """The splits; the questions of ``train_all`` are in a folder of several files."""
        chunked = {
            path.name.removesuffix("_questions"): path
            for path in sorted(self.folder.glob("*_all_questions"))
            if path.is_dir()
        }
        try:
            super().find_splits()
        except DataError:
            if not chunked:
                raise
        self.split_files |= chunked
        return self.split_files

    def read(self, split: str) -> list[Example]:
        """The questions of a split, in the order of the files."""
        path = self.split_files[split]
        files = [path] if path.is_file() else sorted(path.glob("*.json"))
        if not files:
            raise DataError(f"{path}: contains no .json file of questions.")
        choices = self._choices(split)
        made: list[Example] = []
        for file in files:
            content = read_json(file)
            if not isinstance(content, dict):
                raise DataError(f"{file}: not a JSON object of questions by their ids. Give the official file.")
            made += each(file, content.items(), partial(self._example, file, choices))
        for example in made:
            if example.target is not None and split.endswith("_all"):
                for other in self._questions[example.id].entailed:
                    if other not in self._questions:
                        raise DataError(f"{path}: question {example.id} entails {other}, which is not there.")
        return made

    def _choices(self, split: str) -> tuple[Path, dict[str, Any]] | None:
        """The file of valid and plausible answers, with its content; None without one."""
        path = self.folder / f"{split.partition('_')[0]}_choices.json"
        if not path.exists():
            return None
        content = read_json(path)
        if not isinstance(content, dict):
            raise DataError(f"{path}: not a JSON object of choices by question. Give the official file.")
        return path, content

    def _example(self, file: Path, choices: tuple[Path, dict[str, Any]] | None, item: tuple[str, Any]) -> Example:
        name, record = item
        try:
            picture = id_field(record, "imageId")
            image = image_in(self.folder, f"{picture}.jpg")
            prompt = Document([image, text_field(record, "question")], name=f"{file.name}, {name}")
            target = None
            if "answer" in record:
                self._questions[name] = _question(name, record, choices)
                target = Answers({self._questions[name].answer: 1.0})
        except RecordError as error:
            raise RecordError(f"question {name}: {error}") from None
        return Example(name, prompt, target, (), picture, f"{file.name}, {name}", self.name)

    def _answered(
        self, examples: Sequence[Example], predictions: Sequence[Prediction]
    ) -> list[tuple[str, Question, str | None]]:
        """The id of each example, its question and the predicted answer."""
        found = []
        for example, prediction in zip(examples, predictions, strict=True):
            must_have_target(example)
            answer = None if prediction.answer is None else str(prediction.answer)
            found.append((example.id, self._questions[example.id], answer))
        return found

    def score_each(self, examples: Sequence[Example], predictions: Sequence[Prediction]) -> Items:
        """Whether each answer is the correct one."""
        return graded([float(said == asked.answer) for _, asked, said in self._answered(examples, predictions)])

    def score(self, examples: Sequence[Example], predictions: Sequence[Prediction]) -> Figures:
        """The figures of the authors' ``eval.py``, over balanced questions.

        ``accuracy``, also of binary and open questions and by structural and semantic type; ``validity`` and
        ``plausibility``, if there are choices; ``distribution``, the chi-square statistic of answers by group of
        questions, divided by 100; ``consistency``, if all entailed questions are among the examples: the mean share of
        correct answers to the questions that a correctly answered one entails.
        """
        answered = self._answered(examples, predictions)
        right = {name: said == asked.answer for name, asked, said in answered}
        balanced = [one for one in answered if one[1].balanced]
        if not balanced:
            raise DataError(f"{self.name}: none of {len(answered)} questions is balanced, and only those are scored.")
        by_name: dict[str, list[bool]] = defaultdict(list)
        consistent: list[float] = []
        for name, asked, said in balanced:
            kind = "open" if asked.structural == "query" else "binary"
            for variant in ("", f"_{kind}", f"_structural_{asked.structural}", f"_semantic_{asked.semantic}"):
                by_name[f"accuracy{variant}"].append(right[name])
            if asked.valid is not None and asked.plausible is not None:
                by_name["validity"].append(said in asked.valid)
                by_name["plausibility"].append(said in asked.plausible)
            if right[name] and asked.entailed:
                consistent.append(sum(right.get(other, False) for other in asked.entailed) / len(asked.entailed))
        figures = {name: share(sum(values), len(values)) for name, values in by_name.items()}
        if any(asked.group is not None for _, asked, _ in balanced):
            figures["distribution"] = distribution(
                [(asked.group, asked.answer, said) for _, asked, said in balanced if asked.group is not None]
            )
        if consistent and all(other in right for _, asked, _ in balanced for other in asked.entailed):
            figures["consistency"] = mean(consistent)
        return figures

    def read_official(self, path: Path, examples: Sequence[Example]) -> list[Prediction]:
        """``[{"questionId": ..., "prediction": ...}, ...]``."""
        return each(path, read_json(path), lambda r: Prediction(id_field(r, "questionId"), text_field(r, "prediction")))

    def submission(self, examples: Sequence[Example], predictions: Sequence[Prediction]) -> tuple[str, str]:
        """The format of :meth:`read_official`."""
        records = [{"questionId": p.id, "prediction": "" if p.answer is None else str(p.answer)} for p in predictions]
        return "gqa_predictions.json", json.dumps(records)


def _question(name: str, record: Mapping[str, Any], choices: tuple[Path, dict[str, Any]] | None) -> Question:
    balanced, types = field(record, "isBalanced"), field(record, "types")
    if not isinstance(balanced, bool):
        raise RecordError(f'"isBalanced" is {shown(balanced)}, neither true nor false.')
    group = field(field(record, "groups"), "global")
    if group is not None and not isinstance(group, str):
        raise RecordError(f'"groups" has the global group {shown(group)}, not text.')
    valid = plausible = None
    if balanced and choices is not None:
        path, known = choices
        if name not in known:
            raise RecordError(f"has no choices in {path.name}.")
        try:
            valid, plausible = (tuple(list_of_texts(known[name], key)) for key in ("valid", "plausible"))
        except RecordError as error:
            raise DataError(f"{path}: the choices of question {name}: {error}") from None
        if "Common" in text_field(types, "detailed"):
            valid = plausible = COMMON
    return Question(
        text_field(record, "answer"),
        balanced,
        text_field(types, "structural"),
        text_field(types, "semantic"),
        group,
        tuple(other for other in list_of_texts(record, "entailed") if other != name),
        valid,
        plausible,
    )


def distribution(answers: Sequence[tuple[str, str, str | None]]) -> Figure:
    """How far the predicted answers are from the distribution of correct ones; 0 is best.

    Args:
        answers: for each question its group, its answer and the predicted answer.
    """
    truth: dict[str, Counter[str]] = defaultdict(Counter)
    said: dict[str, Counter[str | None]] = defaultdict(Counter)
    for group, right, predicted in answers:
        truth[group][right] += 1
        said[group][predicted] += 1
    total = sum(
        counts.total() * sum((said[group][answer] - count) ** 2 / count for answer, count in counts.items())
        for group, counts in truth.items()
    )
    return plain(total / len(answers) / 100, len(answers))
