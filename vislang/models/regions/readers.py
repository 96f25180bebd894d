"""The regions of images: computed and cached, read from files, or pooled in given boxes."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol, runtime_checkable

import numpy as np
import torch
from safetensors import SafetensorError

from vislang.boxes import overlaps
from vislang.cache import cache_folder
from vislang.capabilities import Progress
from vislang.document import Image, Marked
from vislang.errors import UserError
from vislang.files import must_be_file
from vislang.models.regions.files import RegionFiles
from vislang.models.regions.region import RegionError, Regions
from vislang.models.regions.sources import ClusteredRegions, GridRegions, QueryRegions, RegionSource
from vislang.models.towers.feature_cache import FeatureCache, RecentFeatures
from vislang.models.towers.packaged import EFFICIENTNET_LITE0, TowerError
from vislang.models.towers.vision import load_vision_tower

AT_ONCE = 64
"""Number of images whose regions are computed at once."""


@runtime_checkable
class RegionReader(Protocol):
    """Reads the regions of the images in documents.

    Attributes:
        name: name of the source, for messages.
        fingerprint: hash of everything that the features depend on; empty for files.
        classes_fingerprint: hash of what else the class distributions depend on; empty for nothing else.
        width: width of a feature.
        classes: number of classes of each region's distribution; 0 without classes.
    """

    name: str
    fingerprint: str
    classes_fingerprint: str
    width: int
    classes: int

    def read(self, images: Sequence[Image]) -> list[Regions]:
        """The regions of each image.

        Raises:
            RegionError: an image has no regions, or they are invalid.
            MediaError: an image cannot be decoded.
        """
        ...

    def prepare(self, images: Sequence[Image], progress: Progress | None = None) -> int:
        """Compute and cache the regions of images; returns the number of images that were processed."""
        ...

    def keep_in_memory(self, images: int) -> None:
        """From now on cache the regions of this many images, in memory and not on disk."""
        ...


class ComputedRegions:
    """Regions that are computed once for each image and cached on disk in half precision.

    An image with marked boxes (:class:`~vislang.document.Marked`) also has a region for each mark, if the source is a
    grid.

    Args:
        source: the source of regions.
        folder: folder of the cache.
    """

    def __init__(self, source: RegionSource, folder: Path):
        self.source = source
        self.name, self.width, self.classes = source.name, source.width, source.classes
        self.fingerprint, self.classes_fingerprint = source.fingerprint, source.classes_fingerprint
        below = source.source if isinstance(source, ClusteredRegions) else source
        self.grid = isinstance(below, GridRegions)
        self.kept: FeatureCache | RecentFeatures = FeatureCache(folder)

    def read(self, images: Sequence[Image]) -> list[Regions]:
        """See :class:`RegionReader`."""
        self.prepare(images)
        found = [self._known(image) for image in images]
        return [with_marks(image, cells) for image, cells in zip(images, found, strict=True)] if self.grid else found

    def prepare(self, images: Sequence[Image], progress: Progress | None = None) -> int:
        """See :class:`RegionReader`."""
        missing = list({image.content_hash: image for image in images if image.content_hash not in self.kept}.values())
        for start in range(0, len(missing), AT_ONCE):
            chunk = missing[start : start + AT_ONCE]
            for image, regions in zip(chunk, self.source([image.decode() for image in chunk]), strict=True):
                self.kept.put_named(image.content_hash, _tensors(regions.check(image.name)))
            if progress is not None:
                progress(start + len(chunk), len(missing))
        return len(missing)

    def keep_in_memory(self, images: int) -> None:
        """See :class:`RegionReader`."""
        self.kept = RecentFeatures(images)

    def _known(self, image: Image) -> Regions:
        kept = self.kept.get_named(image.content_hash)
        if kept is None:
            # The file was deleted by another process, or damaged.
            (regions,) = self.source([image.decode()])
            return regions
        classes = kept.get("classes")
        width, height = kept["size"].tolist()
        return Regions(
            kept["features"].float().numpy(),
            kept["boxes"].numpy(),
            width,
            height,
            None if classes is None else classes.float().numpy(),
        )


def _tensors(regions: Regions) -> dict[str, torch.Tensor]:
    tensors = {
        "features": torch.from_numpy(regions.features).half(),
        "boxes": torch.from_numpy(regions.boxes),
        "size": torch.tensor([regions.width, regions.height], dtype=torch.float32),
    }
    if regions.classes is not None:
        tensors["classes"] = torch.from_numpy(regions.classes).half()
    return tensors


def with_marks(image: Image, cells: Regions) -> Regions:
    """A grid of regions, followed by one for each mark of its image; as in :class:`BoxedRegions`, its features are the
    mean of those of the grid under the box."""
    if not isinstance(image.source, Marked) or not image.source.marks:
        return cells
    # The boxes may refer to another scale of the image.
    scale = np.array([cells.width / image.source.width, cells.height / image.source.height] * 2)
    own = pooled(cells, (np.array([mark[1:] for mark in image.source.marks]) * scale).astype(np.float32))
    classes = None if cells.classes is None or own.classes is None else np.concatenate([cells.classes, own.classes])
    return Regions(
        np.concatenate([cells.features, own.features]),
        np.concatenate([cells.boxes, own.boxes]),
        cells.width,
        cells.height,
        classes,
    ).check(image.name)


class BoxedRegions:
    """Regions in given boxes (in COCO's format); their features are the mean of the grid features under the box.

    Args:
        grid: gives a grid of regions for each image.
        path: a JSON file with ``images`` (``id``, ``file_name``, ``width``, ``height``) and ``annotations``
            (``image_id`` and ``bbox``: left, top, width, height in pixels). A file name without a folder is looked up
            in the folder of each image.

    Raises:
        RegionError: the file does not exist or has another format.
    """

    def __init__(self, grid: RegionReader, path: Path | str):
        self.grid, self.path = grid, Path(path)
        self.name, self.width, self.classes = f"{grid.name} in the boxes of {path}", grid.width, grid.classes
        self.fingerprint, self.classes_fingerprint = grid.fingerprint, grid.classes_fingerprint
        self._boxes: dict[Path, dict[str, tuple[float, float, np.ndarray]]] = {}
        if self.path.parent != Path():
            self._of(self.path)

    def _of(self, path: Path) -> dict[str, tuple[float, float, np.ndarray]]:
        if path not in self._boxes:
            self._boxes[path] = read_coco_boxes(path)
        return self._boxes[path]

    def read(self, images: Sequence[Image]) -> list[Regions]:
        """See :class:`RegionReader`."""
        found = []
        for image, cells in zip(images, self.grid.read(images), strict=True):
            name = Path(image.name).name
            path = self.path if self.path.parent != Path() else Path(image.name).parent / self.path
            if name not in self._of(path):
                raise RegionError(f"{path}: has no box for {name}. Add its annotations.")
            width, height, boxes = self._of(path)[name]
            # The boxes may refer to another scale of the image.
            scale = np.array([cells.width / width, cells.height / height] * 2, dtype=np.float32)
            found.append(pooled(cells, boxes * scale).check(f"{path}, image {name}"))
        return found

    def prepare(self, images: Sequence[Image], progress: Progress | None = None) -> int:
        """See :class:`RegionReader`."""
        return self.grid.prepare(images, progress)

    def keep_in_memory(self, images: int) -> None:
        """See :class:`RegionReader`."""
        self.grid.keep_in_memory(images)


def read_coco_boxes(path: Path) -> dict[str, tuple[float, float, np.ndarray]]:
    """For each file name the width and height of the image, and its boxes as left, top, right, bottom.

    Raises:
        RegionError: the file does not exist or has another format; the message names the annotation.
    """
    must_be_file(path, "COCO's JSON of boxes", error=RegionError)
    try:
        content: Any = json.loads(path.read_text(encoding="utf-8"))
        named = {image["id"]: image for image in content["images"]}
        found: dict[Any, list[list[float]]] = {number: [] for number in named}
        for index, annotation in enumerate(content["annotations"]):
            left, top, width, height = map(float, annotation["bbox"])
            if annotation["image_id"] not in named:
                raise RegionError(f"{path}, annotation {index}: its image {annotation['image_id']} is not in the file.")
            found[annotation["image_id"]].append([left, top, left + width, top + height])
        return {
            image["file_name"]: (float(image["width"]), float(image["height"]), np.array(found[number], np.float32))
            for number, image in named.items()
            if found[number]
        }
    except OSError as error:
        raise RegionError(f"{path}: cannot be read ({error.strerror}). Give COCO's JSON of boxes.") from None
    except RegionError:
        raise
    except (ValueError, KeyError, TypeError) as error:
        raise RegionError(
            f"{path}: not COCO's JSON of boxes ({type(error).__name__}: {error}). It needs images with id, "
            "file_name, width and height, and annotations with image_id and bbox."
        ) from None


def pooled(cells: Regions, boxes: np.ndarray) -> Regions:
    """Regions in other boxes; each has the mean features of the cells that it covers, weighted by the covered area.

    Args:
        cells: a grid of regions.
        boxes: left, top, right, bottom, in the pixels of ``cells``.
    """
    start = np.maximum(boxes[:, None, :2], cells.boxes[None, :, :2])
    end = np.minimum(boxes[:, None, 2:], cells.boxes[None, :, 2:])
    weights = (end - start).clip(0).prod(axis=-1)
    # A box without area, or outside the image, gets the nearest cell.
    empty = weights.sum(axis=1) <= 0
    if empty.any():
        around = boxes[empty] + np.array([-1e-3, -1e-3, 1e-3, 1e-3], dtype=np.float32)
        weights[empty] = np.eye(len(cells.boxes), dtype=np.float32)[overlaps(around, cells.boxes).argmax(axis=1)]
    weights = (weights / weights.sum(axis=1, keepdims=True)).astype(np.float32)
    classes = None if cells.classes is None else weights @ cells.classes
    return Regions(weights @ cells.features, boxes, cells.width, cells.height, classes)


@dataclass
class RegionsConfig:
    """The source of regions: ``tower``, ``detector`` or ``files``.

    Attributes:
        tower: a vision tower; each cell of its grid is a region (see
            :func:`~vislang.models.towers.vision.load_vision_tower`).
        image_size: side of the square that images are resized to, in pixels; 0 for the tower's default.
        detector: a detector of transformers; each query is a region.
        files: region files; see :class:`~vislang.models.regions.files.RegionFiles`.
        boxes: boxes in COCO's JSON, in which the tower's features are averaged. A file name without a folder is looked
            up in the folder of each image.
        count: greatest number of regions of an image that a detector returns, the most confident ones; the whole image
            is added. Grids, boxes and files are used completely.
        clusters: a file of cluster centres (:meth:`~vislang.models.regions.sources.ClusteredRegions.save`), for a
            source without classes.
    """

    tower: str | None = EFFICIENTNET_LITE0
    image_size: int = 128
    detector: str | None = None
    files: str | None = None
    boxes: str | None = None
    count: int = 36
    clusters: str | None = None

    def __post_init__(self):
        if self.count < 1 or self.image_size < 0:
            raise ValueError("regions.count must be at least 1, and regions.image_size must not be negative.")

    def open(self) -> RegionReader:
        """The reader.

        Raises:
            UserError: settings contradict each other.
            TowerError, RegionError: a tower or a file is missing.
        """
        if self.files is not None:
            if self.detector is not None or self.boxes is not None:
                raise UserError("regions: files contain boxes and features; leave out detector and boxes.")
            return RegionFiles(self.files)
        if self.detector is not None:
            if self.boxes is not None:
                raise UserError("regions: a detector finds its own boxes; to use yours, set a tower.")
            return self._kept(QueryRegions(self.detector, self.count))
        if self.tower is None:
            raise UserError("regions: set tower, detector or files.")
        tower = load_vision_tower(self.tower, self.image_size or None)
        reader = self._kept(GridRegions(tower))
        return BoxedRegions(reader, self.boxes) if self.boxes is not None else reader

    def _kept(self, source: GridRegions | QueryRegions) -> ComputedRegions:
        found: RegionSource = source
        if self.clusters is not None:
            try:
                found = ClusteredRegions.open(source, Path(self.clusters))
            except (OSError, SafetensorError) as error:
                raise TowerError(
                    f"regions.clusters {self.clusters}: cannot be read ({error}). Compute them again."
                ) from None
        # The cache folder depends on everything that the regions depend on.
        size = source.tower.image_size if isinstance(source, GridRegions) else self.count
        mark = hashlib.sha256(f"{source.fingerprint} {found.classes_fingerprint} {size}".encode()).hexdigest()
        return ComputedRegions(found, cache_folder("regions", mark[:32]))


def must_be_same(reader: RegionReader, fingerprint: str, folder: Path) -> None:
    """Raise an error if a model was trained with another source of regions.

    Raises:
        TowerError: the fingerprints differ.
    """
    if fingerprint and reader.fingerprint != fingerprint:
        raise TowerError(
            f"{folder}: was trained with a source of regions with the hash {fingerprint[:12]}; {reader.name} has "
            f"{reader.fingerprint[:12]}. Use the source that it was trained with."
        )
