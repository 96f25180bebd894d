"""What pretraining learned: masked positions with their explained variance, and nearest neighbours."""

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
from vislang.example import Example
from vislang.pictures import THUMBNAIL, data_url

SHOWN = 6
"""Number of documents of a stream that are shown, with their nearest neighbours."""

NEIGHBOURS = 6

POOL = 400
"""Number of documents in which neighbours are searched."""

LEGENDS = {
    "image": "Dark patches are masked. The colour shows how well each masked patch is predicted: yellow is perfect, "
    "dark blue no better than the mean of all patches.",
    "speech": "A spectrogram with low frequencies at the bottom; dark columns are masked. The colour shows how well "
    "each masked frame is predicted: yellow is perfect, dark blue no better than the mean of all frames.",
    "text": "Framed tokens are masked. The colour shows how well each masked token is predicted: yellow is perfect, "
    "dark blue no better than the mean of all tokens.",
}


def revealed_of(model: Any, kept: Sequence[Example], pool: Sequence[Example]) -> dict[str, Any]:
    """The cards and the neighbours of a stream, for the page.

    Args:
        model: a model that Reveals and Embeds.
        kept: examples to show.
        pool: examples in which neighbours are searched.
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
    """Log-mel energies with low frequencies at the bottom; a column is 10 ms."""
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
    """At most ``count`` documents, evenly spaced."""
    return list(documents)[:: max(1, len(documents) // count)][:count]
