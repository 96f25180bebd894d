"""Recurrent networks that read sequences of different lengths in both directions."""

from __future__ import annotations

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor, nn

from vislang.nn.precision import at_least_float32


class Bidirectional(nn.Module):
    """Two recurrent layers, one of which reads each sequence from its end (Schuster and Paliwal 1997).

    Sequences are padded on the right. Each is turned around within its own length, so padding is read last in both
    directions and has no effect on what comes before; no lengths have to be known on the host.

    Args:
        kind: ``nn.GRU`` or ``nn.LSTM``.
        inputs: width of the inputs.
        width: width of the states of each direction.
    """

    def __init__(self, kind: type[nn.GRU] | type[nn.LSTM], inputs: int, width: int):
        super().__init__()
        self.ahead = kind(inputs, width, batch_first=True)
        self.back = kind(inputs, width, batch_first=True)

    def forward(
        self, x: Float[Tensor, "batch length inputs"], padding: Bool[Tensor, "batch length"] | None = None
    ) -> Float[Tensor, "batch length 2 width"]:
        """The states of both directions at each position; at padding they have no meaning."""
        # In half precision, sums over many steps lose too much; the layers are small.
        with torch.autocast(x.device.type, enabled=False):
            x = at_least_float32(x)
            turned = _turned(x.shape[0], x.shape[1], padding, x.device)[..., None]
            ahead, _ = self.ahead(x)
            back, _ = self.back(x.gather(1, turned.expand_as(x)))
            return torch.stack([ahead, back.gather(1, turned.expand_as(back))], dim=2)


def _turned(
    batch: int, length: int, padding: Bool[Tensor, "batch length"] | None, device: torch.device
) -> Int[Tensor, "batch length"]:
    """For each position that of the same sequence read from its end; padding stays where it is."""
    positions = torch.arange(length, device=device).expand(batch, length)
    if padding is None:
        return length - 1 - positions
    last = (~padding).sum(dim=1, keepdim=True) - 1
    return torch.where(padding, positions, last - positions)


def at_last(
    states: Float[Tensor, "batch length width"], padding: Bool[Tensor, "batch length"] | None = None
) -> Float[Tensor, "batch width"]:
    """The states at the last position of each sequence that is not padding."""
    if padding is None:
        return states[:, -1]
    last = (~padding).sum(dim=1) - 1
    return states[torch.arange(len(states), device=states.device), last]
