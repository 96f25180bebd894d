"""Statistics of features, with which they are standardised."""

from __future__ import annotations

import torch
from jaxtyping import Float
from torch import Tensor


@torch.no_grad()
def mean_and_std(
    features: Float[Tensor, "*items width"],
) -> tuple[Float[Tensor, "..."], Float[Tensor, "..."]]:
    """Mean and standard deviation of each channel.

    The standard deviation of a nearly constant channel is raised to a hundredth of the mean one; divided by its own,
    the channel would be noise.
    """
    flat = features.flatten(0, -2)
    std = flat.std(dim=0)
    return flat.mean(dim=0), std.clamp(min=1e-2 * float(std.mean()) + 1e-6)
