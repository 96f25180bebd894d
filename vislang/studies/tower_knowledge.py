"""What image encoders know of colour, shape and position: linear probes of their features on easy-VQA's images.

    python -m vislang.studies.tower_knowledge --seeds 0 1 2 --out docs/results/tower-knowledge

Each image has one shape of one colour. A probe is fitted on a few labelled training images and tested on all test
images. The encoders are a small data2vec before and after pretraining without labels, EfficientNet-Lite0, trained on
ImageNet's labels, and a dual encoder, which reads that tower and is trained by contrast with captions. Finished
measurements are not repeated.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor

from vislang.console import console
from vislang.data.sets.easy_vqa import easy_vqa
from vislang.document import Document, Image
from vislang.evaluate.probe import majority, probe
from vislang.example import Answers, Example, Label
from vislang.metrics.figure import Figure, figures_as_json
from vislang.models.dual_encoder.tower import DualEncoderTower
from vislang.models.towers.feature_cache import cache_of
from vislang.models.towers.packaged import EFFICIENTNET_LITE0
from vislang.models.towers.vision import VisionTower, load_vision_tower
from vislang.studies.arms import Arm, command_line, trained
from vislang.studies.line import mean_line
from vislang.studies.results import Results
from vislang.studies.study import RECIPES
from vislang.studies.untrained import before_training
from vislang.tasks.probes import ProbeTask

DATA2VEC = Arm("data2vec", RECIPES / "data2vec.yaml", ("--train.steps=150",))
DUAL = Arm("dual encoder", Path("recipes/dual-encoder.yaml"), ("--train.steps=150", "--eval_limit=64"))
ARMS = (DATA2VEC, DUAL)
UNTRAINED, IMAGENET, FREQUENT = (
    "data2vec, before training",
    "EfficientNet-Lite0, ImageNet labels",
    "most frequent label",
)

PROPERTIES = ("colour", "shape", "position")
LABELS = (20, 100, 500)
"""Numbers of labelled images."""

SIDE = 128
"""Side of the images that EfficientNet-Lite0 reads, in pixels; its features then have 4 x 4 positions."""

CELLS = 3
"""The position of a shape is the cell of a 3 x 3 grid that contains its centre."""

POOLED = (1, 2)
"""Sides of the grids to which features are averaged; the probe chooses one on its training images."""

BATCH = 64

Labelled = Mapping[Image, Mapping[str, str]]
"""Images with their properties."""

SHAPES = ("circle", "rectangle", "triangle")


def run(seeds: Sequence[int], out: Path, runs: Path) -> None:
    """Train and probe what is missing; write ``results.json`` after each tower, and ``table.md``."""
    results = Results(out)
    images = {split: labelled(easy_vqa(split)) for split in ("train", "test")}
    images["train"] = dict(list(images["train"].items())[: LABELS[-1]])
    for number, seed in enumerate(seeds):
        for name in (UNTRAINED, DATA2VEC.name, DUAL.name, IMAGENET):
            keys = {"tower": name} if name == IMAGENET else {"tower": name, "seed": seed}
            if not results.known(**keys) and (name != IMAGENET or not number):
                encoder = tower(name, seed, runs)
                found = {split: features(encoder, list(own)) for split, own in images.items()}
                results.add(*({**keys, **row} for row in probed(found, images)))
                console.print(f"{name}, seed {seed} done")
    if not results.known(tower=FREQUENT):
        guesses = {kind: majority(probe_of(kind, LABELS[-1], images)).accuracy for kind in PROPERTIES}
        results.add(*({"tower": FREQUENT, **row_of(kind, LABELS[-1], guess)} for kind, guess in guesses.items()))
    (out / "table.md").write_text(markdown(results.rows), encoding="utf-8")


def probed(found: Mapping[str, Mapping[str, np.ndarray]], images: Mapping[str, Labelled]) -> Iterator[dict[str, Any]]:
    """A row for each property and number of labels.

    Args:
        found: features by split and name.
        images: by split, in the order of the features.
    """
    train, test = found["train"], found["test"]
    for kind in PROPERTIES:
        for count in LABELS:
            pooled = {name: np.concatenate([train[name][:count], test[name]]) for name in train}
            yield row_of(kind, count, probe(pooled, probe_of(kind, count, images)).accuracy)


def row_of(kind: str, count: int, accuracy: Figure) -> dict[str, Any]:
    """A row of the results, without the tower."""
    return {"property": kind, "labels": count, "figures": figures_as_json({"accuracy": accuracy})}


def tower(name: str, seed: int, runs: Path) -> VisionTower:
    """An image encoder by its name in the table; it is trained first if necessary."""
    if name == IMAGENET:
        return load_vision_tower(EFFICIENTNET_LITE0, SIDE)
    if name == UNTRAINED:
        return before_training(trained(DATA2VEC, ARMS, seed, runs)).model.vision_tower(UNTRAINED)
    (arm,) = (arm for arm in ARMS if arm.name == name)
    return load_vision_tower(str(trained(arm, ARMS, seed, runs) / "model"))


def labelled(questions: Sequence[Example]) -> dict[Image, dict[str, str]]:
    """The properties of each image: colour and shape from the answers to its questions, position from its pixels.

    Images without a question about their colour or their shape are left out.
    """
    found: dict[Image, dict[str, str]] = {}
    for question in questions:
        (image,) = question.media
        assert isinstance(image, Image)
        assert isinstance(question.target, Answers)
        (answer,) = question.target.scores
        own = found.setdefault(image, {"position": cell_of(image)})
        if answer in SHAPES:
            own["shape"] = answer
        elif answer not in ("yes", "no"):
            own["colour"] = answer
    return {image: own for image, own in found.items() if len(own) == len(PROPERTIES)}


def cell_of(image: Image) -> str:
    """The cell of the grid that contains the centre of an image's shape: the mean of the pixels that differ from the
    background, which is the colour at most of the border."""
    pixels = np.asarray(image.decode().convert("RGB")).astype(int)
    border = np.concatenate([pixels[0], pixels[-1], pixels[:, 0], pixels[:, -1]])
    background = np.median(border, axis=0)
    rows, columns = np.nonzero(np.abs(pixels - background).sum(axis=-1) > 60)
    height, width = pixels.shape[:2]
    return f"row {int(CELLS * rows.mean() / height)}, column {int(CELLS * columns.mean() / width)}"


@torch.inference_mode()
def features(encoder: VisionTower, images: Sequence[Image]) -> dict[str, np.ndarray]:
    """The features of images, averaged over the cells of each grid of ``POOLED``: (images, cells x width) by name."""
    found: dict[str, list[Tensor]] = {}
    for start in range(0, len(images), BATCH):
        grid = grids(encoder, images[start : start + BATCH])
        for side in POOLED:
            found.setdefault(f"{side} x {side} cells", []).append(averaged(grid, side))
    return {name: torch.cat(parts).numpy() for name, parts in found.items()}


def grids(encoder: VisionTower, images: Sequence[Image]) -> Float[Tensor, "images positions width"]:
    """The features of images; those of EfficientNet-Lite0 are cached on disk."""
    if isinstance(encoder, DualEncoderTower):
        return encoder.over(grids(encoder.below, images))
    if encoder.name != EFFICIENTNET_LITE0:
        return encoded(encoder, images)
    cache = cache_of(encoder, encoder.fingerprint)
    if missing := [image for image in images if image.content_hash not in cache]:
        for image, grid in zip(missing, encoded(encoder, missing), strict=True):
            cache.put(image.content_hash, grid)
    known = []
    for image in images:
        grid = cache.get(image.content_hash)
        assert grid is not None
        known.append(grid)
    return torch.stack(known)


def encoded(encoder: VisionTower, images: Sequence[Image]) -> Float[Tensor, "images positions width"]:
    """The features of images."""
    return encoder(torch.stack([encoder.preprocess(image.decode()) for image in images]))


def averaged(grid: Float[Tensor, "images positions width"], side: int) -> Float[Tensor, "images averaged"]:
    """The mean features of each cell of a coarser grid, one after the other."""
    length = round(grid.shape[1] ** 0.5)
    square = grid.transpose(1, 2).unflatten(2, (length, length))
    return F.adaptive_avg_pool2d(square, side).flatten(1)


def probe_of(kind: str, count: int, images: Mapping[str, Labelled]) -> ProbeTask:
    """A property as a task with the first so many training images, which are in no order, and all test images."""
    items = []
    for split, own in images.items():
        for number, (image, properties) in enumerate(own.items()):
            if split == "test" or number < count:
                name = f"{split} {number}"
                # All test images are one group, so they are one fold, for which all training images are used.
                group = "test" if split == "test" else name
                items.append(Example(name, Document([image], name=name), Label(properties[kind]), group=group))
    train = [item.group != "test" for item in items]
    return ProbeTask(kind, f"the {kind} of a shape", items, train, [not one for one in train], by_group=True)


def markdown(rows: Sequence[dict[str, Any]]) -> str:
    """The accuracy of each tower by property and number of labels, in per cent."""
    columns = [(kind, count) for kind in PROPERTIES for count in LABELS]
    lines = [f"| features | {' | '.join(f'{kind}, {count:,} labels' for kind, count in columns)} |"]
    lines.append(f"|{'---|' * (len(columns) + 1)}")
    for name in (FREQUENT, UNTRAINED, DATA2VEC.name, DUAL.name, IMAGENET):
        cells = []
        for kind, count in columns:
            own = [row for row in rows if (row["tower"], row["property"], row["labels"]) == (name, kind, count)]
            cells.append(str(mean_line(own, "accuracy")) if own else "")
        lines.append(f"| {name} | {' | '.join(cells)} |")
    return "\n".join(lines) + "\n"


if __name__ == "__main__":
    command_line(__doc__ or "", Path("runs/studies/tower-knowledge"), run)
