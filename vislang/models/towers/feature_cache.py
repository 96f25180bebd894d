"""A disk cache of tensors: features and regions of frozen towers, resampled waveforms."""

from __future__ import annotations

import os
import tempfile
from collections import OrderedDict
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING

import safetensors.torch
from safetensors import SafetensorError
from torch import Tensor

from vislang.cache import cache_folder, writing

if TYPE_CHECKING:
    from vislang.models.towers.vision import VisionTower


class FeatureCache:
    """Tensors by the content hash of the medium that they were computed from.

    Args:
        folder: a folder for each tower and image size, or for each sampling rate.
    """

    def __init__(self, folder: Path):
        self.folder = folder

    def __contains__(self, content_hash: str) -> bool:
        return self._path(content_hash).is_file()

    def get(self, content_hash: str) -> Tensor | None:
        """The features of a medium, or None if they are not in the cache. A damaged file is deleted."""
        known = self.get_named(content_hash)
        return None if known is None else known["features"]

    def put(self, content_hash: str, features: Tensor) -> None:
        """Store the features of a medium atomically."""
        self.put_named(content_hash, {"features": features})

    def get_named(self, content_hash: str) -> dict[str, Tensor] | None:
        """Like :meth:`get`, for several tensors by name."""
        path = self._path(content_hash)
        try:
            return safetensors.torch.load(path.read_bytes())
        except FileNotFoundError:
            return None
        except SafetensorError:
            path.unlink(missing_ok=True)
            return None

    def put_named(self, content_hash: str, tensors: Mapping[str, Tensor]) -> None:
        """Like :meth:`put`, for several tensors by name.

        Raises:
            UserError: the cache cannot be written.
        """
        path = self._path(content_hash)
        content = safetensors.torch.save({name: tensor.contiguous() for name, tensor in tensors.items()})
        with writing(self.folder):
            path.parent.mkdir(parents=True, exist_ok=True)
            handle, unfinished = tempfile.mkstemp(dir=path.parent, prefix=".unfinished-")
            try:
                with os.fdopen(handle, "wb") as file:
                    file.write(content)
                os.replace(unfinished, path)
            except BaseException:
                os.unlink(unfinished)
                raise

    def _path(self, content_hash: str) -> Path:
        return self.folder / content_hash[:2] / f"{content_hash}.safetensors"


def cache_of(tower: VisionTower, weights: str) -> FeatureCache:
    """The cache of a tower's features of images and videos.

    Args:
        tower: the tower.
        weights: hash of what the features depend on, such as its fingerprint.
    """
    folder = f"{weights[:32]}-{tower.image_size}{'-int8' if tower.quantized else ''}"
    return FeatureCache(cache_folder("features", folder))


class RecentFeatures:
    """The same in memory, for the media that were used last.

    Args:
        most: greatest number of media.
    """

    def __init__(self, most: int):
        self.most = most
        self._known: OrderedDict[str, Mapping[str, Tensor]] = OrderedDict()

    def __contains__(self, content_hash: str) -> bool:
        return content_hash in self._known

    def get_named(self, content_hash: str) -> Mapping[str, Tensor] | None:
        """See :meth:`FeatureCache.get_named`."""
        if content_hash in self._known:
            self._known.move_to_end(content_hash)
        return self._known.get(content_hash)

    def put_named(self, content_hash: str, tensors: Mapping[str, Tensor]) -> None:
        """See :meth:`FeatureCache.put_named`."""
        self._known[content_hash] = tensors
        self._known.move_to_end(content_hash)
        while len(self._known) > self.most:
            self._known.popitem(last=False)
