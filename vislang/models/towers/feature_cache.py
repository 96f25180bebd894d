"""What is computed once, on disk: features and regions by frozen towers, and waveforms at a model's rate."""

from __future__ import annotations

import os
import tempfile
from collections.abc import Mapping
from pathlib import Path

import safetensors.torch
from safetensors import SafetensorError
from torch import Tensor


class FeatureCache:
    """Tensors by the content of the medium that they were made from: features of one tower at one image size, say.

    Args:
        folder: where to keep them; a folder of its own for each tower and size, or for each rate.
    """

    def __init__(self, folder: Path):
        self.folder = folder

    def __contains__(self, content_hash: str) -> bool:
        return self._path(content_hash).is_file()

    def get(self, content_hash: str) -> Tensor | None:
        """What was made of a medium, or None where it is not known; a damaged file counts as unknown."""
        known = self.get_named(content_hash)
        return None if known is None else known["features"]

    def put(self, content_hash: str, features: Tensor) -> None:
        """Keep what was made of a medium; a reader sees the whole file or none."""
        self.put_named(content_hash, {"features": features})

    def get_named(self, content_hash: str) -> dict[str, Tensor] | None:
        """Like :meth:`get`, where several tensors were made of a medium."""
        path = self._path(content_hash)
        try:
            return safetensors.torch.load(path.read_bytes())
        except FileNotFoundError:
            return None
        except SafetensorError:
            path.unlink(missing_ok=True)
            return None

    def put_named(self, content_hash: str, tensors: Mapping[str, Tensor]) -> None:
        """Like :meth:`put`, for several tensors."""
        path = self._path(content_hash)
        path.parent.mkdir(parents=True, exist_ok=True)
        handle, unfinished = tempfile.mkstemp(dir=path.parent, prefix=".unfinished-")
        with os.fdopen(handle, "wb") as file:
            file.write(safetensors.torch.save({name: tensor.contiguous() for name, tensor in tensors.items()}))
        os.replace(unfinished, path)

    def _path(self, content_hash: str) -> Path:
        return self.folder / content_hash[:2] / f"{content_hash}.safetensors"
