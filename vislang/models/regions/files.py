"""Region files in the formats of the original code.

* a folder with an ``.npy`` file for each image, as vilbert-multi-task's extraction writes them;
* an LMDB with arrays (vilbert-multi-task) or base64 text of float32 (vilbert_beta and bottom-up-attention).
"""

from __future__ import annotations

import base64
import binascii
import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from vislang.capabilities import Progress
from vislang.document import Image
from vislang.models.regions.region import RegionError, Regions
from vislang.pickles import read_array, read_pickle

INSTALL = "LMDB files need lmdb. Run: pip install 'vislang[data]'"


class RegionFiles(Mapping[str, Regions]):
    """The regions of each image id; they are checked when they are read.

    Args:
        path: a folder of ``.npy`` files, or an LMDB (a folder with ``data.mdb``, or a file).

    Attributes:
        width: width of a feature.
        classes: number of classes of each region's distribution; 0 without classes.

    Raises:
        RegionError: there are no region files at ``path``.
    """

    # The files do not record which detector made them.
    fingerprint = classes_fingerprint = ""

    def __init__(self, path: Path | str):
        self.path = Path(path)
        self._open()
        self.name = str(self.path)
        first = self[self._names[0]]
        self.width = first.features.shape[1]
        self.classes = _classes_of(first)

    def _open(self) -> None:
        self._record: Callable[[str], Any]
        if self.path.is_dir() and not (self.path / "data.mdb").is_file():
            files = {file.stem: file for file in sorted(self.path.glob("*.npy"))}
            self._names = list(files)
            self._record = lambda name: read_array(files[name])
        elif self.path.exists():
            self._names, self._record = _open_lmdb(self.path)
        else:
            raise RegionError(f"{self.path}: no such file or folder. Give a folder of .npy files, or an LMDB.")
        if not self._names:
            raise RegionError(f"{self.path}: contains neither .npy files nor an LMDB (data.mdb) with records.")
        self._known = frozenset(self._names)

    def __getstate__(self) -> dict[str, Any]:
        # Each worker process opens the files again.
        return {name: value for name, value in vars(self).items() if name not in ("_names", "_record", "_known")}

    def __setstate__(self, state: dict[str, Any]) -> None:
        vars(self).update(state)
        self._open()

    def __getitem__(self, name: str) -> Regions:
        """The regions of an image.

        Raises:
            KeyError: there is no such image.
            RegionError: its record is invalid.
            PickleError: its record cannot be read.
        """
        if name not in self._known:
            raise KeyError(name)
        return regions_of(self._record(name), f"{self.path}, image {name}")

    def read(self, images: Sequence[Image]) -> list[Regions]:
        """The regions of images, looked up by file name without folder and extension; see RegionReader.

        Raises:
            RegionError: an image has no record, an invalid one, or one with another feature width or number of classes
                than the first record.
        """
        found = []
        for image in images:
            name = self._name_of(image)
            if name is None:
                raise RegionError(self._missing([image]))
            regions = self[name]
            for what, have, wanted in (
                ("features of width {}", regions.features.shape[1], self.width),
                ("{} classes", _classes_of(regions), self.classes),
            ):
                if have != wanted:
                    raise RegionError(
                        f"{self.path}, image {name}: {what.format(have)}, but image {self._names[0]} has {wanted}. "
                        "Extract all images with the same detector."
                    )
            found.append(regions)
        return found

    def keep_in_memory(self, images: int) -> None:
        """Nothing is computed, so nothing is cached."""

    def prepare(self, images: Sequence[Image], progress: Progress | None = None) -> int:
        """Check that each image has a record.

        Raises:
            RegionError: some images have none; the message names them.
        """
        missing = [image for image in images if self._name_of(image) is None]
        if missing:
            raise RegionError(self._missing(missing))
        return 0

    def _name_of(self, image: Image) -> str | None:
        """The key of an image in the files: its file name, or the number in a COCO file name
        (``COCO_val2014_000000000042.jpg`` is 42)."""
        stem = Path(image.name).stem
        number = re.fullmatch(r"(?:COCO_[a-z]+\d{4}_)?0*(\d+)", stem)
        names = [stem] if number is None else [stem, number.group(1)]
        return next((name for name in names if name in self._known), None)

    def _missing(self, images: Sequence[Image]) -> str:
        stems = list(dict.fromkeys(Path(image.name).stem for image in images))
        more = f" and {len(stems) - 3:,} more" if len(stems) > 3 else ""
        return f"{self.path}: has no regions of {', '.join(stems[:3])}{more} (of {images[0].name}). Extract them first."

    def __iter__(self) -> Iterator[str]:
        return iter(self._names)

    def __len__(self) -> int:
        return len(self._names)


def regions_of(record: Any, name: str) -> Regions:
    """The regions in a record of either format.

    Args:
        record: the unpickled record.
        name: name of the file and record, for messages.

    Raises:
        RegionError: a field is missing or invalid.
    """
    if not isinstance(record, Mapping):
        raise RegionError(f"{name}: a {type(record).__name__}, not a record with fields.")
    stated = _number(record, name, "num_boxes")
    if not (stated >= 1 and stated.is_integer()):
        raise RegionError(f"{name}: states {stated:g} boxes. Extract it again, or leave the image out.")
    flat = _floats(_field(record, name, "bbox", "boxes"), name, "boxes")
    if flat.size % 4:
        raise RegionError(f"{name}: {flat.size} numbers for the boxes; they must be a multiple of four.")
    boxes = _rows(flat, flat.size // 4, name, "boxes")
    if len(boxes) < stated:
        raise RegionError(
            f"{name}: states {stated:g} boxes and has {len(boxes)}. The file was truncated; extract it again."
        )
    features = _rows(_floats(_field(record, name, "features"), name, "features"), len(boxes), name, "features")
    classes = record.get("cls_prob")
    if classes is not None:
        classes = _rows(_floats(classes, name, "cls_prob"), len(boxes), name, "cls_prob")
    width, height = _number(record, name, "image_width", "image_w"), _number(record, name, "image_height", "image_h")
    return Regions(features, boxes, width, height, classes).best(int(stated)).check(name)


def _field(record: Mapping[str, Any], name: str, *names: str) -> Any:
    for field in names:
        if field in record:
            return record[field]
    raise RegionError(f"{name}: has no {' or '.join(names)}; its fields are {', '.join(map(str, record))}.")


def _number(record: Mapping[str, Any], name: str, *names: str) -> float:
    value = _field(record, name, *names)
    try:
        return float(value)
    except (TypeError, ValueError):
        raise RegionError(f"{name}: {' or '.join(names)} is {value!r}, not a number.") from None


def _floats(value: Any, name: str, field: str) -> np.ndarray:
    """An array, or base64 text of little-endian float32."""
    try:
        if isinstance(value, np.ndarray):
            return value.astype(np.float32)
        return np.frombuffer(base64.b64decode(value, validate=True), dtype="<f4").copy()
    except (binascii.Error, TypeError, ValueError) as error:
        raise RegionError(f"{name}: {field} is neither an array nor base64 of float32 ({error}).") from None


def _rows(values: np.ndarray, boxes: int, name: str, field: str) -> np.ndarray:
    """One row for each box; flat values are divided equally."""
    if values.ndim == 1 and boxes and values.size and values.size % boxes == 0:
        return values.reshape(boxes, -1)
    if values.ndim == 2 and len(values) == boxes and values.size:
        return values
    shape = " x ".join(map(str, values.shape))
    raise RegionError(f"{name}: {field} has the shape {shape}, which does not give a row for each of {boxes} boxes.")


def _classes_of(regions: Regions) -> int:
    return 0 if regions.classes is None else regions.classes.shape[1]


def _open_lmdb(path: Path) -> tuple[list[str], Callable[[str], Any]]:
    try:
        import lmdb
    except ImportError:
        raise RegionError(f"{path}: {INSTALL}") from None
    try:
        database = lmdb.open(str(path), subdir=path.is_dir(), readonly=True, lock=False, readahead=False)
    except lmdb.Error as error:
        raise RegionError(f"{path}: cannot be opened as an LMDB ({error}).") from None

    def get(key: bytes) -> bytes | None:
        with database.begin(buffers=False) as transaction:
            return transaction.get(key)

    listed = get(b"keys")
    if listed is None:
        raise RegionError(f"{path}: an LMDB without the key 'keys', which must list its images.")
    keys = read_pickle(listed, f"{path}, keys")
    if not isinstance(keys, list | tuple | np.ndarray):
        raise RegionError(f"{path}: its 'keys' is a {type(keys).__name__}, not a list of images.")
    names = [key.decode() if isinstance(key, bytes) else str(key) for key in keys]

    def read(name: str) -> Any:
        record = get(name.encode())
        if record is None:
            raise RegionError(f"{path}: its keys list image {name}, but it has no record for it.")
        return read_pickle(record, f"{path}, image {name}")

    return names, read
