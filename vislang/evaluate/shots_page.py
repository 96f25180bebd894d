"""An HTML page that shows what each shot of a prompt did for an answer."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

from vislang.attention_maps import side_by_side
from vislang.document import Image
from vislang.evaluate.page import template
from vislang.evaluate.shot_effects import ExplainedShots
from vislang.example import Answer, Choice, Example, reference_text
from vislang.files import write_text
from vislang.pictures import data_url, square
from vislang.prompt import as_generation, question_of

LEAST_SCALE = 0.1
"""Half the width of a bar is at least so many nats, so that changes of next to nothing look like it."""


def write_shots_page(path: Path, explained: ExplainedShots, model: Any, name: str) -> None:
    """Write the page.

    Args:
        path: file to write.
        explained: the answer and the effects of the shots.
        model: the model, whose prompts phrase the question, and which decodes videos.
        name: the name of the model.
    """
    most = max(LEAST_SCALE, *(abs(effect.change) for effect in explained.effects))
    shares = [effect.attention for effect in explained.effects] + [explained.query_attention]
    cards = [
        {
            "image": _picture(model, effect.shot),
            "question": question_of(as_generation(effect.shot)),
            "answer": reference_text(as_generation(effect.shot)),
            "change": f"{effect.change:+.3f}",
            "helps": effect.change >= 0,
            "width": round(50 * abs(effect.change) / most, 1),
            "text": _percent(effect.attention),
            "image_share": _percent(effect.image_attention),
            "without": _shown(effect.answer_without, explained.example),
        }
        for effect in explained.effects
    ]
    page = template("explain_shots").render(
        title=question_of(as_generation(explained.example))
        or f"Caption: {_shown(explained.answer, explained.example)}",
        scale=f"{most:.3g}",
        model=name,
        picture=_picture(model, explained.example),
        answer=_shown(explained.answer, explained.example),
        log_likelihood=f"{explained.log_likelihood:.3f}",
        change_of_all=f"{explained.change_of_all:+.3f}",
        query_text=_percent(explained.query_attention),
        query_image=_percent(explained.query_image_attention),
        recorded=None not in shares,
        latest_only=not any(effect.image_attention for effect in explained.effects),
        ranked=any(effect.answer_without is not None for effect in explained.effects),
        cards=cards,
    )
    write_text(path, page)


def _picture(model: Any, example: Example) -> str | None:
    """The first frames of an example's media, side by side."""
    media = as_generation(example).prompt.media or example.media
    frames = [medium.decode() if isinstance(medium, Image) else model.frames(medium)[0] for medium in media[:4]]
    return data_url(side_by_side([square(frame) for frame in frames])) if frames else None


def _percent(share: float | None) -> str:
    return "" if share is None else f"{100 * share:.1f} %"


def _shown(answer: Answer, example: Example) -> str:
    """An answer as text; of a choice, its text."""
    if isinstance(answer, int) and example.choices:
        return reference_text(replace(example, target=Choice(answer))) or f"choice {answer + 1}"
    return "" if answer is None else str(answer)
