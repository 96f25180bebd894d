"""The image encoder of a dual encoder as a vision tower. Flamingo's own vision encoder was also pretrained with a
contrastive loss (Alayrac et al. 2022, section 2.1)."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import torch
from jaxtyping import Float
from PIL import Image as Pillow
from torch import Tensor, nn

from vislang.models.base import fingerprint
from vislang.models.regions.readers import ComputedRegions, RegionReader
from vislang.models.regions.region import Regions
from vislang.models.regions.sources import GridRegions, grid_boxes
from vislang.models.towers.packaged import TowerError
from vislang.models.towers.vision import VisionTower
from vislang.nn.recompute import Recomputable


class DualEncoderTower(VisionTower):
    """A dual encoder's image blocks over the cells of a grid.

    Args:
        name: folder of the dual encoder.
        image: its image encoder.
        width: of that encoder's hidden states.
        regions: its source of regions, which must be a grid.
        image_size: the image size that it was trained with, or None.

    Raises:
        TowerError: the regions are not a grid, or ``image_size`` differs.
    """

    def __init__(self, name: str, image: nn.Module, width: int, regions: RegionReader, image_size: int | None = None):
        super().__init__()
        if not isinstance(regions, ComputedRegions) or not isinstance(regions.source, GridRegions):
            raise TowerError(
                f"vision tower {name!r}: its regions come from {regions.name}; only a grid can serve as a tower."
            )
        self.below = regions.source.tower
        if image_size not in (None, self.below.image_size):
            raise TowerError(
                f"image_size {image_size}: the dual encoder {name!r} was trained at {self.below.image_size} pixels. "
                "Leave image_size out."
            )
        self.image = image
        self._read: Callable[[Tensor, Tensor], Tensor] = image.read  # type: ignore[assignment]  # hidden states
        self.name, self.image_size = name, self.below.image_size
        self.width = width
        # The hash includes the tower that gives the features.
        below = torch.tensor(list(self.below.fingerprint.encode()), dtype=torch.uint8)
        self.fingerprint = fingerprint({**self.image.state_dict(), "below": below})
        self.requires_grad_(False).eval()

    def recompute_activations(self) -> None:
        """See :meth:`VisionTower.recompute_activations`."""
        self.below.recompute_activations()
        for module in self.image.modules():
            if isinstance(module, Recomputable):
                module.recompute = True

    def preprocess(self, image: Pillow.Image) -> Float[Tensor, "channels height width"]:
        """Preprocess an image for the tower that gives the features."""
        return self.below.preprocess(image)

    def forward(
        self, pixels: Float[Tensor, "images channels height width"]
    ) -> Float[Tensor, "images positions features_width"]:
        """The cells, row by row, without the whole image."""
        return self.over(self.below(pixels))

    def over(
        self, features: Float[Tensor, "images positions below"]
    ) -> Float[Tensor, "images positions features_width"]:
        """The same, from the features of the tower below."""
        whole = torch.cat([features.mean(dim=1, keepdim=True), features], dim=1)
        return self._read(whole, self._boxes(features))[:, 1:]

    def _boxes(self, features: Float[Tensor, "images positions below"]) -> Float[Tensor, "images regions 5"]:
        """The boxes of the whole image and the cells; they are the same for every image."""
        images, positions, _ = features.shape
        side = round(positions**0.5)
        unit = Regions(np.zeros((positions, 1), dtype=np.float32), grid_boxes(side, side, 1, 1), 1, 1)
        boxes = torch.from_numpy(unit.with_whole().locations()).to(features.device)
        return boxes.expand(images, -1, -1)
