"""Default metrics for each kind of target, and baselines without media."""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Iterable, Sequence

from vislang.boxes import Box
from vislang.document import Audio, Image
from vislang.errors import UserError
from vislang.example import Answers, Choice, Example, Label, Prediction, Text, Value, kind_of, reference_text
from vislang.metrics import captions
from vislang.metrics.accuracy import correct, normalize, soft_score
from vislang.metrics.boxes import hit, pointing
from vislang.metrics.figure import Figures, mean, plain, share
from vislang.metrics.regression import regression
from vislang.metrics.sequences import tagging, transcripts

METRICS = {
    "answers": ("accuracy",),
    "choice": ("accuracy",),
    "label": ("accuracy",),
    "box": ("accuracy", "upper_bound"),
    "value": ("pearson_r", "rmse"),
    "text": captions.METRICS,
}
"""Metrics of each kind of target; the first one is the main metric."""


def kind_of_all(examples: Iterable[Example]) -> str:
    """The common kind of target of examples; ``none`` if no example has a target.

    A mixture of texts and answers counts as answers: an answer is correct if it equals a reference.

    Raises:
        UserError: they have several kinds.
    """
    first: dict[str, str] = {}
    for example in examples:
        if example.target is not None:
            first.setdefault(kind_of(example.target), example.name)
    if set(first) == {"answers", "text"}:
        return "answers"
    if len(first) > 1:
        named = ", ".join(f"{kind} ({name})" for kind, name in first.items())
        raise UserError(f"records with several kinds of target: {named}. A task has one kind; use a file for each.")
    return next(iter(first), "none")


def score(examples: Sequence[Example], predictions: Sequence[Prediction]) -> Figures:
    """The figures of predictions, by the kind of target.

    Answers, choices and labels: ``accuracy`` (for soft scores, their mean; for labels with a tag for each word, over
    words). Boxes: see :func:`~vislang.metrics.boxes.pointing`. Values: ``pearson_r`` and ``rmse``; a prediction without
    a number is replaced by the mean of the others, and ``answered`` is the share with a number. Text: see
    :func:`~vislang.metrics.captions.captions`; for recordings, error rates of the transcripts.

    Args:
        examples: each with a target, all of one kind.
        predictions: one for each example, in their order.

    Raises:
        UserError: no examples, several kinds of target, an example without one, or a prediction of another kind.
    """
    kind = kind_of_all(examples)
    unknown = [example.name for example in examples if example.target is None]
    if kind == "none" or unknown:
        raise UserError(f"{', '.join(unknown[:5]) or 'no records'}: cannot be scored without a target.")
    if kind == "text":
        references = [example.target.references for example in examples if isinstance(example.target, Text)]
        texts = ["" if p.answer is None else str(p.answer) for p in predictions]
        if are_recordings(examples):
            return transcripts(texts, [own[0] for own in references])
        return captions.captions(texts, references)
    if kind == "box":
        boxes = [_box_of(prediction) for prediction in predictions]
        candidates = [[box for box in p.candidates if isinstance(box, Box)] for p in predictions]
        return pointing(boxes, [example.target for example in examples if isinstance(example.target, Box)], candidates)
    if kind == "value":
        numbers, answered = numbers_of(predictions)
        truth = [example.target.number for example in examples if isinstance(example.target, Value)]
        return {**regression(numbers, truth), **answered}
    if kind == "label" and all(map(_is_tagged, examples)):
        tags = [example.target.name for example in examples if isinstance(example.target, Label)]
        return tagging([str(p.answer or "") for p in predictions], tags)
    scores = [score_of(p.answer, example) for p, example in zip(predictions, examples, strict=True)]
    if all(value in (0, 1) for value in scores):
        return {"accuracy": share(int(sum(scores)), len(scores))}
    return {"accuracy": mean(scores)}


def are_recordings(examples: Iterable[Example]) -> bool:
    """Whether every example has recordings and no other media, so that its text is a transcript."""
    return all(isinstance(medium, Audio) for example in examples for medium in example.media or (None,))


def _is_tagged(example: Example) -> bool:
    """Whether the label has one tag for each word of the text."""
    return not example.media and len(example.target.name.split()) == len(example.text.split())  # type: ignore[union-attr]


def score_of(answer: object, example: Example) -> float:
    """The score of an answer, choice or label, from 0 to 1; a missing answer gets 0.

    Raises:
        UserError: the answer to a choice is not an index, or the answer to a label task is not a text.
    """
    target = example.target
    if answer is None:
        return 0.0
    must_answer(Prediction(example.id, answer), kind_of(target), len(example.choices))  # type: ignore[arg-type]
    if isinstance(target, Answers):
        return soft_score(str(answer), target.scores)
    if isinstance(target, Text):
        return float(correct(str(answer), target.references))
    if isinstance(target, Choice):
        return float(answer == target.index)
    assert isinstance(target, Label)
    return float(answer == target.name)


def must_answer(prediction: Prediction, kind: str, choices: int = 0) -> None:
    """Raise an error if a prediction is not an answer of a kind. A missing answer is one, except for a box.

    Args:
        prediction: the prediction.
        kind: the kind of target.
        choices: number of choices, if that is the kind.

    Raises:
        UserError: it is not; the message names the prediction and the expected answer.
    """
    answer = prediction.answer
    whole = isinstance(answer, int) and not isinstance(answer, bool)
    wanted = {
        "text": (isinstance(answer, str), "a text; write it in quotes"),
        "answers": (isinstance(answer, str), "a text; write it in quotes"),
        "label": (isinstance(answer, str), "a label; write it as a text, in quotes"),
        "choice": (whole and 0 <= answer < choices, f"the index of a choice, from 0 to {choices - 1}"),  # type: ignore[operator]
        "box": (isinstance(answer, Box), "a box"),
        "value": (whole or isinstance(answer, float), "a number"),
        "pairs": (whole and answer >= 1, "a rank, from 1"),  # type: ignore[operator]
    }
    fits, expected = wanted[kind]
    if not fits and (answer is not None or kind in ("box", "pairs")):
        raise UserError(f"prediction {prediction.id}: {answer!r} is not {expected}.")


def numbers_of(predictions: Sequence[Prediction]) -> tuple[list[float], Figures]:
    """The predicted numbers, and ``answered`` if some predictions have no number.

    Missing numbers are replaced by the mean of the others, so nothing is scored on a subset.

    Raises:
        UserError: a prediction is not a number.
    """
    known: list[float] = []
    for prediction in predictions:
        if prediction.answer is None:
            continue
        must_answer(prediction, "value")
        known.append(float(prediction.answer))  # type: ignore[arg-type]
    if len(known) == len(predictions):
        return known, {}
    filler = sum(known) / len(known) if known else 0.0
    given = iter(known)
    numbers = [filler if prediction.answer is None else next(given) for prediction in predictions]
    return numbers, {"answered": share(len(known), len(predictions))}


def guesses(support: Sequence[Example], examples: Sequence[Example]) -> dict[str, Figures]:
    """The figures of baselines without media, by name.

    ``most_frequent_answer`` of the support, and ``most_frequent_answer_to_the_same_text``; ``chance``: a uniformly
    random answer; ``mean`` of the support's values; ``whole_image`` as the box, if the images exist.

    Args:
        support: training examples; without them, only baselines that need none are scored.
        examples: examples with targets.
    """
    kind = kind_of_all(examples)
    support = [example for example in support if example.target is not None]
    if kind == "choice":
        return {"chance": {"accuracy": plain(mean([1 / len(e.choices) for e in examples]).value, len(examples))}}
    if kind == "box":
        return _whole_image(examples)
    if not support:
        return {}
    if kind == "value":
        numbers = [example.target.number for example in support if isinstance(example.target, Value)]
        guess = sum(numbers) / len(numbers)
        return {"mean": {"rmse": score(examples, [Prediction(e.id, guess) for e in examples])["rmse"]}}
    overall: Counter[str] = Counter()
    by_text: dict[str, Counter[str]] = defaultdict(Counter)
    for example in support:
        answer = _answer_of(example, kind)
        overall[answer] += 1
        by_text[example.text][answer] += 1
    frequent = overall.most_common(1)[0][0]
    found = {"most_frequent_answer": score(examples, [Prediction(e.id, frequent) for e in examples])}
    if kind == "text":
        return found
    if any(example.text for example in examples):
        same = [Prediction(e.id, by_text.get(e.text, overall).most_common(1)[0][0]) for e in examples]
        found["most_frequent_answer_to_the_same_text"] = score(examples, same)
    return {**found, "chance": {"accuracy": plain(1 / len(overall), len(examples))}}


def _answer_of(example: Example, kind: str) -> str:
    """The answer of an example, for counting."""
    if isinstance(example.target, Label):
        return example.target.name
    text = reference_text(example) or ""
    return normalize(text) if kind == "answers" else text


def _whole_image(examples: Sequence[Example]) -> dict[str, Figures]:
    images = [next(medium for medium in example.media if isinstance(medium, Image)) for example in examples]
    if not all(image.is_there for image in images):
        return {}
    hits = [
        hit([Box(0.0, 0.0, *map(float, image.size))], example.target)
        for image, example in zip(images, examples, strict=True)
        if isinstance(example.target, Box)
    ]
    return {"whole_image": {"accuracy": share(sum(hits), len(hits))}}


def _box_of(prediction: Prediction) -> Box:
    if not isinstance(prediction.answer, Box):
        raise UserError(f"prediction {prediction.id}: {prediction.answer!r} is not a box.")
    return prediction.answer
