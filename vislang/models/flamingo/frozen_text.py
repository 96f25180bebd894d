"""What a frozen language model makes of text before any medium can reach it: computed once, kept.

In a bridge with gated cross-attention two parts of the work depend on the text alone:

* the tokens before the first medium, in every layer: no gated block changes them, so the tokens after
  them need only their keys and values;
* all tokens, in the layers below the first gated block.

A question asked of a thousand images is therefore read once. What is left for each image is the few tokens
after it, in the layers above the first gate.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from jaxtyping import Float, Int
from torch import Tensor
from transformers import DynamicCache

from vislang.models.towers.causal_lm import FrozenCausalLM, positions_of

LayerKeysValues = list[tuple[Tensor, Tensor]]
"""Keys and values, each (heads, tokens, head width), of consecutive layers."""


@dataclass
class ReadText:
    """What one text leaves behind.

    Attributes:
        entering: hidden states that enter the first gated layer, of the tokens from the first medium on.
        above: keys and values of the tokens before the first medium in the layers from the first gate up.
        below: keys and values of all tokens in the layers below the first gate, which only a text that is to
            be continued needs; else None.
        before: number of tokens before the first medium.
    """

    entering: Float[Tensor, "suffix width"]
    above: LayerKeysValues
    below: LayerKeysValues | None
    before: int

    def size(self) -> int:
        """Bytes held."""
        pairs = self.above + (self.below or [])
        return self.entering.nbytes + sum(keys.nbytes + values.nbytes for keys, values in pairs)


class FrozenText:
    """Reads texts with the frozen language model, and keeps those that it is told to keep.

    What is kept is decided beforehand, not by what happens to come by: the last bits of a hidden state can
    depend on the other rows of its batch, and a run that is resumed must meet the same bits.

    Args:
        lm: the frozen language model.
        first_gate: index of the lowest layer with a gated block before it.
        budget: bytes to keep at most.
    """

    def __init__(self, lm: FrozenCausalLM, first_gate: int, budget: int = 2 * 1024**3):
        self._lm = lm
        self._first_gate = first_gate
        self._budget = budget
        self._held = 0
        self._kept: dict[tuple, ReadText] = {}

    def keep(
        self,
        embeddings: Float[Tensor, "batch tokens embed_width"],
        input_ids: Int[Tensor, "batch tokens"],
        attention_mask: Int[Tensor, "batch tokens"],
        prefix: int,
        to_continue: bool,
    ) -> None:
        """Read the rows of a batch and keep what they leave behind, as far as the budget goes."""
        keys, spans = _keys(input_ids, attention_mask, prefix)
        for key, text in zip(
            keys, self._read_rows(embeddings, attention_mask, prefix, spans, to_continue), strict=True
        ):
            if key not in self._kept and self._held + text.size() <= self._budget:
                self._kept[key] = text
                self._held += text.size()

    def read(
        self,
        embeddings: Float[Tensor, "batch tokens embed_width"],
        input_ids: Int[Tensor, "batch tokens"],
        attention_mask: Int[Tensor, "batch tokens"],
        prefix: int,
        to_continue: bool = False,
    ) -> list[ReadText]:
        """What each row of a batch leaves behind, recalled where it was kept.

        Args:
            embeddings: the embedded tokens, media tokens included.
            input_ids: the same tokens, by which a text is known again.
            attention_mask: 1 for real tokens. Padding stands left of the prefix and right of the suffix.
            prefix: number of columns before the first medium of any row.
            to_continue: whether tokens will be added to these texts, which takes ``below``.
        """
        keys, spans = _keys(input_ids, attention_mask, prefix)
        found = {
            key: text
            for key in keys
            if (text := self._kept.get(key)) is not None and (text.below is not None or not to_continue)
        }
        new = {key: row for row, key in enumerate(keys) if key not in found}
        if new:
            rows = list(new.values())
            read = self._read_rows(
                embeddings[rows], attention_mask[rows], prefix, [spans[row] for row in rows], to_continue
            )
            found.update(zip(new, read, strict=True))
        return [found[key] for key in keys]

    @torch.no_grad()
    def _read_rows(
        self,
        embeddings: Tensor,
        attention_mask: Tensor,
        prefix: int,
        spans: Sequence[tuple[int, int, int]],
        to_continue: bool,
    ) -> list[ReadText]:
        gate = self._first_gate
        positions = positions_of(attention_mask)
        lower = DynamicCache()
        entering = self._lm.run(embeddings, attention_mask, positions, cache=lower, leave=gate)
        upper = DynamicCache()
        if prefix:
            self._lm.run(
                embeddings[:, :prefix],
                attention_mask[:, :prefix],
                positions[:, :prefix],
                cache=upper,
                enter=(gate, entering[:, :prefix]),
            )
        texts = []
        for row, (start, before, length) in enumerate(spans):
            whole, head = slice(start, start + length), slice(start, start + before)
            texts.append(
                ReadText(
                    entering=entering[row, prefix : start + length].clone(),
                    above=[
                        (layer.keys[row, :, head].clone(), layer.values[row, :, head].clone())
                        for layer in upper.layers[gate:]
                    ],
                    below=[
                        (layer.keys[row, :, whole].clone(), layer.values[row, :, whole].clone())
                        for layer in lower.layers[:gate]
                    ]
                    if to_continue
                    else None,
                    before=before,
                )
            )
        return texts


def _keys(
    input_ids: Int[Tensor, "batch tokens"], attention_mask: Int[Tensor, "batch tokens"], prefix: int
) -> tuple[list[tuple], list[tuple[int, int, int]]]:
    """By what each row is known again, and where it lies: (first column, tokens in the prefix, tokens)."""
    before = attention_mask[:, :prefix].sum(dim=-1).tolist()
    lengths = attention_mask.sum(dim=-1).tolist()
    keys, spans = [], []
    for row, head, length in zip(input_ids.tolist(), before, lengths, strict=True):
        start = prefix - head
        keys.append((head, *row[start : start + length]))
        spans.append((start, head, length))
    return keys, spans


def stack_entering(texts: Sequence[ReadText], suffix: int) -> Float[Tensor, "batch suffix width"]:
    """The hidden states of several texts that enter the first gated layer, padded on the right."""
    first = texts[0].entering
    stacked = first.new_zeros(len(texts), suffix, first.shape[-1])
    for row, text in zip(stacked, texts, strict=True):
        row[: len(text.entering)] = text.entering
    return stacked


def cache_above(texts: Sequence[ReadText], prefix: int, gate: int) -> DynamicCache:
    """A cache with the prefixes of several texts, padded on the left, for the layers from ``gate`` up.

    The layers below hold as many empty columns: a cache tells its length by its lowest layer.
    """
    cache = DynamicCache()
    if prefix == 0:
        return cache
    hollow = texts[0].entering.new_zeros(len(texts), 1, prefix, 1)
    for index in range(gate):
        cache.update(hollow, hollow, index)
    starts = [prefix - text.before for text in texts]
    for index in range(len(texts[0].above)):
        keys, values = _stack([text.above[index] for text in texts], starts, prefix)
        cache.update(keys, values, gate + index)
    return cache


def add_below(cache: DynamicCache, texts: Sequence[ReadText], prefix: int, columns: int) -> None:
    """Give a cache whose upper layers hold whole texts, ``columns`` wide, the lower layers of the same."""
    starts = [prefix - text.before for text in texts]
    lower = [text.below for text in texts if text.below is not None]
    for index in range(len(lower[0])):
        layer = cache.layers[index]
        keys, values = _stack([below[index] for below in lower], starts, columns)
        layer.lazy_initialization(keys, values)
        layer.keys, layer.values = keys, values


def _stack(pairs: Sequence[tuple[Tensor, Tensor]], starts: Sequence[int], columns: int) -> tuple[Tensor, Tensor]:
    """Lay (heads, tokens, width) pairs side by side, each from its own column on, zeros elsewhere."""
    stacked = []
    for side in (0, 1):
        first = pairs[0][side]
        block = first.new_zeros(len(pairs), first.shape[0], columns, first.shape[-1])
        for row, pair, start in zip(block, pairs, starts, strict=True):
            row[:, start : start + pair[side].shape[-2]] = pair[side]
        stacked.append(block)
    return stacked[0], stacked[1]
