"""``report.html`` of a pretraining run: curves, what was hidden and how well it was predicted, nearest neighbours."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from matplotlib import colormaps
from PIL import Image as Pillow

from vislang.capabilities import Embeds, Progress, Revealed, Reveals
from vislang.document import Audio, Document, Image
from vislang.evaluate.baselines import log_mel
from vislang.evaluate.page import THUMBNAIL, circumstances, data_url, template
from vislang.evaluate.plots import line_plot
from vislang.train.log import read_metrics

SHOWN = 6
"""Documents of a stream that are shown with their gaps, and whose neighbours are shown."""

NEIGHBOURS = 6

POOL = 400
"""Documents among which neighbours are looked for."""

LEGENDS = {
    "image": "Dark patches were hidden. Colour tells how much of what is particular about a hidden patch was "
    "predicted: yellow is all of it, dark blue no more than the mean of all patches.",
    "speech": "A spectrogram, low tones below; dark columns were hidden. Colour tells how much of what is particular "
    "about a hidden frame was predicted: yellow is all of it, dark blue no more than the mean of all frames.",
    "text": "Framed tokens were hidden. Colour tells how much of what is particular about a hidden token was "
    "predicted: yellow is all of it, dark blue no more than the mean of all tokens.",
}


def write_pretraining_report(
    folder: Path,
    model: Any,
    held_out: Mapping[str, Sequence[Document]],
    pools: Mapping[str, Sequence[Document]],
    progress: Progress | None = None,
) -> Path:
    """Write the report of the run in ``folder``.

    Args:
        folder: of the run, with ``metrics.jsonl``, ``metrics.json`` and ``run.json``.
        model: the trained model, which Reveals and Embeds.
        held_out: documents kept from training, by stream.
        pools: documents among which neighbours are looked for, by stream.
        progress: called with (streams done, streams in all).

    Returns:
        The path of the page.
    """
    assert isinstance(model, Reveals)
    assert isinstance(model, Embeds)
    rows = read_metrics(folder / "metrics.jsonl")
    metrics = json.loads((folder / "metrics.json").read_text(encoding="utf-8"))
    run = json.loads((folder / "run.json").read_text(encoding="utf-8"))
    streams = []
    for number, name in enumerate(held_out, start=1):
        chosen = _spread(held_out[name] or pools[name], SHOWN)
        revealed = model.reveal(chosen)
        pool = _spread(pools[name], POOL)
        streams.append(
            {
                "name": name,
                "legend": LEGENDS[revealed[0].modality],
                "cards": [_card(document, what) for document, what in zip(chosen, revealed, strict=True)],
                "neighbours": _neighbours(model, chosen, pool),
                "pool": len(pool),
            }
        )
        if progress is not None:
            progress(number, len(held_out))
    page = template("pretraining").render(
        names=list(held_out),
        metrics=metrics,
        table=[(name.replace("_", " "), f"{value:.4f}") for name, value in metrics["held_out"].items()],
        plots=_plots(rows),
        streams=streams,
        threads=run["threads"],
        **circumstances(run),
    )
    path = folder / "report.html"
    path.write_text(page, encoding="utf-8")
    return path


def _plots(rows: Sequence[dict[str, Any]]) -> list[tuple[str, str]]:
    steps = [row for row in rows if "loss" in row]
    evaluated = [row for row in rows if any(name.startswith("eval/") for name in row)]

    def series(where: Sequence[dict[str, Any]], *endings: str) -> dict[str, list[tuple[float, float]]]:
        names = [name for name in (where[0] if where else {}) if name.endswith(endings)]
        return {
            name.removeprefix("eval/").replace("_", " "): [(row["step"], row[name]) for row in where] for name in names
        }

    return [
        ("Loss", line_plot({"loss": [(row["step"], row["loss"]) for row in steps]}, "loss", smooth=True)),
        (
            "Spread of targets and predictions: at 0, all would look the same",
            line_plot(series(steps, "_spread"), "spread"),
        ),
        (
            "Share of the targets' variance that was predicted, on documents kept from training",
            line_plot(series(evaluated, "explained"), "share"),
        ),
        ("How much of itself the teacher keeps each step", line_plot(series(steps, "teacher_decay"), "decay")),
    ]


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
    hidden = np.asarray(Pillow.fromarray(revealed.mask.numpy()).resize(size, Pillow.Resampling.NEAREST))
    shares = np.nan_to_num(revealed.agreement.numpy()).clip(0, 1).astype(np.float32)
    agreed = np.asarray(Pillow.fromarray(shares).resize(size, Pillow.Resampling.NEAREST))
    gaps, map_ = np.asarray(picture).copy(), np.asarray(picture).copy()
    gaps[hidden] = (40, 48, 58)
    map_[hidden] = (colormaps["cividis"](agreed[hidden])[..., :3] * 255).astype(np.uint8)
    shown = {"whole": picture, "gaps": Pillow.fromarray(gaps), "predicted": Pillow.fromarray(map_)}
    return {"name": name, "words": [], "images": [(what, data_url(image)) for what, image in shown.items()]}


def _words(revealed: Revealed) -> list[dict[str, Any]]:
    words = []
    for token, hidden, agreement in zip(
        revealed.tokens, revealed.mask[0].tolist(), revealed.agreement[0].tolist(), strict=True
    ):
        if token == "<pad>":
            continue
        share = min(max(agreement, 0.0), 1.0) if hidden else 0.0
        red, green, blue = (int(255 * value) for value in colormaps["cividis"](share)[:3])
        colour = f"rgba({red}, {green}, {blue}, 0.45)" if hidden else "transparent"
        words.append({"text": token, "hidden": hidden, "colour": colour})
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
        likeness = vectors[len(queries) :] @ vectors[number]
        nearest = [place for place in np.argsort(-likeness) if pool[place].parts != query.parts][:NEIGHBOURS]
        row = [_cell(query, "")]
        row += [_cell(pool[place], f"{likeness[place]:.2f}") for place in nearest]
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


def _spread(documents: Sequence[Document], count: int) -> list[Document]:
    """At most so many, evenly spaced."""
    return list(documents)[:: max(1, len(documents) // count)][:count]
