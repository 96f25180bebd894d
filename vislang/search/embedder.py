"""What makes the vectors of an index: a saved model that embeds, or a vision tower."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import nn

from vislang.capabilities import Caches, Embeds, Matches
from vislang.document import Document, Image
from vislang.errors import UserError
from vislang.example import Example
from vislang.models.base import fingerprint, must_be_numbers
from vislang.models.loading import ModelNotFound, identity, is_saved_model, load
from vislang.models.towers.packaged import TowerError
from vislang.models.towers.vision import load_vision_tower


@dataclass
class Embedder:
    """Computes vectors of length 1 of images and, if the model compares images with texts, of texts.

    Attributes:
        source: folder, packaged name or Hub id that the model was opened from.
        kind: the class of the model, for messages.
        fingerprint: SHA-256 of what the vectors depend on: the weights of the model and of its towers.
        model: a model that embeds, or a vision tower, whose mean feature is the vector.
    """

    source: str
    kind: str
    fingerprint: str
    model: Any

    @property
    def name(self) -> str:
        """The model in messages."""
        return f"{self.source} ({self.kind}, hash {self.fingerprint[:12]})"

    @property
    def reads_texts(self) -> bool:
        """Whether vectors of texts can be compared with those of images."""
        return isinstance(self.model, Embeds) and isinstance(self.model, Matches)

    def images(self, images: Sequence[Image]) -> np.ndarray:
        """(images, width) float32, each of length 1.

        Raises:
            MediaError: an image cannot be read.
            UserError: the model's output is not a number.
        """
        if isinstance(self.model, nn.Module) and not isinstance(self.model, Embeds):
            return self._unit(self._mean_features(images))
        documents = [Document([image], name=image.name) for image in images]
        if isinstance(self.model, Caches):
            # A large collection must not fill the disk with features that are used once.
            self.model.keep_in_memory(len(images))
            self.model.prepare([Example(document.name, document) for document in documents])  # type: ignore[attr-defined]
        return self._unit(self.model.embed(documents, len(documents)))

    def text(self, text: str) -> np.ndarray:
        """(width,) float32 of length 1.

        Raises:
            UserError: the model does not compare images with texts.
        """
        if not self.reads_texts:
            raise UserError(
                f"{self.name} has no vectors of texts that can be compared with those of images. Search with --image, "
                "or index the folder with a dual encoder (--model)."
            )
        (vector,) = self._unit(self.model.embed([Document([text], name="the search text")]))
        return vector

    @torch.inference_mode()
    def _mean_features(self, images: Sequence[Image]) -> torch.Tensor:
        pixels = torch.stack([self.model.preprocess(image.decode()) for image in images])
        device = next(self.model.parameters()).device
        return self.model(pixels.to(device)).mean(dim=1)

    def _unit(self, vectors: torch.Tensor) -> np.ndarray:
        must_be_numbers(vectors, self.source)
        return nn.functional.normalize(vectors.float(), dim=-1).cpu().numpy()


def open_embedder(source: str, device: torch.device | str | None = None) -> Embedder:
    """Open a model that gives vectors of images.

    Args:
        source: folder of a saved model, or a vision tower: the folder of an encoder in transformers' format, a packaged
            name or a Hub id.
        device: where it runs.

    Raises:
        UserError: there is no such model, or it gives no vectors.
    """
    if Path(source).is_dir() and is_saved_model(source):
        return _saved(source, device)
    try:
        tower = load_vision_tower(source)
    except TowerError as error:
        if Path(source).exists():
            raise
        try:
            return _saved(source, device)
        except ModelNotFound:
            raise error from None
    mark = f"{tower.fingerprint} {tower.image_size}"
    # A relative path means nothing in another folder.
    name = str(Path(source).resolve()) if Path(source).is_dir() else source
    found = tower if device is None else tower.to(device)
    return Embedder(name, "vision tower", hashlib.sha256(mark.encode()).hexdigest(), found.eval())


def _saved(source: str, device: torch.device | str | None) -> Embedder:
    model = load(source, device)
    if not isinstance(model, Embeds):
        raise UserError(f"{source}: a {type(model).__name__} gives no vectors. Give a dual encoder, for example.")
    known = identity(source)
    if known["weights_sha256"] is None:
        # A model of version 0.1.0.
        assert isinstance(model, nn.Module)
        known["weights_sha256"] = fingerprint(model.state_dict())
    mark = hashlib.sha256(json.dumps(known, sort_keys=True).encode()).hexdigest()
    name = str(Path(source).resolve()) if Path(source).is_dir() else source
    return Embedder(name, type(model).__name__, mark, model)
