"""``report.html``: one self-contained page that shows a run, for a browser without a network."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image as Pillow

from vislang.capabilities import Attends, Progress
from vislang.data.example import Example
from vislang.evaluate.answering import Answered
from vislang.evaluate.page import THUMBNAIL, circumstances, data_url, square, template
from vislang.evaluate.plots import gates_plot, line_plot
from vislang.train.log import read_metrics

RIGHT_SHOWN, WRONG_SHOWN = 12, 12
FRAMES_SHOWN = 8
"""Of a video, at most."""

GAP = 8
"""Between two frames, in pixels."""


def write_report(
    folder: Path,
    model: Attends,
    examples: Sequence[Example],
    answered: Answered,
    progress: Progress | None = None,
) -> Path:
    """Write the report of the run in ``folder`` from its metrics and a gallery of answers.

    Args:
        folder: of the run, with ``metrics.jsonl``, ``metrics.json`` and ``run.json``.
        model: the trained model.
        examples: those that it was scored on.
        answered: its answers to them.
        progress: called with (pictures done, pictures in all).

    Returns:
        The path of the page.
    """
    rows = read_metrics(folder / "metrics.jsonl")
    metrics = json.loads((folder / "metrics.json").read_text(encoding="utf-8"))
    run = json.loads((folder / "run.json").read_text(encoding="utf-8"))
    right, wrong = choose(examples, answered)
    cards: dict[str, list[dict[str, Any]]] = {"right": [], "wrong": []}
    for kind, places in (("right", right), ("wrong", wrong)):
        for place in places:
            cards[kind].append(_card(model, examples[place], answered.predictions[place]))
            if progress is not None:
                progress(len(cards["right"]) + len(cards["wrong"]), len(right) + len(wrong))
    steps = [row for row in rows if "loss" in row]
    page = template("report").render(
        metrics=metrics,
        table=_table(metrics),
        loss=line_plot({"loss": [(r["step"], r["loss"]) for r in steps]}, "loss (nats per token)", smooth=True),
        accuracy=line_plot(
            {
                name.removeprefix("eval/"): [(r["step"], 100 * r[name]) for r in rows if name in r]
                for name in sorted({k for r in rows for k in r if k.startswith("eval/")})
            },
            "held-out accuracy (%)",
        ),
        gates=gates_plot(steps),
        right=cards["right"],
        wrong=cards["wrong"],
        wrong_count=answered.correct.count(False),
        right_count=answered.correct.count(True),
        threads=run["threads"],
        **circumstances(run),
    )
    path = folder / "report.html"
    path.write_text(page, encoding="utf-8")
    return path


def choose(examples: Sequence[Example], answered: Answered) -> tuple[list[int], list[int]]:
    """Which right and which wrong answers to show: of different questions, spread over the test set."""

    def spread(places: list[int], count: int) -> list[int]:
        seen: set[tuple] = set()
        first: list[int] = []
        rest: list[int] = []
        for place in places:
            key = (examples[place].question, answered.predictions[place])
            (rest if key in seen else first).append(place)
            seen.add(key)
        # One of each wording first; evenly spaced, so that the order of the file decides nothing.
        pool = first if len(first) >= count else first + rest
        stride = max(1, len(pool) // count)
        return pool[::stride][:count]

    right = [place for place, ok in enumerate(answered.correct) if ok]
    wrong = [place for place, ok in enumerate(answered.correct) if not ok]
    return spread(right, RIGHT_SHOWN), spread(wrong, WRONG_SHOWN)


def _card(model: Attends, example: Example, prediction: str) -> dict[str, Any]:
    """One answer of the gallery: its picture if it has one, and the same under each token's attention."""
    document = example.prompt(model.prompts)
    said = {
        "question": example.question or "caption",
        "prediction": prediction or "(nothing)",
        "references": ", ".join(dict.fromkeys(example.references)),
    }
    if not document.media:
        return said
    tokens = model.attention(document, max_new_tokens=20)
    frames = model.frames(document.media[-1])
    shown = np.linspace(0, len(frames) - 1, min(len(frames), FRAMES_SHOWN)).round().astype(int)
    return {
        **said,
        "film": len(frames) > 1,
        "shown": f"{len(shown)} of {len(frames)} frames" if len(frames) > 1 else "the picture",
        "image": data_url(_side_by_side([square(frames[number]) for number in shown])),
        "tokens": [
            {
                "text": token.token.strip() or "␣",
                "image": data_url(_overlay([frames[number] for number in shown], token.maps[-1].numpy()[shown])),
            }
            for token in tokens
        ],
    }


def _side_by_side(pictures: Sequence[Pillow.Image]) -> Pillow.Image:
    strip = Pillow.new("RGB", ((THUMBNAIL + GAP) * len(pictures) - GAP, THUMBNAIL), "white")
    for number, picture in enumerate(pictures):
        strip.paste(picture, ((THUMBNAIL + GAP) * number, 0))
    return strip


def _overlay(frames: Sequence[Pillow.Image], grids: np.ndarray) -> Pillow.Image:
    """Frames with their maps over them: viridis, opaque where the token looked most of all."""
    shares = grids / max(grids.max(), np.finfo(grids.dtype).tiny)
    return _side_by_side([_under(frame, share) for frame, share in zip(frames, shares, strict=True)])


def _under(picture: Pillow.Image, share: np.ndarray) -> Pillow.Image:
    from matplotlib import colormaps

    smooth = np.asarray(
        Pillow.fromarray(share.astype(np.float32)).resize((THUMBNAIL, THUMBNAIL), Pillow.Resampling.BICUBIC)
    ).clip(0, 1)[..., None]
    colour = colormaps["viridis"](smooth[..., 0])[..., :3] * 255
    base = np.asarray(square(picture), dtype=np.float32)
    mixed = base * (1 - 0.75 * smooth) + colour * 0.75 * smooth
    return Pillow.fromarray(mixed.round().astype(np.uint8))


def _table(metrics: dict[str, Any]) -> list[tuple[str, str]]:
    percent = "{:.1f} %".format
    return [
        (
            "accuracy",
            f"{percent(100 * metrics['accuracy'])} (95 % interval {100 * metrics['accuracy_low']:.1f} to "
            f"{100 * metrics['accuracy_high']:.1f})",
        ),
        ("the same model, images taken away (blind)", percent(100 * metrics["blind_accuracy"])),
        (
            "most frequent training answer to each question",
            percent(100 * metrics["majority_by_question_accuracy"]),
        ),
        ("most frequent training answer", percent(100 * metrics["majority_accuracy"])),
        ("chance", percent(100 * metrics["chance_accuracy"])),
    ]
