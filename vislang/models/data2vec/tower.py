"""The image encoder of a data2vec model as a vision tower: of a Flamingo, of regions for a ViLBERT, of a dual
encoder."""

from __future__ import annotations

import torch
from jaxtyping import Float
from PIL import Image as Pillow
from torch import Tensor

from vislang.models.base import fingerprint
from vislang.models.data2vec.encoder import Encoder
from vislang.models.data2vec.inputs import Inputs
from vislang.models.towers.packaged import TowerError
from vislang.models.towers.vision import VisionTower
from vislang.nn.recompute import Recomputable


class Data2VecTower(VisionTower):
    """The encoder's output for each patch.

    Args:
        name: folder of the data2vec model.
        encoder: the student's encoder, or that of a fine-tuned model.
        inputs: how its images are prepared.
        image_size: the size of its images, or None.

    Raises:
        TowerError: the model reads no images, or ``image_size`` differs.
    """

    def __init__(self, name: str, encoder: Encoder, inputs: Inputs, image_size: int | None = None):
        super().__init__()
        if inputs.image is None:
            raise TowerError(f"vision tower {name!r}: this data2vec model reads no images. Give one that does.")
        if image_size not in (None, inputs.image.size):
            raise TowerError(
                f"image_size {image_size}: the data2vec model {name!r} reads images of {inputs.image.size} pixels. "
                "Leave image_size out."
            )
        self.pixels = inputs.image
        self.encoder = encoder
        self.name, self.image_size, self.width = name, inputs.image.size, encoder.config.width
        # The same weights on differently scaled pixels are another tower.
        pixels = {"pixels.mean": torch.tensor(self.pixels.mean), "pixels.std": torch.tensor(self.pixels.std)}
        self.fingerprint = fingerprint({**encoder.state_dict(), **pixels})
        self.requires_grad_(False).eval()

    def recompute_activations(self) -> None:
        """See :meth:`VisionTower.recompute_activations`."""
        for module in self.encoder.modules():
            if isinstance(module, Recomputable):
                module.recompute = True

    def preprocess(self, image: Pillow.Image) -> Float[Tensor, "channels height width"]:
        """Resize the whole image to a square, without cropping, as other towers do: the grid covers the image."""
        side = (self.image_size, self.image_size)
        return self.pixels.tensor(image.resize(side, Pillow.Resampling.BICUBIC))

    def forward(
        self, pixels: Float[Tensor, "images channels height width"]
    ) -> Float[Tensor, "images positions features_width"]:
        """The encoder's output for each patch, row by row, without class tokens."""
        return self.encoder.features("image", pixels)
