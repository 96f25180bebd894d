"""The order of training examples: a pure function of a seed and of the position in the run.

Nothing of the order needs saving. A run that stops after n examples and is resumed asks for the examples from position
n on, and gets those that it would have had.
"""

from __future__ import annotations

import random
from collections.abc import Sequence

import torch

Asked = tuple[str, str] | None
"""The question of an example and its answer; None for an example that asks nothing."""

LONG = 1 << 22
"""Up to this many examples the order is kept in memory (32 MiB); the order of more is computed index by index."""


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
        self._order: torch.Tensor | Permutation

    def __getitem__(self, position: int) -> int:
        epoch, within = divmod(position, self.size)
        if epoch != self._epoch:
            seed = self.seed * 1_000_003 + epoch
            if self.size > LONG:
                self._order = Permutation(self.size, seed)
            else:
                self._order = torch.randperm(self.size, generator=torch.Generator().manual_seed(seed))
            self._epoch = epoch
        return int(self._order[within])


class Complementary:
    """The index of the example at each position of a run, in complementary pairs (Goyal et al. 2017, section 3).

    Even positions have all examples in a random order, as in :class:`Shuffled`. The example after each has the same
    question and another answer, so the words of a question do not tell the answer. The other answer is drawn first, all
    with the same probability, and then one of its examples. Where there is no such example, the next one of another
    random order follows.

    Args:
        asked: the question and the answer of each example.
        seed: of the order.
    """

    def __init__(self, asked: Sequence[Asked], seed: int):
        self.seed = seed
        self._asked = asked
        self._first, self._alone = Shuffled(len(asked), seed), Shuffled(len(asked), seed + 1)
        self._by_answer: dict[str, dict[str, list[int]]] = {}
        for index, own in enumerate(asked):
            if own is not None:
                self._by_answer.setdefault(own[0], {}).setdefault(own[1], []).append(index)

    @property
    def pairs(self) -> int:
        """How many of the examples have a complement."""
        several = [by_answer for by_answer in self._by_answer.values() if len(by_answer) > 1]
        return sum(len(indices) for by_answer in several for indices in by_answer.values())

    def __getitem__(self, position: int) -> int:
        pair, second = divmod(position, 2)
        first = self._first[pair]
        own = self._asked[first]
        if not second:
            return first
        others = {} if own is None else {a: found for a, found in self._by_answer[own[0]].items() if a != own[1]}
        if not others:
            return self._alone[pair]
        rng = random.Random(f"{self.seed} {pair}")
        return rng.choice(others[rng.choice(list(others))])


class Permutation:
    """A pseudo-random permutation of ``range(size)`` that takes no memory.

    A Feistel network permutes all numbers of an even number of bits. A result outside the range is permuted again until
    it is inside (cycle walking; Black and Rogaway 2002, "Ciphers with Arbitrary Finite Domains").

    Args:
        size: at least one.
        seed: selects the permutation.
    """

    ROUNDS = 4

    def __init__(self, size: int, seed: int):
        self.size = size
        self.bits = max(1, ((size - 1).bit_length() + 1) // 2)
        self.mask = (1 << self.bits) - 1
        self.keys = [_mixed(_mixed(seed) + number) for number in range(self.ROUNDS)]

    def __getitem__(self, index: int) -> int:
        if not 0 <= index < self.size:
            raise IndexError(index)
        while True:
            left, right = index >> self.bits, index & self.mask
            for key in self.keys:
                left, right = right, left ^ (_mixed(right + key) & self.mask)
            index = left << self.bits | right
            if index < self.size:
                return index


def _mixed(number: int) -> int:
    """A 64-bit hash of a number (SplitMix64, Steele et al. 2014)."""
    number = (number + 0x9E3779B97F4A7C15) & 0xFFFFFFFFFFFFFFFF
    number = ((number ^ (number >> 30)) * 0xBF58476D1CE4E5B9) & 0xFFFFFFFFFFFFFFFF
    number = ((number ^ (number >> 27)) * 0x94D049BB133111EB) & 0xFFFFFFFFFFFFFFFF
    return number ^ (number >> 31)
