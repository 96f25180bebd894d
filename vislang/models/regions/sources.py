"""Regions of raw images: the grid cells of a vision tower, the boxes of a detector, and clusters as their classes."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Protocol, runtime_checkable

import numpy as np
import safetensors.numpy
import torch
from jaxtyping import Float
from PIL import Image as Pillow
from torch import Tensor
from transformers import AutoImageProcessor, AutoModelForObjectDetection

from vislang.errors import needs
from vislang.files import whole_file
from vislang.models.base import fingerprint
from vislang.models.regions.region import Regions
from vislang.models.towers.packaged import TowerError
from vislang.models.towers.vision import VisionTower


@runtime_checkable
class RegionSource(Protocol):
    """Finds regions in images.

    Attributes:
        name: the name that it was opened by.
        fingerprint: SHA-256 of everything that the features depend on; it is saved with models.
        classes_fingerprint: hash of what else the class distributions depend on; empty for nothing else.
        width: width of a feature.
        classes: number of classes of each region's distribution; 0 without classes.
    """

    name: str
    fingerprint: str
    classes_fingerprint: str
    width: int
    classes: int

    def __call__(self, images: Sequence[Pillow.Image]) -> list[Regions]:
        """The regions of each RGB image, with boxes in pixels of that image."""
        ...


class GridRegions:
    """The grid cells of a frozen vision tower as regions.

    The box of a region is its cell. The receptive field of the feature is larger.

    Args:
        tower: a tower whose features form a square grid.
    """

    classes_fingerprint = ""

    def __init__(self, tower: VisionTower):
        self.tower = tower
        self.name, self.fingerprint, self.width = tower.name, tower.fingerprint, tower.width
        self.classes = tower.classes

    def __call__(self, images: Sequence[Pillow.Image]) -> list[Regions]:
        """See :class:`RegionSource`."""
        features = self.tower(torch.stack([self.tower.preprocess(image) for image in images]))
        classes = self.tower.classify(features) if self.classes else None
        side = round(features.shape[1] ** 0.5)
        return [
            Regions(
                features[number].numpy(),
                grid_boxes(side, side, image.width, image.height),
                image.width,
                image.height,
                None if classes is None else classes[number].numpy(),
            )
            for number, image in enumerate(images)
        ]


def grid_boxes(rows: int, columns: int, width: float | int, height: float | int) -> Float[np.ndarray, "cells 4"]:
    """Edges of the cells of a grid over an image, row by row."""
    down, right = np.divmod(np.arange(rows * columns), columns)
    cell = np.array([width / columns, height / rows, width / columns, height / rows])
    return (np.stack([right, down, right + 1, down + 1], axis=1) * cell).astype(np.float32)


class QueryRegions:
    """The detections of a transformers model with queries, such as DETR or YOLOS, as regions.

    Args:
        source: a folder in transformers' format, or a Hub id.
        count: number of detections to keep, the most confident ones.

    Raises:
        TowerError: the detector was not found or cannot be opened.
    """

    classes_fingerprint = ""

    def __init__(self, source: str, count: int = 36):
        try:
            self.detector = AutoModelForObjectDetection.from_pretrained(source, dtype=torch.float32).eval()
            self.processor = AutoImageProcessor.from_pretrained(source, backend="pil")
        except (OSError, ValueError) as error:
            reason = (str(error).strip().splitlines() or [type(error).__name__])[0]
            raise TowerError(
                f"detector {source!r}: cannot be opened ({reason}). Give a folder or a Hub id of a detection model."
            ) from None
        self.detector.requires_grad_(False)
        self.name, self.count = source, count
        self.fingerprint = fingerprint(self.detector.state_dict())
        found = self([Pillow.new("RGB", (64, 64))])[0]
        assert found.classes is not None
        self.width, self.classes = found.features.shape[1], found.classes.shape[1]

    @torch.no_grad()
    def __call__(self, images: Sequence[Pillow.Image]) -> list[Regions]:
        """See :class:`RegionSource`. One image at a time, because detectors pad batches to one size."""
        found = []
        for image in images:
            made = self.detector(**self.processor(images=image, return_tensors="pt"))
            queries = made.logits.shape[1]
            classes, sure = self._classes(made.logits[0])
            best = sure.argsort(descending=True, stable=True)[: self.count]
            middle, size = made.pred_boxes[0, best].split(2, dim=-1)
            edges = torch.cat([middle - size / 2, middle + size / 2], dim=-1).clamp(0, 1)
            scale = torch.tensor([image.width, image.height, image.width, image.height])
            # YOLOS puts patches before its queries.
            features = made.last_hidden_state[0, -queries:][best]
            boxes = (edges * scale).numpy()
            found.append(Regions(features.numpy(), boxes, image.width, image.height, classes[best].numpy()))
        return found

    def _classes(self, logits: Tensor) -> tuple[Float[Tensor, "queries classes"], Float[Tensor, "..."]]:
        """The class distribution of each query, and its confidence that there is an object."""
        if logits.shape[-1] == self.detector.config.num_labels + 1:
            # The last class means "no object".
            probabilities = logits.softmax(dim=-1)
            return probabilities, 1 - probabilities[:, -1]
        probabilities = logits.sigmoid()
        return probabilities / probabilities.sum(dim=-1, keepdim=True), probabilities.max(dim=-1).values


class ClusteredRegions:
    """The regions of another source, with clusters of features as classes.

    They give pretraining something to predict for masked regions of a source without classes.

    Args:
        source: the source of regions.
        centres: the cluster centres; see :meth:`fit`.
        scale: root mean squared distance of features to their nearest centre.
    """

    def __init__(self, source: RegionSource, centres: Float[np.ndarray, "clusters width"], scale: float):
        self.source, self.centres, self.scale = source, centres, scale
        self.name, self.fingerprint, self.width = source.name, source.fingerprint, source.width
        self.classes = len(centres)
        self.classes_fingerprint = fingerprint({"centres": torch.from_numpy(centres)})

    @classmethod
    def fit(
        cls, source: RegionSource, images: Sequence[Pillow.Image], clusters: int = 256, seed: int = 0
    ) -> ClusteredRegions:
        """Compute centres from the regions of some images, by k-means.

        Raises:
            ValueError: there are fewer regions than clusters.
            UserError: scikit-learn is not installed.
        """
        needs("sklearn", "eval", "clusters of regions")
        from sklearn.cluster import MiniBatchKMeans

        features = np.concatenate([regions.features for regions in source(images)])
        if len(features) < clusters:
            raise ValueError(f"{len(features)} regions for {clusters} clusters; give more images or fewer clusters.")
        found = MiniBatchKMeans(clusters, random_state=seed, n_init=3).fit(features)
        return cls(source, found.cluster_centers_.astype(np.float32), float((found.inertia_ / len(features)) ** 0.5))

    def __call__(self, images: Sequence[Pillow.Image]) -> list[Regions]:
        """See :class:`RegionSource`."""
        return [
            Regions(found.features, found.boxes, found.width, found.height, self.distribution(found.features))
            for found in self.source(images)
        ]

    def distribution(self, features: Float[np.ndarray, "regions width"]) -> Float[np.ndarray, "regions clusters"]:
        """The class distribution of each feature: the softmax of negative squared distances to the centres, scaled."""
        x, centres = torch.from_numpy(features), torch.from_numpy(self.centres)
        distances = torch.cdist(x, centres).square() / max(self.scale, 1e-6) ** 2
        return (-distances).softmax(dim=-1).numpy()

    def save(self, path: Path) -> None:
        """Write the centres; :meth:`open` reads them."""
        tensors = {"centres": self.centres, "spread": np.array([self.scale], dtype=np.float32)}
        with whole_file(path) as unfinished:
            safetensors.numpy.save_file(tensors, unfinished)

    @classmethod
    def open(cls, source: RegionSource, path: Path) -> ClusteredRegions:
        """The source with the centres that :meth:`save` wrote."""
        kept = safetensors.numpy.load_file(path)
        return cls(source, kept["centres"], float(kept["spread"][0]))
