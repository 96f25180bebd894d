"""The parts of the forward pass that depend only on the text; they are computed once and kept.

With gated cross-attention, two parts are independent of the media:

* the tokens before the first medium, in every layer: no gated block changes them, and later tokens need only their keys
  and values;
* all tokens, in the layers below the first gated block.

So a question about a thousand images is read once. For each image, only the few tokens after it remain, in the layers
from the first gate up.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
from jaxtyping import Float, Int
from torch import Tensor
from torch.nn.utils.rnn import pad_sequence
from transformers import DynamicCache

from vislang.models.towers.causal_lm import CausalLM, positions_of

LayerKeysValues = list[tuple[Tensor, Tensor]]
"""Keys and values, each (heads, tokens, head width), of consecutive layers."""


@dataclass
class TextState:
    """The states of a text that the rest of the forward pass needs.

    Attributes:
        gate_inputs: hidden states at the first gate, of the tokens from the first medium on.
        upper: keys and values of the tokens before the first medium, in the layers from the first gate up; empty if
            there are no such tokens.
        lower: keys and values of all tokens in the layers below the first gate. Only texts that will be continued
            need them; otherwise None.
        prefix: number of tokens before the first medium.
    """

    gate_inputs: Float[Tensor, "suffix width"]
    upper: LayerKeysValues
    lower: LayerKeysValues | None
    prefix: int

    def size(self) -> int:
        """Size in bytes."""
        pairs = self.upper + (self.lower or [])
        return self.gate_inputs.nbytes + sum(keys.nbytes + values.nbytes for keys, values in pairs)


class FrozenText:
    """Computes the states of texts, and keeps those of texts that :meth:`keep` was called with.

    Other texts are not kept as they come: the last bits of a hidden state can depend on the other rows of its batch,
    and a resumed run must compute the same bits.

    Args:
        lm: the frozen language model.
        first_gate: index of the lowest layer with a gated block before it.
        budget: greatest number of bytes to keep.
    """

    def __init__(self, lm: CausalLM, first_gate: int, budget: int = 2 * 1024**3):
        self._lm = lm
        self._first_gate = first_gate
        self._budget = budget
        self._held = 0
        self._kept: dict[tuple, TextState] = {}
        # The lengths of the keys of texts that can be continued.
        self._continuable_lengths: set[int] = set()

    def keep(
        self,
        embeddings: Float[Tensor, "batch tokens embed_width"],
        input_ids: Int[Tensor, "batch tokens"],
        attention_mask: Int[Tensor, "batch tokens"],
        prefix: int,
        to_continue: bool,
    ) -> None:
        """Compute and keep the states of a batch's rows, within the budget.

        A row that begins with a kept text that can be continued, such as a question before its answer, is computed from
        there on. Texts that will be continued themselves are computed whole. They are by far the largest, and take at
        most half of the budget.
        """
        keys, spans = _keys(input_ids, attention_mask, prefix)
        begun = {} if to_continue else {row: text for row, key in enumerate(keys) if (text := self._beginning(key))}
        computed: dict[int, TextState] = {}
        if begun:
            texts = [embeddings[row, start : start + length] for row in begun for start, _, length in [spans[row]]]
            computed |= zip(begun, self._continued(list(begun.values()), texts), strict=True)
        if whole := [row for row in range(len(keys)) if row not in begun]:
            own_spans = [spans[row] for row in whole]
            states = self._states_of(embeddings[whole], attention_mask[whole], prefix, own_spans, to_continue)
            computed |= zip(whole, states, strict=True)
        budget = self._budget // 2 if to_continue else self._budget
        for row, key in enumerate(keys):
            if key not in self._kept and self._held + computed[row].size() <= budget:
                self._kept[key] = computed[row]
                self._held += computed[row].size()
                if to_continue:
                    self._continuable_lengths.add(len(key))

    def _beginning(self, key: tuple) -> TextState | None:
        """The longest kept text that a text begins with, if it is shorter and its lower layers are known."""
        for length in sorted(self._continuable_lengths, reverse=True):
            if length < len(key) and (text := self._kept.get(key[:length])) is not None and text.lower:
                return text
        return None

    @torch.no_grad()
    def _continued(self, beginnings: Sequence[TextState], texts: Sequence[Float[Tensor, "..."]]) -> list[TextState]:
        """The states of embedded texts (tokens, embed_width) whose beginnings are known."""
        known = [text.prefix + len(text.gate_inputs) for text in beginnings]
        rest = [text[count:] for text, count in zip(texts, known, strict=True)]
        columns = max(known)
        new = pad_sequence(rest, batch_first=True)
        mask = torch.zeros(len(rest), columns + new.shape[1], dtype=torch.long, device=new.device)
        for row, count, own in zip(mask, known, rest, strict=True):
            row[columns - count : columns + len(own)] = 1
        # Padded on the left, so that new tokens directly follow the known ones.
        lower = _stack([text.lower or [] for text in beginnings], [columns - count for count in known], columns)
        cache = DynamicCache()
        for layer, (keys, values) in enumerate(lower):
            cache.update(keys, values, layer)
        found = self._lm(new, mask, positions_of(mask)[:, columns:], cache=cache, stop=self._first_gate)
        return [
            TextState(torch.cat([text.gate_inputs, states[: len(own)]]), text.upper, lower=None, prefix=text.prefix)
            for text, states, own in zip(beginnings, found, rest, strict=True)
        ]

    def states(
        self,
        embeddings: Float[Tensor, "batch tokens embed_width"],
        input_ids: Int[Tensor, "batch tokens"],
        attention_mask: Int[Tensor, "batch tokens"],
        prefix: int,
        to_continue: bool = False,
    ) -> list[TextState]:
        """The state of each row of a batch, computed unless it was kept.

        Args:
            embeddings: the embedded tokens, including media tokens.
            input_ids: the same tokens; they are the key of a text.
            attention_mask: 1 for real tokens. Padding is left of the prefix and right of the suffix.
            prefix: number of columns before the first medium of any row.
            to_continue: whether the texts will be continued, which needs ``lower``.
        """
        keys, spans = _keys(input_ids, attention_mask, prefix)
        found = {
            key: text
            for key in keys
            if (text := self._kept.get(key)) is not None and (text.lower is not None or not to_continue)
        }
        new = {key: row for row, key in enumerate(keys) if key not in found}
        if new:
            rows = list(new.values())
            computed = self._states_of(
                embeddings[rows], attention_mask[rows], prefix, [spans[row] for row in rows], to_continue
            )
            found.update(zip(new, computed, strict=True))
        return [found[key] for key in keys]

    @torch.no_grad()
    def _states_of(
        self,
        embeddings: Tensor,
        attention_mask: Tensor,
        prefix: int,
        spans: Sequence[tuple[int, int, int]],
        to_continue: bool,
    ) -> list[TextState]:
        gate = self._first_gate
        positions = positions_of(attention_mask)
        lower = DynamicCache()
        gate_inputs = self._lm(embeddings, attention_mask, positions, cache=lower, stop=gate)
        upper = DynamicCache()
        if prefix:
            self._lm(
                embeddings[:, :prefix],
                attention_mask[:, :prefix],
                positions[:, :prefix],
                cache=upper,
                start=(gate, gate_inputs[:, :prefix]),
            )
        texts = []
        for row, (start, before, length) in enumerate(spans):
            whole, head = slice(start, start + length), slice(start, start + before)
            texts.append(
                TextState(
                    gate_inputs=gate_inputs[row, prefix : start + length].clone(),
                    # Must not depend on the other rows of the batch: a kept text is used beside other texts later.
                    upper=_columns(upper.layers[gate:], row, head) if before else [],
                    lower=_columns(lower.layers[:gate], row, whole) if to_continue else None,
                    prefix=before,
                )
            )
        return texts


def _columns(layers: Sequence[Any], row: int, columns: slice) -> LayerKeysValues:
    """Copies of some columns of a row of a cache."""
    return [(layer.keys[row, :, columns].clone(), layer.values[row, :, columns].clone()) for layer in layers]


def _keys(
    input_ids: Int[Tensor, "batch tokens"], attention_mask: Int[Tensor, "batch tokens"], prefix: int
) -> tuple[list[tuple], list[tuple[int, int, int]]]:
    """A key for each row, and its span: (first column, tokens in the prefix, tokens)."""
    before = attention_mask[:, :prefix].sum(dim=-1).tolist()
    lengths = attention_mask.sum(dim=-1).tolist()
    keys, spans = [], []
    for row, head, length in zip(input_ids.tolist(), before, lengths, strict=True):
        start = prefix - head
        keys.append((head, *row[start : start + length]))
        spans.append((start, head, length))
    return keys, spans


def stack_gate_inputs(texts: Sequence[TextState], suffix: int) -> Float[Tensor, "batch suffix width"]:
    """The hidden states of several texts at the first gate, padded on the right."""
    first = texts[0].gate_inputs
    stacked = first.new_zeros(len(texts), suffix, first.shape[-1])
    for row, text in zip(stacked, texts, strict=True):
        row[: len(text.gate_inputs)] = text.gate_inputs
    return stacked


def upper_cache(texts: Sequence[TextState], prefix: int, gate: int) -> DynamicCache:
    """A cache with the prefixes of several texts, padded on the left, for the layers from ``gate`` up.

    The layers below have the same number of empty columns, because a cache takes its length from its lowest layer.
    """
    cache = DynamicCache()
    if prefix == 0:
        return cache
    empty = texts[0].gate_inputs.new_zeros(len(texts), 1, prefix, 1)
    for index in range(gate):
        cache.update(empty, empty, index)
    for index, (keys, values) in enumerate(_stack([text.upper for text in texts], _starts(texts, prefix), prefix)):
        cache.update(keys, values, gate + index)
    return cache


def add_lower(cache: DynamicCache, texts: Sequence[TextState], prefix: int, columns: int) -> None:
    """Fill the lower layers of a cache whose upper layers already hold the texts, ``columns`` wide."""
    stacked = _stack([text.lower or [] for text in texts], _starts(texts, prefix), columns)
    for layer, (keys, values) in zip(cache.layers, stacked, strict=False):
        layer.lazy_initialization(keys, values)
        layer.keys, layer.values = keys, values


def _starts(texts: Sequence[TextState], prefix: int) -> list[int]:
    return [prefix - text.prefix for text in texts]


def _stack(rows: Sequence[LayerKeysValues], starts: Sequence[int], columns: int) -> LayerKeysValues:
    """Stack the keys and values of several rows, layer by layer; each row starts at its own column, the rest is zeros.

    A row without keys and values (a text without a prefix) is all zeros.
    """
    stacked: LayerKeysValues = []
    for first in next((row for row in rows if row), []):
        heads, _, width = first[0].shape
        keys = first[0].new_zeros(len(rows), heads, columns, width)
        stacked.append((keys, first[1].new_zeros(len(rows), heads, columns, first[1].shape[-1])))
    for row, (layers, start) in enumerate(zip(rows, starts, strict=True)):
        for (keys, values), (own_keys, own_values) in zip(stacked, layers, strict=False):
            keys[row, :, start : start + own_keys.shape[1]] = own_keys
            values[row, :, start : start + own_values.shape[1]] = own_values
    return stacked
