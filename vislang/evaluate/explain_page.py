"""An HTML page that explains a ViLBERT's answer: regions, answer, and co-attention by block and head."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from PIL import Image as Pillow
from torch import Tensor

from vislang.attention_maps import OPACITY, emphasis
from vislang.boxes import Box
from vislang.capabilities import CoAttention, Explained
from vislang.evaluate.page import template
from vislang.files import write_text
from vislang.pictures import at_most, data_url

SIDE = 448
"""Longer side of the image on the page, in pixels."""

SHOWN = 8
"""Greatest number of answers, labels or regions that are listed."""


def write_explanation(path: Path, picture: Pillow.Image, text: str, explained: Explained, model: str) -> Path:
    """Write the page.

    Args:
        path: file to write.
        picture: the image.
        text: the question or caption.
        explained: the prediction and its co-attention.
        model: name of the model.
    """
    prediction = explained.prediction
    ranked = sorted(zip(prediction.candidates, prediction.scores, strict=True), key=lambda pair: -pair[1])
    names = {box: _name(number) for number, box in reversed(list(enumerate(explained.boxes)))}
    page = template("explain").render(
        text=text,
        model=model,
        independent=sum(prediction.scores) > 1.01,
        picture=data_url(at_most(picture, SIDE)),
        width=picture.width,
        height=picture.height,
        stroke=max(picture.size) / 400,
        label=max(picture.size) / 24,
        many=isinstance(prediction.answer, Box),
        boxes=[
            (box, number, box == prediction.answer)
            for number, box in enumerate(explained.boxes)
            if number or box == prediction.answer
        ],
        decided=[
            (names[answer] if isinstance(answer, Box) else str(answer), round(100 * share, 1))
            for answer, share in ranked[:SHOWN]
        ],
        number=f"{prediction.answer:.3f}" if isinstance(prediction.answer, float) else "",
        blocks=[_block(explained, block) for block in explained.blocks],
    )
    write_text(path, page)
    return path


def _name(number: int) -> str:
    return f"region {number}" if number else "whole image"


def _block(explained: Explained, block: CoAttention) -> dict[str, Any]:
    mean = block.regions.mean(dim=0)
    return {
        "mean_text": _over_regions(explained, block.text.mean(dim=0)),
        "mean_regions": _over_words(explained, mean),
        "heads": [
            {"text": _over_regions(explained, text), "regions": _over_words(explained, regions)}
            for text, regions in zip(block.text, block.regions, strict=True)
        ],
        "each_region": [(_name(number), _words(explained, row)) for number, row in enumerate(mean)],
    }


def _over_regions(explained: Explained, weights: Tensor) -> list[tuple[str, list[tuple[Box, float]], float]]:
    """For each token: the opacity of each region's colour, and the attention to the whole image in per cent."""
    rows = []
    for token, row in zip(explained.tokens, weights.numpy(), strict=True):
        strengths = (OPACITY * emphasis(row)).round(3).tolist()
        cells = list(zip(explained.boxes[1:], strengths[1:], strict=True))
        rows.append((token, cells, round(100 * float(row[0]), 1)))
    return rows


def _over_words(explained: Explained, weights: Tensor) -> list[list[tuple[str, float, float]]]:
    """The attention to words of the whole image, and the mean over all other regions."""
    return [_words(explained, weights[0]), _words(explained, weights[1:].mean(dim=0))]


def _words(explained: Explained, row: Tensor) -> list[tuple[str, float, float]]:
    strengths = (OPACITY * emphasis(row.numpy())).round(3).tolist()
    return [
        (token, strength, round(100 * share, 1))
        for token, strength, share in zip(explained.tokens, strengths, row.tolist(), strict=True)
    ]
