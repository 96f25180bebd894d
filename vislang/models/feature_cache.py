"""Features of frozen towers on disk: an image is encoded once, by whichever run meets it first."""

from __future__ import annotations

import os
import tempfile
from pathlib import Path

import safetensors.torch
from jaxtyping import Float
from safetensors import SafetensorError
from torch import Tensor


class FeatureCache:
    """Features by the content of the image, for one tower at one image size.

    Args:
        folder: where to keep them; a folder of its own for each tower and size.
    """

    def __init__(self, folder: Path):
        self.folder = folder

    def __contains__(self, content_hash: str) -> bool:
        return self._path(content_hash).is_file()

    def get(self, content_hash: str) -> Float[Tensor, "positions width"] | None:
        """The features of an image, or None where they are not known; a damaged file counts as unknown."""
        path = self._path(content_hash)
        try:
            return safetensors.torch.load(path.read_bytes())["features"]
        except FileNotFoundError:
            return None
        except SafetensorError:
            path.unlink(missing_ok=True)
            return None

    def put(self, content_hash: str, features: Float[Tensor, "positions width"]) -> None:
        """Keep the features of an image; a reader sees the whole file or none."""
        path = self._path(content_hash)
        path.parent.mkdir(parents=True, exist_ok=True)
        handle, unfinished = tempfile.mkstemp(dir=path.parent, prefix=".unfinished-")
        with os.fdopen(handle, "wb") as file:
            file.write(safetensors.torch.save({"features": features.contiguous()}))
        os.replace(unfinished, path)

    def _path(self, content_hash: str) -> Path:
        return self.folder / content_hash[:2] / f"{content_hash}.safetensors"
