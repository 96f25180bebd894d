"""The order of training examples: a pure function of a seed and of the position in the run.

Nothing of the order needs saving. A run that stops after n examples and is resumed asks for the examples from position
n on, and gets those that it would have had.
"""

from __future__ import annotations

import torch


class Shuffled:
    """The index of the example at each position of a run: all of them in a random order, then all in another.

    Args:
        size: number of examples, at least one.
        seed: of the order.
    """

    def __init__(self, size: int, seed: int):
        if size < 1:
            raise ValueError("no examples to shuffle.")
        self.size = size
        self.seed = seed
        self._epoch = -1
        self._order: list[int] = []

    def __getitem__(self, position: int) -> int:
        epoch, within = divmod(position, self.size)
        if epoch != self._epoch:
            generator = torch.Generator().manual_seed(self.seed * 1_000_003 + epoch)
            self._epoch, self._order = epoch, torch.randperm(self.size, generator=generator).tolist()
        return self._order[within]
