"""A bridge without repeated work: losses for training, decode states for generation.

:class:`Runner` computes what :class:`~vislang.models.flamingo.bridge.Bridge` defines. Whatever depends only on the text
is cached (:mod:`vislang.models.flamingo.frozen_text`), nothing below the first gate is differentiated, vocabulary
logits are computed only where there is a target, and a prompt is read once for any number of continuations.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Any

import torch
import torch.nn.functional as F
from jaxtyping import Float, Int
from torch import Tensor, nn
from transformers import DynamicCache

from vislang.models.base import must_be_numbers
from vislang.models.flamingo.bridge import Bridge
from vislang.models.flamingo.collate import IGNORED, Batch
from vislang.models.flamingo.frozen_text import FrozenText, TextState, add_lower, stack_gate_inputs, upper_cache
from vislang.models.flamingo.media import MediaKeysValues, stacked
from vislang.models.towers.causal_lm import Step
from vislang.nn.attention import kernel_for
from vislang.nn.precision import at_least_float32


@dataclass
class DecodeState:
    """Everything that the next token of several texts depends on.

    Attributes:
        cache: keys and values of every layer of the language model.
        ids: (rows, columns) the tokens that were read; 0 for padding.
        attention_mask: (rows, columns) 1 for real tokens, which are on the right.
        lengths: (rows,) number of real tokens.
        media: the media of each row.
        media_time: (rows,) the index of the next token's medium, counted from 1; 0 for no medium.
        hidden: (rows, 1, head width) the decoder's output at the last token of each row.
    """

    cache: DynamicCache
    ids: Int[Tensor, "rows columns"]
    attention_mask: Int[Tensor, "rows columns"]
    lengths: Int[Tensor, "..."]
    media: MediaKeysValues
    media_time: Int[Tensor, "..."]
    hidden: Float[Tensor, "rows 1 head_width"]

    def of(self, rows: Int[Tensor, "..."]) -> DecodeState:
        """A new state with the rows of these indices, which may repeat. This state is not changed."""
        chosen = DynamicCache()
        for index, layer in enumerate(self.cache.layers):
            chosen.update(layer.keys[rows], layer.values[rows], index)
        return DecodeState(
            chosen,
            self.ids[rows],
            self.attention_mask[rows],
            self.lengths[rows],
            self.media.of(rows),
            self.media_time[rows],
            self.hidden[rows],
        )

    def without_padding(self) -> DecodeState:
        """The same state without the columns that are padding in every row."""
        padding = self.ids.shape[1] - int(self.lengths.max())
        if padding == 0:
            return self
        real = slice(padding, None)
        return replace(
            self, cache=_columns(self.cache, real), ids=self.ids[:, real], attention_mask=self.attention_mask[:, real]
        )

    @property
    def nbytes(self) -> int:
        """Size in bytes of the keys and values."""
        layers = [(layer.keys, layer.values) for layer in self.cache.layers]
        return sum(keys.nbytes + values.nbytes for keys, values in (*layers, *self.media.by_layer.values()))


def joined(states: Sequence[DecodeState]) -> DecodeState:
    """One state with the rows of several, padded on the left."""
    columns = max(state.ids.shape[1] for state in states)
    padding = [columns - state.ids.shape[1] for state in states]
    cache = DynamicCache()
    for index, layers in enumerate(zip(*(state.cache.layers for state in states), strict=True)):
        keys, values = (
            torch.cat([F.pad(side, (0, 0, count, 0)) for side, count in zip(sides, padding, strict=True)])
            for sides in zip(*((layer.keys, layer.values) for layer in layers), strict=True)
        )
        cache.update(keys, values, index)
    ids, mask = (
        torch.cat([F.pad(side, (count, 0)) for side, count in zip(sides, padding, strict=True)])
        for sides in zip(*((state.ids, state.attention_mask) for state in states), strict=True)
    )
    return DecodeState(
        cache,
        ids,
        mask,
        torch.cat([state.lengths for state in states]),
        stacked([state.media for state in states]),
        torch.cat([state.media_time for state in states]),
        torch.cat([state.hidden for state in states]),
    )


class NextSteps:
    """The gated blocks for the tokens that continue a state, as steps that run before the language model's layers.

    The keys and values of each row's media are gathered once. They are gathered again only if a generated media token
    changes which medium a row attends to.

    Args:
        runner: the bridge's runner.
        state: the state that is continued.
        shared: number of neighbouring rows, such as the beams of a prompt, that share the same media.
    """

    def __init__(self, runner: Runner, state: DecodeState, shared: int = 1):
        self._runner = runner
        self._media_time = state.media_time
        self._steps = runner.steps_after(state, shared)

    def of(self, state: DecodeState) -> dict[int, Step]:
        """The steps for the next token of each row."""
        if not torch.equal(state.media_time, self._media_time):
            self._media_time, self._steps = state.media_time, self._runner.steps_after(state)
        return self._steps


class Runner:
    """Runs a bridge without computing anything twice.

    Args:
        bridge: the definition of what is computed.

    Attributes:
        recalls: whether texts are recalled in training. Otherwise all layers run once for every batch.
    """

    def __init__(self, bridge: Bridge):
        self.bridge = bridge
        self.lm = bridge.lm
        self.first_gate = bridge.gated_layers[0]
        self.frozen_text = FrozenText(bridge.lm, self.first_gate)
        self.recalls = True

    @property
    def texts_are_frozen(self) -> bool:
        """Whether the language model's states of text never change: neither it nor added tokens are trained."""
        return not self.bridge.config.train_added_tokens and not self.lm.trains

    # Training

    def losses(self, batch: Batch) -> dict[str, Float[Tensor, ""]]:
        """Mean cross-entropy over the targets, in nats; 0 without targets."""
        with kernel_for(batch.input_ids.shape[1], batch.input_ids.device, self.lm.dtype):
            log_likelihoods, _ = self.token_log_likelihoods(batch)
        return {"text": -log_likelihoods.sum() / max(1, len(log_likelihoods))}

    def token_log_likelihoods(self, batch: Batch) -> tuple[Tensor, Tensor]:
        """The log-probability of each target in nats, and the row of each target; both (targets,).

        Gradients are computed only for the tokens from the first medium on, in the layers from the first gate up; the
        rest does not depend on trained parameters.
        """
        if not (self.recalls and self.texts_are_frozen):
            hidden, targets = self.bridge.hidden_states(batch), batch.targets
        elif batch.segments is not None:
            hidden, targets = self._packed(batch), batch.targets
        else:
            hidden, targets = self._from_first_medium(batch)[0], batch.targets[:, batch.prefix :]
        labelled = targets != IGNORED
        logits = self.bridge.logits(hidden[labelled][None])[0]
        log_likelihoods = -F.cross_entropy(at_least_float32(logits), targets[labelled], reduction="none")
        return log_likelihoods, labelled.nonzero()[:, 0]

    @torch.no_grad()
    def gate_inputs(self, batch: Batch) -> dict[int, Float[Tensor, "batch width"]]:
        """The hidden states before each gated layer at the last token of each prompt."""
        found: dict[int, Tensor] = {}
        rows = torch.arange(len(batch.input_ids), device=batch.input_ids.device)
        last = batch.attention_mask[:, batch.prefix :].sum(dim=-1) - 1

        def keep(layer: int) -> Callable[..., None]:
            def hook(block: nn.Module, inputs: tuple[Any, ...]) -> None:
                found[layer] = inputs[0][rows, last].float()

            return hook

        layers = self.bridge.gated_layers
        hooks = [self.bridge.block(layer).register_forward_pre_hook(keep(layer)) for layer in layers]
        try:
            self._from_first_medium(batch)
        finally:
            for each in hooks:
                each.remove()
        return found

    def keep_texts(self, batch: Batch, to_continue: bool) -> None:
        """Compute the states of a batch's texts, and keep them for later batches.

        Nothing is kept while the embeddings of added tokens, or the language model, are trained: the states then change
        with every step.
        """
        if self.texts_are_frozen:
            embeddings = self.bridge.embed(batch.input_ids)
            self.frozen_text.keep(embeddings, batch.input_ids, batch.attention_mask, batch.prefix, to_continue)

    # Decoding

    @torch.inference_mode()
    def prefill(self, batch: Batch) -> DecodeState:
        """Read the texts of a batch; returns their decode state."""
        media = self.bridge.resample(batch)
        hidden, cache, texts = self._from_first_medium(batch, media, to_continue=True)
        add_lower(cache, texts, batch.prefix, batch.input_ids.shape[1])
        return self._state(batch, cache, batch.input_ids, batch.attention_mask, media, hidden, batch.prefix)

    @torch.inference_mode()
    def extend(self, state: DecodeState, batch: Batch) -> DecodeState:
        """Read more text after a state; returns the new decode state.

        Args:
            state: it has as many rows as the batch, or one row, which then precedes every row of the batch. It is not
                changed, so it can be continued several times.
            batch: the texts, padded on the right.
        """
        rows = torch.arange(len(batch.input_ids), device=batch.input_ids.device)
        before = state.of(rows if len(state.lengths) > 1 else torch.zeros_like(rows))
        media = before.media.followed_by(self.bridge.resample(batch))
        known = before.media.index.shape[1]
        # A token before the batch's first medium attends to the last medium of the state.
        media_time = torch.where(batch.media_time > 0, batch.media_time + known, before.media_time[:, None])
        batch = replace(batch, media_time=media_time)
        mask = torch.cat([before.attention_mask, batch.attention_mask], dim=1)
        hidden = self.lm(
            self.bridge.embed(batch.input_ids),
            mask,
            before.lengths[:, None] + batch.position_ids(),
            before=self.bridge.steps(media, media_time),
            cache=before.cache,
        )
        ids = torch.cat([before.ids, batch.input_ids], dim=1)
        return self._state(batch, before.cache, ids, mask, media, hidden, 0)

    def steps_after(self, state: DecodeState, shared: int = 1) -> dict[int, Step]:
        """The gated blocks for the tokens that continue each row; see :class:`NextSteps`."""
        rows = torch.arange(0, len(state.lengths), shared, device=state.lengths.device)
        times = state.media_time[rows]
        if self.bridge.config.attend_to == "latest":
            steps = self.bridge.steps(state.media.of(rows, times), times.clamp(max=1)[:, None])
        else:
            steps = self.bridge.steps(state.media.of(rows), times[:, None])
        return steps if shared == 1 else {layer: _for_groups(step, shared) for layer, step in steps.items()}

    @torch.inference_mode()
    def advance(self, state: DecodeState, tokens: Int[Tensor, "..."], steps: NextSteps) -> DecodeState:
        """Append one token (rows,) to each row; returns the new decode state. The cache of the old one grows.

        A language model with a media token in its vocabulary may generate that token, without a medium. From then on
        the row attends to its first medium, as in OpenFlamingo: its decoder counts the media tokens in the latest input
        that contained any, and that input is then the generated token alone.
        """
        state, hidden = self._read_more(state, tokens[:, None], torch.ones_like(tokens[:, None]), steps)
        return replace(state, hidden=hidden)

    @torch.inference_mode()
    def try_tokens(
        self,
        state: DecodeState,
        tokens: Int[Tensor, "rows new"],
        real: Int[Tensor, "rows new"],
        steps: NextSteps,
    ) -> tuple[DecodeState, Float[Tensor, "rows new head_width"]]:
        """Append several tokens to each row, of which :meth:`keep` then keeps some.

        Args:
            state: the state; its cache grows.
            tokens: the next token of each row, and tokens that may follow it; none of these is a media token.
            real: 1 for tokens, which are on the left.
            steps: see :class:`NextSteps`.

        Returns:
            A state for :meth:`keep`, and the decoder's output at each token.
        """
        return self._read_more(state, tokens, real, steps)

    def keep(
        self, state: DecodeState, hidden: Float[Tensor, "rows new head_width"], kept: Sequence[int]
    ) -> DecodeState:
        """The state after the first ``kept`` tokens of each row, of those that :meth:`try_tokens` appended."""
        new = hidden.shape[1]
        counts = torch.tensor(kept, device=hidden.device)
        mask = state.attention_mask.clone()
        mask[:, -new:] *= torch.arange(new, device=hidden.device) < counts[:, None]
        # Columns that no row keeps are cut off; moving the others costs a copy of the whole cache.
        columns = slice(mask.shape[1] - new + max(kept))
        cache, ids, mask = _padded_left(
            _columns(state.cache, columns), (state.ids * mask)[:, columns], mask[:, columns]
        )
        last = hidden[torch.arange(len(kept), device=hidden.device), counts - 1][:, None]
        state = replace(state, cache=cache, ids=ids, attention_mask=mask, lengths=mask.sum(dim=-1), hidden=last)
        return state.without_padding()

    def _read_more(
        self, state: DecodeState, tokens: Tensor, real: Tensor, steps: NextSteps
    ) -> tuple[DecodeState, Tensor]:
        """Append tokens to each row; returns the state, whose ``hidden`` is still the old one, and the new output."""
        written = tokens[:, 0] == self.bridge.media_token
        state = replace(state, media_time=torch.where(written, 1, state.media_time))
        mask = torch.cat([state.attention_mask, real], dim=1)
        positions = state.lengths[:, None] + torch.arange(tokens.shape[1], device=tokens.device)
        hidden = self.lm(self.bridge.embed(tokens), mask, positions, before=steps.of(state), cache=state.cache)
        ids = torch.cat([state.ids, tokens], dim=1)
        return replace(state, ids=ids, attention_mask=mask, lengths=mask.sum(dim=-1)), hidden

    def next_log_probabilities(
        self, hidden: Float[Tensor, "rows 1 head_width"], checked: bool = True
    ) -> Float[Tensor, "rows types"]:
        """The distribution of the next token, from the decoder's output at the last one.

        Raises:
            UserError: it is not a number, and ``checked``.
        """
        found = self.bridge.logits(hidden)[:, -1].float().log_softmax(dim=-1)
        if checked:
            must_be_numbers(found, "the next token")
        return found

    @torch.inference_mode()
    def log_likelihoods_after(
        self,
        state: DecodeState,
        rows: Int[Tensor, "..."],
        ids: Int[Tensor, "texts tokens"],
        mask: Int[Tensor, "texts tokens"],
    ) -> Float[Tensor, "..."]:
        """The log-likelihood, in nats, of several texts that continue rows of a state.

        Args:
            state: the state; it is not changed.
            rows: (texts,) the row that each text continues; texts of the same row are neighbours.
            ids: (texts, tokens) token ids.
            mask: (texts, tokens) 1 for real tokens, which are on the left.

        Raises:
            UserError: a log-likelihood is not finite.
        """
        distinct, of_text = rows.unique(return_inverse=True)
        first = self.next_log_probabilities(state.hidden[distinct])
        found = first[of_text].gather(1, ids[:, :1])[:, 0]
        if ids.shape[1] == 1:
            return found
        # If all rows have the same number of texts, the texts of a row can share its media.
        counts = rows.unique_consecutive(return_counts=True)[1]
        shared = int(counts[0]) if bool((counts == counts[0]).all()) else 1
        before = state.of(rows)
        hidden = self.lm(
            self.bridge.embed(ids[:, :-1]),
            torch.cat([before.attention_mask, mask[:, :-1]], dim=1),
            before.lengths[:, None] + torch.arange(ids.shape[1] - 1, device=ids.device),
            before=self.steps_after(before, shared),
            cache=before.cache,
        )
        real = mask[:, 1:].bool()
        log_probabilities = self.next_log_probabilities(hidden[real][:, None])
        chosen = log_probabilities.gather(1, ids[:, 1:][real][:, None])[:, 0]
        return found.index_add(0, real.nonzero()[:, 0], chosen)

    def _state(
        self,
        batch: Batch,
        cache: DynamicCache,
        ids: Int[Tensor, "rows columns"],
        mask: Int[Tensor, "rows columns"],
        media: MediaKeysValues,
        hidden: Float[Tensor, "rows suffix head_width"],
        prefix: int,
    ) -> DecodeState:
        """The decode state after a batch; ``hidden`` belongs to its columns from ``prefix`` on.

        Padding is moved to the left, so that the next token directly follows the last one. Language models that count
        columns (sliding windows, MPT's biases) need that.
        """
        rows = torch.arange(len(hidden), device=hidden.device)
        cache, ids, mask = _padded_left(cache, ids, mask)
        last = batch.attention_mask[:, prefix:].sum(dim=-1) - 1
        return DecodeState(
            cache,
            ids,
            mask,
            mask.sum(dim=-1),
            media,
            batch.media_time[rows, prefix + last],
            hidden[rows, last][:, None],
        )

    # Hidden states, computed with less than a full pass

    def _packed(self, batch: Batch) -> Float[Tensor, "batch tokens head_width"]:
        """The hidden states of packed rows, without gradients below the first gate."""
        self.lm.check_packing(batch.longest())
        embeddings = self.bridge.embed(batch.input_ids)
        mask, positions = batch.mask(embeddings.dtype), batch.position_ids()
        with torch.no_grad():
            gate_inputs = self.lm(embeddings, mask, positions, stop=self.first_gate)
        return self.lm(
            embeddings,
            mask,
            positions,
            before=self.bridge.steps(self.bridge.resample(batch), batch.media_time, batch.media_before),
            start=(self.first_gate, gate_inputs),
        )

    def _from_first_medium(
        self, batch: Batch, media: MediaKeysValues | None = None, to_continue: bool = False
    ) -> tuple[Float[Tensor, "batch suffix head_width"], DynamicCache, list[TextState]]:
        """The hidden states of the columns from the first medium on; what depends only on the text may be cached."""
        prefix = batch.prefix
        embeddings = self.bridge.embed(batch.input_ids)
        texts = self.frozen_text.states(embeddings, batch.input_ids, batch.attention_mask, prefix, to_continue)
        cache = upper_cache(texts, prefix, self.first_gate)
        hidden = self.lm(
            embeddings[:, prefix:],
            batch.attention_mask,
            batch.position_ids()[:, prefix:],
            before=self.bridge.steps(media or self.bridge.resample(batch), batch.media_time[:, prefix:]),
            cache=cache,
            start=(self.first_gate, stack_gate_inputs(texts, embeddings.shape[1] - prefix)),
        )
        return hidden, cache, texts


def _for_groups(step: Step, size: int) -> Step:
    """A step over rows of media, for hidden states of which ``size`` neighbouring rows share a row of media.

    The tokens of a group become the queries of one row, so the media are not repeated.
    """

    def grouped(hidden: Tensor) -> Tensor:
        tokens = hidden.shape[1]
        return step(hidden.unflatten(0, (-1, size)).flatten(1, 2)).unflatten(1, (size, tokens)).flatten(0, 1)

    return grouped


def _columns(cache: DynamicCache, columns: slice) -> DynamicCache:
    """A cache with some of the columns of each row."""
    chosen = DynamicCache()
    for index, layer in enumerate(cache.layers):
        chosen.update(layer.keys[:, :, columns], layer.values[:, :, columns], index)
    return chosen


def _padded_left(
    cache: DynamicCache, ids: Int[Tensor, "rows columns"], mask: Int[Tensor, "rows columns"]
) -> tuple[DynamicCache, Int[Tensor, "rows columns"], Int[Tensor, "rows columns"]]:
    """A cache, its tokens and its mask, with all padding moved to the left."""
    if not bool((mask.diff(dim=1) < 0).any()):
        return cache, ids, mask
    order = mask.argsort(dim=1, stable=True)
    moved = DynamicCache()
    for index, layer in enumerate(cache.layers):
        columns = order[:, None, :, None]
        keys, values = (
            side.gather(2, columns.expand(-1, side.shape[1], -1, side.shape[3])) for side in (layer.keys, layer.values)
        )
        moved.update(keys, values, index)
    return moved, ids.gather(1, order), mask.gather(1, order)
