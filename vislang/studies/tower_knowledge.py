"""What image encoders know of colour, shape and position: linear probes of their features on easy-VQA's images.

    python -m vislang.studies.tower_knowledge --seeds 0 1 2 --out docs/results/tower-knowledge

Each image has one shape of one colour. A probe is fitted on a few labelled training images and tested on all test
images. The encoders are a small data2vec before and after pretraining without labels, EfficientNet-Lite0, trained on
ImageNet's labels, and a dual encoder, which reads that tower and is trained by contrast with captions. Finished
measurements are not repeated.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
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
from vislang.metrics.figure import figures_as_json, show
from vislang.models.towers.packaged import EFFICIENTNET_LITE0
from vislang.models.towers.vision import VisionTower, load_vision_tower
from vislang.studies.arms import Arm, command_line, trained
from vislang.studies.line import mean_line
from vislang.studies.results import Results
from vislang.studies.study import RECIPES
from vislang.studies.untrained import before_training
from vislang.tasks.probes import ProbeTask

DATA2VEC = Arm("data2vec", RECIPES / "data2vec.yaml", ("--train.steps=300",))
DUAL = Arm("dual encoder", Path("recipes/dual-encoder.yaml"), ("--eval_limit=64",))
ARMS = (DATA2VEC, DUAL)
UNTRAINED, IMAGENET, FREQUENT = (
    "data2vec, before training",
    "EfficientNet-Lite0, ImageNet labels",
    "most frequent label",
)

PROPERTIES = ("colour", "shape", "position")
LABELS = (20, 100, 1000)
"""Numbers of labelled images."""

SIDE = 128
"""Side of the images that EfficientNet-Lite0 reads, in pixels; its features then have 4 x 4 positions."""

CELLS = 3
"""The position of a shape is the cell of a 3 x 3 grid that contains its centre."""

POOLED = (1, 2)
"""Sides of the grids to which features are averaged; the probe chooses one on its training images."""

BATCH = 64
SHAPES = ("circle", "rectangle", "triangle")


def run(seeds: Sequence[int], out: Path, runs: Path) -> None:
    """Train and probe what is missing; write ``results.json`` after each measurement, and ``table.md``."""
    results = Results(out)
    images = {split: labelled(easy_vqa(split)) for split in ("train", "test")}
    for number, seed in enumerate(seeds):
        for name in (UNTRAINED, DATA2VEC.name, DUAL.name, *(() if number else (IMAGENET,))):
            keys = {"tower": name, **({} if name == IMAGENET else {"seed": seed})}
            wanted = [(kind, count) for kind in PROPERTIES for count in LABELS]
            missing = [(kind, n) for kind, n in wanted if not results.known(**keys, property=kind, labels=n)]
            if not missing:
                continue
            grids = {split: features(tower(name, seed, runs), list(own)) for split, own in images.items()}
            for kind, count in missing:
                task, chosen = probe_of(kind, count, images)
                pooled = {n: np.concatenate([grids["train"][n][chosen], grids["test"][n]]) for n in grids["train"]}
                figure = probe(pooled, task).accuracy
                results.add(
                    {**keys, "property": kind, "labels": count, "figures": figures_as_json({"accuracy": figure})}
                )
                console.print(f"{name}, seed {seed}: {kind} from {count} labels: {show('accuracy', figure)}")
    for kind in PROPERTIES:
        if not results.known(tower=FREQUENT, property=kind):
            figure = majority(probe_of(kind, LABELS[-1], images)[0]).accuracy
            results.add(
                {
                    "tower": FREQUENT,
                    "property": kind,
                    "labels": LABELS[-1],
                    "figures": figures_as_json({"accuracy": figure}),
                }
            )
    (out / "table.md").write_text(markdown(results.rows), encoding="utf-8")


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
        pixels = torch.stack([encoder.preprocess(image.decode()) for image in images[start : start + BATCH]])
        grid = encoder(pixels)
        for side in POOLED:
            found.setdefault(f"{side} x {side} cells", []).append(averaged(grid, side))
    return {name: torch.cat(parts).numpy() for name, parts in found.items()}


def averaged(grid: Float[Tensor, "images positions width"], side: int) -> Float[Tensor, "images averaged"]:
    """The mean features of each cell of a coarser grid, one after the other."""
    length = round(grid.shape[1] ** 0.5)
    square = grid.transpose(1, 2).unflatten(2, (length, length))
    return F.adaptive_avg_pool2d(square, side).flatten(1)


def probe_of(
    kind: str, count: int, images: Mapping[str, Mapping[Image, Mapping[str, str]]]
) -> tuple[ProbeTask, list[int]]:
    """A property as a task with so many training images and all test images, and the indices of these training images.

    They are the first ones, which are in no order.
    """
    chosen = list(range(count))
    items = []
    for split, own in images.items():
        for number, (image, properties) in enumerate(own.items()):
            if split == "test" or number < count:
                name = f"{split} {number}"
                # All test images are one group, so they are one fold, for which all training images are used.
                group = "test" if split == "test" else name
                items.append(Example(name, Document([image], name=name), Label(properties[kind]), group=group))
    train = [item.group != "test" for item in items]
    return ProbeTask(kind, f"the {kind} of a shape", items, train, [not one for one in train], by_group=True), chosen


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
