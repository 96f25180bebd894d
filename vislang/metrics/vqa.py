"""The official scoring of VQA (GT-Vision-Lab/VQA; Antol et al. 2015) and of TextVQA (Singh et al. 2019).

The accuracy of an answer is the mean, over the ten annotators, of min(1, number of the other nine with this answer /
3), after a clean-up of both sides.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Sequence
from functools import lru_cache

import numpy as np


def soft_scores(answers: Sequence[str]) -> dict[str, float]:
    """The soft score of each answer: 0.3, 0.6, 0.9 and 1 for one, two, three and more annotators.

    As in the official code, answers are cleaned up only if annotators disagree.
    """
    agreed = len({_trimmed(answer) for answer in answers}) == 1
    counts = Counter(_trimmed(answer) if agreed else clean(answer) for answer in answers)
    return {answer: min(1.0, round(0.3 * count, 1)) for answer, count in counts.items()}


def vqa_accuracy(prediction: str, answers: Sequence[str]) -> float:
    """The score of an answer, from 0 to 1, by the official rule."""
    answers, prediction = [_trimmed(answer) for answer in answers], _trimmed(prediction)
    if len(set(answers)) > 1:
        answers, prediction = [clean(answer) for answer in answers], clean(prediction)
    return _leaving_one_out(prediction, answers)


def text_vqa_accuracy(prediction: str, answers: Sequence[str]) -> float:
    """The score of an answer, from 0 to 1, by the rule of TextVQA's server (``EvalAIAnswerProcessor`` of MMF)."""
    return _leaving_one_out(text_vqa_clean(prediction), [text_vqa_clean(answer) for answer in answers])


def text_vqa_scores(answers: Sequence[str]) -> dict[str, float]:
    """The score of each answer by :func:`text_vqa_accuracy`."""
    cleaned = [text_vqa_clean(answer) for answer in answers]
    return {answer: _leaving_one_out(answer, cleaned) for answer in dict.fromkeys(cleaned)}


def _leaving_one_out(prediction: str, answers: Sequence[str]) -> float:
    same = [answer == prediction for answer in answers]
    return float(np.mean([min(1.0, (sum(same) - own) / 3) for own in same]))


@lru_cache(maxsize=100_000)
def clean(answer: str) -> str:
    """The official clean-up: punctuation, numbers as digits, no articles, apostrophes where they belong."""
    # Only ASCII digits count, as in the official program (of Python 2).
    return _without_marks(_trimmed(answer), re.ASCII)


@lru_cache(maxsize=100_000)
def text_vqa_clean(answer: str) -> str:
    """The clean-up of TextVQA's server: commas, question marks and possessives first, then as for VQA."""
    lower = answer.lower().replace(",", "").replace("?", "").replace("'s", " 's")
    return _without_marks(_trimmed(lower.strip()), re.UNICODE)


def _without_marks(answer: str, digits: re.RegexFlag) -> str:
    """Without punctuation and articles, with digits and apostrophes; ``digits`` says which characters are digits."""
    found = answer
    for mark in PUNCTUATION:
        # A mark next to a space is removed; between letters it becomes a space. In an answer with 1,000 all are
        # removed.
        loose = f"{mark} " in answer or f" {mark}" in answer or re.search(r"\d,\d", answer, digits) is not None
        found = found.replace(mark, "" if loose else " ")
    # The official expression, whose first group was meant to be a lookbehind, and its count.
    found = re.sub(r"(?!<=\d)(\.)(?!\d)", "", found, count=32, flags=digits)
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
        found |= {form[:index] + form[index + 1 :]: form for index in (first, second)}
    # What the official table has beyond the rule.
    found |= {"ow's'at": "'ow's'at", "'ows'at": "'ow's'at", "'ow'sat": "'ow's'at", "somebody'd": "somebodyd"}
    return found | {"yall'd've": "y'all'd've", "y'alld've": "y'all'd've", "y'all'dve": "y'all'd've"}


CONTRACTIONS = _contractions()
