"""What features have in common, channel by channel: measured once, to be taken off them."""

from __future__ import annotations

import torch
from jaxtyping import Float
from torch import Tensor


@torch.no_grad()
def mean_and_deviation(
    features: Float[Tensor, "*items width"],
) -> tuple[Float[Tensor, "..."], Float[Tensor, "..."]]:
    """Mean and standard deviation of each channel.

    A channel that hardly ever moves gets a hundredth of the mean one: divided by its own, it would be noise.
    """
    flat = features.flatten(0, -2)
    deviation = flat.std(dim=0)
    return flat.mean(dim=0), deviation.clamp(min=1e-2 * float(deviation.mean()) + 1e-6)
