"""Mean features of a tower that was trained on ImageNet's labels, a baseline for images."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch

from vislang.document import Image
from vislang.models.towers.packaged import EFFICIENTNET_LITE0
from vislang.models.towers.vision import load_vision_tower

BATCH = 64


@torch.inference_mode()
def mean_features(images: Sequence[Image]) -> np.ndarray:
    """(images, width): the mean over positions of EfficientNet-Lite0's features at 128 px."""
    tower = load_vision_tower(EFFICIENTNET_LITE0, 128)
    made = []
    for start in range(0, len(images), BATCH):
        pixels = torch.stack([tower.preprocess(image.decode()) for image in images[start : start + BATCH]])
        made.append(tower(pixels).mean(dim=1))
    return torch.cat(made).numpy()
