"""Regions that were extracted before, in the formats of the original code.

* a folder of ``.npy`` files, one an image, as vilbert-multi-task's extraction writes them;
* an LMDB whose records hold arrays (vilbert-multi-task) or base64 text of float32 (vilbert_beta, and the
  bottom-up-attention files that it was made from).
"""

from __future__ import annotations

import base64
import binascii
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from vislang.capabilities import Progress
from vislang.document import Image
from vislang.pickles import read_array, read_pickle
from vislang.regions import RegionError, Regions

INSTALL = "LMDB files need lmdb. Run: pip install 'vislang[data]'"


class RegionFiles(Mapping[str, Regions]):
    """Image id -> its regions, checked when they are read.

    Args:
        path: a folder of ``.npy`` files, or an LMDB (a folder with ``data.mdb``, or a file).

    Attributes:
        width: of a feature.
        classes: over how many classes each region's distribution is; 0 where the files have none.

    Raises:
        RegionError: there is nothing of the kind at ``path``.
    """

    def __init__(self, path: Path | str):
        self.path = Path(path)
        if self.path.is_dir() and not (self.path / "data.mdb").is_file():
            files = {file.stem: file for file in sorted(self.path.glob("*.npy"))}
            if not files:
                raise RegionError(f"{path}: holds neither .npy files nor an LMDB (data.mdb).")
            self._names = list(files)
            self._read: Callable[[str], Any] = lambda name: read_array(files[name])
        elif self.path.exists():
            self._names, self._read = _open_lmdb(self.path)
        else:
            raise RegionError(f"{path}: no such file or folder. Give a folder of .npy files, or an LMDB.")
        self._known = frozenset(self._names)
        self.name, self.fingerprint = str(self.path), ""
        first = self[self._names[0]]
        self.width = first.features.shape[1]
        self.classes = 0 if first.classes is None else first.classes.shape[1]

    def __getitem__(self, name: str) -> Regions:
        """The regions of an image.

        Raises:
            KeyError: there is no such image.
            RegionError: its record cannot be used.
            PickleError: its record cannot be read.
        """
        if name not in self._known:
            raise KeyError(name)
        return regions_of(self._read(name), f"{self.path}, image {name}")

    def read(self, images: Sequence[Image]) -> list[Regions]:
        """The regions of images, by the names of their files without folder and ending; see RegionReader.

        Raises:
            RegionError: there is no record of an image, or it cannot be used, or it differs from the first in width.
        """
        found = []
        for image in images:
            name = Path(image.name).stem
            if name not in self._known:
                raise RegionError(f"{self.path}: holds no regions of {name} ({image.name}). Extract them first.")
            regions = self[name]
            if regions.features.shape[1] != self.width:
                raise RegionError(
                    f"{self.path}, image {name}: features of {regions.features.shape[1]} numbers, and those of "
                    f"{self._names[0]} have {self.width}. Extract all images with one detector."
                )
            found.append(regions)
        return found

    def prepare(self, images: Sequence[Image], progress: Progress | None = None) -> int:
        """Nothing to compute."""
        return 0

    def __iter__(self) -> Iterator[str]:
        return iter(self._names)

    def __len__(self) -> int:
        return len(self._names)


def regions_of(record: Any, name: str) -> Regions:
    """The regions in a record of either format.

    Args:
        record: a mapping, as it was pickled.
        name: of the file and the record, for messages.

    Raises:
        RegionError: a field is missing, or does not fit the others.
    """
    if not isinstance(record, Mapping):
        raise RegionError(f"{name}: is a {type(record).__name__}, not a record with fields.")
    boxes = _floats(_field(record, name, "bbox", "boxes"), name, "boxes").reshape(-1, 4)
    features = _floats(_field(record, name, "features"), name, "features")
    stated = int(_field(record, name, "num_boxes"))
    if len(boxes) < stated:
        raise RegionError(
            f"{name}: states {stated} boxes and holds {len(boxes)}. The file was cut off; extract it again."
        )
    if features.size % len(boxes) if len(boxes) else features.size:
        raise RegionError(f"{name}: {features.size} numbers of features do not divide among {len(boxes)} boxes.")
    classes = record.get("cls_prob")
    return Regions(
        features.reshape(len(boxes), -1)[:stated],
        boxes[:stated],
        float(_field(record, name, "image_width", "image_w")),
        float(_field(record, name, "image_height", "image_h")),
        None if classes is None else _floats(classes, name, "cls_prob").reshape(len(boxes), -1)[:stated],
    ).check(name)


def _field(record: Mapping[str, Any], name: str, *names: str) -> Any:
    for field in names:
        if field in record:
            return record[field]
    raise RegionError(f"{name}: has no {' or '.join(names)}; its fields are {', '.join(map(str, record))}.")


def _floats(value: Any, name: str, field: str) -> np.ndarray:
    """An array, or base64 text of float32 in the machine's usual order."""
    if isinstance(value, np.ndarray):
        return value.astype(np.float32)
    try:
        return np.frombuffer(base64.b64decode(value, validate=True), dtype="<f4").copy()
    except (binascii.Error, TypeError, ValueError) as error:
        raise RegionError(f"{name}: {field} are neither an array nor base64 of float32 ({error}).") from None


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
        raise RegionError(f"{path}: an LMDB without the key 'keys', which should list its images.")
    names = [key.decode() if isinstance(key, bytes) else str(key) for key in read_pickle(listed, f"{path}, keys")]

    def read(name: str) -> Any:
        record = get(name.encode())
        if record is None:
            raise RegionError(f"{path}: lists image {name} among its keys, and has no record of it.")
        return read_pickle(record, f"{path}, image {name}")

    return names, read
