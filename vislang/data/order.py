"""In which order training meets its examples: a pure function of a seed and of how many were met.

Nothing of the order needs saving. A run that stops after n examples and goes on later asks for the examples
from n on, and gets those that it would have met.
"""

from __future__ import annotations

from collections.abc import Iterator

import torch
from torch.utils.data import Sampler


class ShuffledForever(Sampler[int]):
    """Indices 0 to ``size`` - 1 in a new random order each epoch, without end.

    Args:
        size: number of examples, at least one.
        seed: of the order.
        start: number of examples met already.
    """

    def __init__(self, size: int, seed: int, start: int = 0):
        if size < 1:
            raise ValueError("no examples to shuffle.")
        self.size = size
        self.seed = seed
        self.start = start

    def __iter__(self) -> Iterator[int]:
        epoch, skip = divmod(self.start, self.size)
        while True:
            generator = torch.Generator().manual_seed(self.seed * 1_000_003 + epoch)
            yield from torch.randperm(self.size, generator=generator)[skip:].tolist()
            epoch, skip = epoch + 1, 0
