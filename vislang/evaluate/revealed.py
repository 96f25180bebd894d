"""What pretraining learned: what was masked and how well it was predicted, and nearest neighbours."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from matplotlib import colormaps
from PIL import Image as Pillow

from vislang.capabilities import Embeds, Revealed
from vislang.document import Audio, Document, Image
from vislang.evaluate.baselines import log_mel
from vislang.evaluate.page import THUMBNAIL, data_url
from vislang.example import Example

SHOWN = 6
"""Documents of a stream that are shown, with their nearest neighbours."""

NEIGHBOURS = 6

POOL = 400
"""Documents among which neighbours are looked for."""

LEGENDS = {
    "image": "Dark patches were masked. The colour shows how much of the variance of a masked patch was predicted: "
    "yellow is all of it, dark blue no more than by the mean of all patches.",
    "speech": "A spectrogram, low tones below; dark columns were masked. The colour shows how much of the "
    "variance of a masked frame was predicted: yellow is all of it, dark blue no more than by the mean of all frames.",
    "text": "Framed tokens were masked. The colour shows how much of the variance of a masked token was predicted: "
    "yellow is all of it, dark blue no more than by the mean of all tokens.",
}


def revealed_of(model: Any, kept: Sequence[Example], pool: Sequence[Example]) -> dict[str, Any]:
    """The cards and the neighbours of a stream, for the page.

    Args:
        model: it Reveals and Embeds.
        kept: examples to show.
        pool: examples among which neighbours are looked for.
    """
    chosen = _evenly([example.prompt for example in kept], SHOWN)
    revealed = model.reveal(chosen)
    among = _evenly([example.prompt for example in pool], POOL)
    return {
        "legend": LEGENDS[revealed[0].modality],
        "cards": [_card(document, what) for document, what in zip(chosen, revealed, strict=True)],
        "neighbours": _neighbours(model, chosen, among),
        "pool": len(among),
    }


def _card(document: Document, revealed: Revealed) -> dict[str, Any]:
    part = document.parts[0]
    name = Path(part.name).name if isinstance(part, Image | Audio) else document.name
    if revealed.modality == "text":
        return {"name": name, "words": _words(revealed), "images": []}
    if isinstance(part, Image):
        side = min(part.decode().size)
        whole = part.decode()
        left, upper = (whole.width - side) // 2, (whole.height - side) // 2
        picture = whole.crop((left, upper, left + side, upper + side)).resize((THUMBNAIL, THUMBNAIL))
        size = (THUMBNAIL, THUMBNAIL)
    else:
        assert isinstance(part, Audio)
        picture = _spectrogram(part)
        size = picture.size
    masked = np.asarray(Pillow.fromarray(revealed.mask.numpy()).resize(size, Pillow.Resampling.NEAREST))
    shares = np.nan_to_num(revealed.agreement.numpy()).clip(0, 1).astype(np.float32)
    agreed = np.asarray(Pillow.fromarray(shares).resize(size, Pillow.Resampling.NEAREST))
    gaps, map_ = np.asarray(picture).copy(), np.asarray(picture).copy()
    gaps[masked] = (40, 48, 58)
    map_[masked] = (colormaps["cividis"](agreed[masked])[..., :3] * 255).astype(np.uint8)
    shown = {"whole": picture, "gaps": Pillow.fromarray(gaps), "predicted": Pillow.fromarray(map_)}
    return {"name": name, "words": [], "images": [(what, data_url(image)) for what, image in shown.items()]}


def _words(revealed: Revealed) -> list[dict[str, Any]]:
    words = []
    for token, masked, agreement in zip(
        revealed.tokens, revealed.mask[0].tolist(), revealed.agreement[0].tolist(), strict=True
    ):
        if token == "<pad>":
            continue
        share = min(max(agreement, 0.0), 1.0) if masked else 0.0
        red, green, blue = (int(255 * value) for value in colormaps["cividis"](share)[:3])
        colour = f"rgba({red}, {green}, {blue}, 0.45)" if masked else "transparent"
        words.append({"text": token, "masked": masked, "colour": colour})
    return words


def _spectrogram(sound: Audio, height: int = 80) -> Pillow.Image:
    """Log-mel energies, low tones below, a hundredth of a second a column."""
    energies = log_mel(sound.decode()).T[::-1]
    low, high = np.quantile(energies, [0.02, 0.98])
    grey = ((energies - low) / max(high - low, 1e-6)).clip(0, 1)
    picture = Pillow.fromarray((colormaps["magma"](grey)[..., :3] * 255).astype(np.uint8))
    return picture.resize((max(picture.width, 2 * height), height))


def _neighbours(model: Embeds, queries: Sequence[Document], pool: Sequence[Document]) -> list[list[dict[str, Any]]]:
    vectors = model.embed([*queries, *pool]).numpy()
    vectors = vectors - vectors.mean(axis=0)
    vectors /= np.linalg.norm(vectors, axis=1, keepdims=True).clip(min=1e-6)
    found = []
    for number, query in enumerate(queries):
        similarity = vectors[len(queries) :] @ vectors[number]
        nearest = [index for index in np.argsort(-similarity) if pool[index].parts != query.parts][:NEIGHBOURS]
        row = [_cell(query, "")]
        row += [_cell(pool[index], f"{similarity[index]:.2f}") for index in nearest]
        found.append(row)
    return found


def _cell(document: Document, text: str) -> dict[str, Any]:
    part = document.parts[0]
    if isinstance(part, Image):
        picture = part.decode()
        picture.thumbnail((96, 96))
        return {"name": Path(part.name).name, "image": data_url(picture), "text": text}
    if isinstance(part, Audio):
        return {"name": Path(part.name).name, "image": data_url(_spectrogram(part, 48)), "text": text}
    return {"name": document.name, "image": None, "text": f"{str(part)[:120]} {text}"}


def _evenly(documents: Sequence[Document], count: int) -> list[Document]:
    """At most so many, evenly spaced."""
    return list(documents)[:: max(1, len(documents) // count)][:count]
