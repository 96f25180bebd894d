"""A gallery of wrong and correct answers, with the attention maps of their tokens."""

from __future__ import annotations

from typing import Any

from vislang.attention_maps import emphasis, overlay, relative, shown_frames, side_by_side
from vislang.boxes import Box
from vislang.capabilities import Attends, Progress
from vislang.document import Image
from vislang.evaluate.evaluation import Evaluation
from vislang.example import Answer, Example, Prediction, Text, Value, reference_text
from vislang.metrics.boxes import hit
from vislang.metrics.by_kind import score_of
from vislang.pictures import data_url, square

RIGHT_SHOWN, WRONG_SHOWN = 12, 12


def gallery_of(model: Any, evaluation: Evaluation, progress: Progress | None = None) -> dict[str, Any] | None:
    """The cards of an evaluation for the page; None for retrieval and values.

    Args:
        model: the model; its attention is shown if it can show it.
        evaluation: the examples and predictions.
        progress: called with (cards done, cards in all).
    """
    retrieved = len(evaluation.predictions) != len(evaluation.examples)
    if retrieved or any(isinstance(example.target, Value) for example in evaluation.examples):
        return None
    right, wrong = choose(evaluation)
    attends = isinstance(model, Attends)
    cards: dict[str, list[dict[str, Any]]] = {"right": [], "wrong": []}
    for kind, indices in (("right", right), ("wrong", wrong)):
        for index in indices:
            example, answer = evaluation.examples[index], evaluation.predictions[index].answer
            cards[kind].append(_card(model if attends else None, example, answer))
            if progress is not None:
                progress(len(cards["right"]) + len(cards["wrong"]), len(right) + len(wrong))
    correct = [is_right(e, p) for e, p in zip(evaluation.examples, evaluation.predictions, strict=True)]
    return {
        "task": evaluation.task,
        "attention": attends,
        **cards,
        "right_count": correct.count(True),
        "wrong_count": correct.count(False),
    }


def is_right(example: Example, prediction: Prediction) -> bool:
    """Whether an answer counts as correct: its score is at least 0.5, or its box overlaps the ground truth enough."""
    if isinstance(example.target, Box):
        return isinstance(prediction.answer, Box) and hit([prediction.answer], example.target)
    return score_of(prediction.answer, example) >= 0.5


def choose(evaluation: Evaluation) -> tuple[list[int], list[int]]:
    """Indices of correct and of wrong answers to show, of different questions, evenly spaced over the examples."""

    def even(indices: list[int], count: int) -> list[int]:
        seen: set[tuple] = set()
        first: list[int] = []
        rest: list[int] = []
        for index in indices:
            key = (evaluation.examples[index].text, evaluation.predictions[index].answer)
            (rest if key in seen else first).append(index)
            seen.add(key)
        # Different questions first; evenly spaced, so the order of the file has no effect.
        pool = first if len(first) >= count else first + rest
        stride = max(1, len(pool) // count)
        return pool[::stride][:count]

    pairs = list(zip(evaluation.examples, evaluation.predictions, strict=True))
    right = [index for index, (example, prediction) in enumerate(pairs) if is_right(example, prediction)]
    wrong = [index for index, (example, prediction) in enumerate(pairs) if not is_right(example, prediction)]
    return even(right, RIGHT_SHOWN), even(wrong, WRONG_SHOWN)


def _card(model: Attends | None, example: Example, answer: Answer) -> dict[str, Any]:
    """The card of an answer: its image, and the image overlaid with each token's attention."""
    card: dict[str, Any] = {
        "question": example.text or "caption",
        "prediction": _shown(answer, example) or "(nothing)",
        "references": _expected(example),
    }
    media = example.prompt.media
    if model is not None and media:
        document = model.prompts.render(example)
        tokens = model.attention(document, max_new_tokens=20)
        frames = model.frames(media[-1])
        shown = shown_frames(len(frames))
        return card | {
            "film": len(frames) > 1,
            "shown": f"{len(shown)} of {len(frames)} frames" if len(frames) > 1 else "the image",
            "image": data_url(side_by_side([square(frames[number]) for number in shown])),
            "tokens": [
                {
                    "text": token.token.strip() or "␣",
                    "image": data_url(overlay([frames[n] for n in shown], emphasis(token.maps[-1].numpy())[shown])),
                    "peak": float(relative(token.maps[-1].numpy()).max()),
                }
                for token in tokens
            ],
        }
    images = [medium for medium in media if isinstance(medium, Image) and medium.is_there]
    if images:
        pictures = side_by_side([square(image.decode()) for image in images])
        card |= {"film": False, "shown": "the image", "image": data_url(pictures), "tokens": []}
    return card


def _shown(answer: Answer, example: Example) -> str:
    """An answer as text; for a choice, its text."""
    if isinstance(answer, Box):
        return f"box {answer.left:.0f}, {answer.top:.0f}, {answer.right:.0f}, {answer.bottom:.0f}"
    if isinstance(answer, int) and example.choices:
        return (
            " ".join(part for part in example.choices[answer].parts if isinstance(part, str)) or f"choice {answer + 1}"
        )
    return "" if answer is None else str(answer)


def _expected(example: Example) -> str:
    target = example.target
    if isinstance(target, Text):
        return ", ".join(dict.fromkeys(target.references))
    if isinstance(target, Box):
        return _shown(target, example)
    return reference_text(example) or ""
