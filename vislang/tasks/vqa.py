"""VQA (Antol et al. 2015; Goyal et al. 2017): questions about images, ten answers of people each.

Accuracy is that of the official evaluation (GT-Vision-Lab/VQA): the mean over the ten people of
min(1, how many of the other nine said the same / 3), after a clean-up of both sides.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np

from vislang.case import Answers, Case, Decision
from vislang.data.example import Example
from vislang.document import Document
from vislang.tasks.official import Benchmark, Score, complete, each, image_in, listed, one_file, read_json


class VQA(Benchmark):
    """Questions, annotations and images of MS COCO, as released for VQA 1.0 and 2.0."""

    name = "vqa"
    files = "*OpenEnded*SPLIT*questions.json, *SPLIT*annotations.json, images as COCO_SPLIT_<12 digits>.jpg"

    def __init__(self, folder: Path, split: str):
        path = one_file(folder, f"*OpenEnded*{split}*questions.json", f"*{split}*questions.json")
        self._source = one_file(folder, f"*{split}*annotations.json")
        content = read_json(self._source)
        self._annotations = dict(
            each(
                self._source,
                listed(self._source, content, "annotations"),
                lambda record: (str(record["question_id"]), record),
            )
        )
        questions = read_json(path)
        records = listed(path, questions, "questions")
        subtype = questions.get("data_subtype", split)

        def case(record: dict) -> Case:
            number, image = str(record["question_id"]), record["image_id"]
            name = f"COCO_{subtype}_{int(image):012d}.jpg"
            answers = [given["answer"] for given in self._annotations[number]["answers"]]
            if not answers:
                raise ValueError(f"question {number} has no answers")
            document = Document(
                [image_in(folder, name, f"{subtype}/{name}"), record["question"]], name=f"{path.name}, {number}"
            )
            return Case(document.name, (document,), Answers(soft_scores(answers)), self.name, str(image), number)

        self.cases = each(path, records, case)

    def score(self, decisions: Mapping[str, Decision]) -> Score:
        """``accuracy``, and the same by type of answer."""
        by_type: dict[str, list[float]] = {}
        for case, decision in zip(self.cases, complete(self.cases, decisions, self.name), strict=True):
            annotation = self._annotations[case.id]
            right = vqa_accuracy(str(decision.best), [given["answer"] for given in annotation["answers"]])
            by_type.setdefault("accuracy", []).append(right)
            if "answer_type" in annotation:
                by_type.setdefault(f"accuracy, {annotation['answer_type']}", []).append(right)
        return {name: float(np.mean(values)) for name, values in by_type.items()}

    def read_predictions(self, path: Path) -> dict[str, Decision]:
        """``[{"question_id": ..., "answer": ...}, ...]``."""
        return dict(each(path, read_json(path), lambda r: (str(r["question_id"]), Decision(r["answer"]))))


def from_examples(examples: Sequence[Example], task: str = "vqa") -> list[Case]:
    """Questions about images with accepted answers, such as easy-VQA's, as cases."""
    cases = []
    for example in examples:
        document = Document([example.image, example.question or ""], name=example.name)  # type: ignore[list-item]
        scores = dict.fromkeys(example.references, 1.0)
        cases.append(Case(example.name, (document,), Answers(scores), task, "", example.name))
    return cases


def soft_scores(answers: Sequence[str]) -> dict[str, float]:
    """What each answer is worth as a target: 0.3, 0.6, 0.9, 1 for one to four people and more.

    As in the official rule, answers are cleaned up only where people disagree.
    """
    agreed = len({_trimmed(answer) for answer in answers}) == 1
    counts = Counter(_trimmed(answer) if agreed else clean(answer) for answer in answers)
    return {answer: min(1.0, round(0.3 * count, 1)) for answer, count in counts.items()}


def vqa_accuracy(prediction: str, answers: Sequence[str]) -> float:
    """How right an answer is, from 0 to 1, by the official rule."""
    answers, prediction = [_trimmed(answer) for answer in answers], _trimmed(prediction)
    if len(set(answers)) > 1:
        answers, prediction = [clean(answer) for answer in answers], clean(prediction)
    same = [answer == prediction for answer in answers]
    return float(np.mean([min(1.0, (sum(same) - own) / 3) for own in same]))


def clean(answer: str) -> str:
    """The official clean-up: punctuation, numbers as digits, no articles, apostrophes where they belong."""
    answer = _trimmed(answer)
    found = answer
    for mark in PUNCTUATION:
        # A mark beside a space goes; one between letters leaves a space. In an answer with 1,000 all of them go.
        loose = f"{mark} " in answer or f" {mark}" in answer or re.search(r"\d,\d", answer) is not None
        found = found.replace(mark, "" if loose else " ")
    # The official expression, whose first group was meant to be a lookbehind, and its count.
    found = re.sub(r"(?!<=\d)(\.)(?!\d)", "", found, count=32)
    words = [NUMBERS.get(word, word) for word in found.lower().split()]
    return " ".join(CONTRACTIONS.get(word, word) for word in words if word not in ("a", "an", "the"))


def _trimmed(answer: str) -> str:
    return answer.replace("\n", " ").replace("\t", " ").strip()


PUNCTUATION = ';/[]"{}()=+\\_-><@`,?!'

_DIGITS = ("zero", "one", "two", "three", "four", "five", "six", "seven", "eight", "nine", "ten")
NUMBERS = {word: str(number) for number, word in enumerate(_DIGITS)} | {"none": "0"}


def _contractions() -> dict[str, str]:
    """Spellings without (one of) the apostrophes -> the spelling with them."""
    once = (
        "ain't aren't can't could've couldn't didn't doesn't don't hadn't hasn't haven't he'd he's how'd how'll "
        "how's I'm I've isn't it'd it'll ma'am mightn't might've mustn't must've needn't not've o'clock oughtn't "
        "shan't should've shouldn't somebody'll somebody's someone'd someone'll someone's something'd "
        "something'll that's there'd there're there's they'd they'll they're they've 'twas wasn't we've weren't "
        "what'll what're what's what've when's where'd where's where've who'd who'll who's who've why'll why're "
        "why's won't would've wouldn't y'all you'd you'll you're you've"
    )
    twice = (
        "couldn't've hadn't've he'd've I'd've it'd've mightn't've she'd've shouldn't've somebody'd've "
        "someone'd've something'd've there'd've they'd've we'd've who'd've wouldn't've y'all'll you'd've"
    )
    found = {form.replace("'", ""): form for form in once.split()}
    for form in twice.split():
        first, second = form.find("'"), form.rfind("'")
        found |= {form[:place] + form[place + 1 :]: form for place in (first, second)}
    # What the official table has beyond the rule.
    found |= {"ow's'at": "'ow's'at", "'ows'at": "'ow's'at", "'ow'sat": "'ow's'at", "somebody'd": "somebodyd"}
    return found | {"yall'd've": "y'all'd've", "y'alld've": "y'all'd've", "y'all'dve": "y'all'd've"}


CONTRACTIONS = _contractions()
