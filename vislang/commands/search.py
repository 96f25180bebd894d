"""``vislang search`` and ``vislang classify``: images by a text, and texts by an image, with no training on either."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from rich.table import Table

from vislang.capabilities import Matches
from vislang.console import console, reporting
from vislang.data.jsonl import DataError, Problem
from vislang.document import Document, Image
from vislang.errors import UserError
from vislang.models.loading import load
from vislang.tasks.unlabelled import unlabelled


def search(source: str, text: str, places: Sequence[str], top: int, as_json: bool) -> int:
    """Print the images that go best with a text, the best first; returns the exit status.

    Raises:
        UserError: the model does not match images and texts.
        DataError: there is no image at these places.
    """
    if top < 1:
        raise UserError(f"--top {top}: at least one.")
    if not text.strip():
        raise UserError("the text to search by is empty; say what the images are to show.")
    model, images = _opened(source, places)
    scores = model.match_all(images, [text])[:, 0]
    order = scores.argsort(descending=True)[:top].tolist()
    found = [{"image": images[place].name, "score": round(scores[place].item(), 4)} for place in order]
    if as_json:
        print(json.dumps(found))
        return 0
    table = Table(title=f'"{text}" among {len(images):,} images', title_justify="left")
    table.add_column("score", justify="right")
    table.add_column("image", overflow="fold")
    for each in found:
        table.add_row(f"{each['score']:.4f}", str(each["image"]))
    console.print(table)
    return 0


def classify(source: str, places: Sequence[str], labels: Sequence[str], template: str, as_json: bool) -> int:
    """Print which of some labels goes best with each image; returns the exit status.

    Args:
        source: of the model.
        places: images, or folders of them.
        labels: what an image may be.
        template: with ``{}`` for a label: what the model compares, "a photo of a {}" say.
        as_json: one JSON object a line.

    Raises:
        UserError: the model does not match images and texts, or the labels or the template cannot be used.
        DataError: there is no image at these places.
    """
    if len(set(labels)) < 2:
        raise UserError("--labels: give two or more, with commas between them.")
    if template.count("{}") != 1:
        raise UserError(f"--template {template!r}: write {{}} once, where the label goes.")
    model, images = _opened(source, places)
    scores = model.match_all(images, [template.replace("{}", label) for label in labels])
    best = scores.argmax(dim=-1).tolist()
    if as_json:
        for image, row, place in zip(images, scores.tolist(), best, strict=True):
            ranked = {label: round(score, 4) for label, score in zip(labels, row, strict=True)}
            print(json.dumps({"image": image.name, "label": labels[place], "scores": ranked}))
        return 0
    table = Table()
    for heading in ("label", "score"):
        table.add_column(heading, justify="right" if heading == "score" else "left")
    table.add_column("image", overflow="fold")
    for image, row, place in zip(images, scores.tolist(), best, strict=True):
        table.add_row(labels[place], f"{row[place]:.4f}", image.name)
    console.print(table)
    return 0


def _opened(source: str, places: Sequence[str]) -> tuple[Any, list[Image]]:
    problems: list[Problem] = []
    images: list[Image] = []
    for place in places:
        images += [m for d in unlabelled(place, problems) for m in d.media if isinstance(m, Image)]
    for problem in problems:
        console.print(f"left out: {problem}", markup=False)
    if not images:
        raise DataError(f"{', '.join(str(Path(place)) for place in places)}: no image to look at.")
    model = load(source)
    if not isinstance(model, Matches):
        raise UserError(
            f"{source}: is a {type(model).__name__}, which matches nothing; give a dual encoder or ViLBERT."
        )
    with reporting("finding regions") as report:
        model.inputs.prepare([Document([image], name=image.name) for image in images], report)  # type: ignore[attr-defined]
    return model, images
