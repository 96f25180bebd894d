"""A bridge without repeated work: losses for training, decode states for writing.

:class:`Runner` computes what :class:`~vislang.models.flamingo.bridge.Bridge` defines. What depends on text alone is
recalled (:mod:`vislang.models.flamingo.frozen_text`), nothing below the first gate is differentiated, vocabulary logits
are computed only where there is a target, and a prompt is read once for any number of continuations.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

import torch
import torch.nn.functional as F
from jaxtyping import Float, Int
from torch import Tensor
from transformers import DynamicCache

from vislang.errors import UserError
from vislang.models.flamingo.bridge import Bridge, MediaKeysValues
from vislang.models.flamingo.collate import IGNORED, Batch
from vislang.models.flamingo.frozen_text import FrozenText, TextState, add_lower, stack_gate_inputs, upper_cache
from vislang.models.towers.causal_lm import Step
from vislang.nn.attention import kernel_for


@dataclass
class DecodeState:
    """What the next token after some texts depends on.

    Attributes:
        cache: keys and values of every layer of the language model.
        attention_mask: (rows, columns) 1 for real tokens, which come last.
        lengths: (rows,) number of real tokens.
        media: of each row.
        media_time: (rows,) the medium that the next token goes with, counted from 1; 0 for none.
        hidden: (rows, 1, head width) the decoder's output at the last token of each row.
    """

    cache: DynamicCache
    attention_mask: Int[Tensor, "rows columns"]
    lengths: Int[Tensor, "..."]
    media: MediaKeysValues
    media_time: Int[Tensor, "..."]
    hidden: Float[Tensor, "rows 1 head_width"]

    def of(self, rows: Int[Tensor, "..."]) -> DecodeState:
        """Some of the rows, each as often as it is named; this state is not changed."""
        chosen = DynamicCache()
        for index, layer in enumerate(self.cache.layers):
            chosen.update(layer.keys[rows], layer.values[rows], index)
        return DecodeState(
            chosen,
            self.attention_mask[rows],
            self.lengths[rows],
            self.media.of(rows),
            self.media_time[rows],
            self.hidden[rows],
        )


class NextSteps:
    """The gated blocks for every token that continues a state, as steps before the language model's layers.

    The keys and values of each row's media are gathered once. They are gathered again only where a token that was
    written, the media token itself, changes which medium a row attends to.

    Args:
        runner: of the bridge.
        state: what is continued.
        shared: how many neighbouring rows share the same media, which are then not repeated.
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
    """

    def __init__(self, bridge: Bridge):
        self.bridge = bridge
        self.lm = bridge.lm
        self.first_gate = bridge.gated_layers[0]
        self.frozen_text = FrozenText(bridge.lm, self.first_gate)

    @property
    def texts_are_frozen(self) -> bool:
        """Whether what the language model computes of text alone never changes: nothing of it trains, and no added
        token."""
        return not self.bridge.config.train_added_tokens and not self.lm.trains

    # Training

    def losses(self, batch: Batch) -> dict[str, Float[Tensor, ""]]:
        """Mean cross-entropy over the targets, in nats; 0 where there are none."""
        with kernel_for(batch.input_ids.shape[1], batch.input_ids.device, self.lm.dtype):
            log_likelihoods, _ = self.token_log_likelihoods(batch)
        return {"text": -log_likelihoods.sum() / max(1, len(log_likelihoods))}

    def token_log_likelihoods(self, batch: Batch) -> tuple[Tensor, Tensor]:
        """Log-probability of each target, in nats, and its row, both (targets,).

        Gradients are computed only where something can change: for the tokens from the first medium on, from the first
        gated layer up.
        """
        if not self.texts_are_frozen:
            hidden, targets = self.bridge.hidden_states(batch), batch.targets
        elif batch.segments is not None:
            hidden, targets = self._packed(batch), batch.targets
        else:
            hidden, targets = self._from_first_medium(batch)[0], batch.targets[:, batch.prefix :]
        labelled = targets != IGNORED
        logits = self.bridge.logits(hidden[labelled][None])[0]
        log_likelihoods = -F.cross_entropy(logits.float(), targets[labelled], reduction="none")
        return log_likelihoods, labelled.nonzero()[:, 0]

    def keep_texts(self, batch: Batch, to_continue: bool) -> None:
        """Compute the states of the texts of a batch now, and keep them for all later batches.

        Nothing is kept while what they are computed with changes from step to step.
        """
        if self.texts_are_frozen:
            embeddings = self.bridge.embed(batch.input_ids)
            self.frozen_text.keep(embeddings, batch.input_ids, batch.attention_mask, batch.prefix, to_continue)

    # Decoding

    @torch.inference_mode()
    def prefill(self, batch: Batch) -> DecodeState:
        """The decode state after the texts of a batch."""
        media = self.bridge.resample(batch)
        hidden, cache, texts = self._from_first_medium(batch, media, to_continue=True)
        add_lower(cache, texts, batch.prefix, batch.input_ids.shape[1])
        return self._state(batch, cache, batch.attention_mask, media, hidden, batch.prefix)

    @torch.inference_mode()
    def extend(self, state: DecodeState, batch: Batch) -> DecodeState:
        """The decode state after more text: after a state of one row, which then precedes every row of the batch, or
        of as many rows as the batch has.

        The state that is given is not changed, so that it can be continued in other ways. The batch's columns are
        padded on the right.
        """
        rows = torch.arange(len(batch.input_ids), device=batch.input_ids.device)
        before = state.of(rows if len(state.lengths) > 1 else torch.zeros_like(rows))
        media = before.media.followed_by(self.bridge.resample(batch))
        known = before.media.index.shape[1]
        # A token without a medium of its own before it goes with the last one of the state.
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
        return self._state(batch, before.cache, mask, media, hidden, 0)

    def steps_after(self, state: DecodeState, shared: int = 1) -> dict[int, Step]:
        """The gated blocks for a token that continues each row; see :class:`NextSteps`."""
        rows = torch.arange(0, len(state.lengths), shared, device=state.lengths.device)
        times = state.media_time[rows]
        if self.bridge.config.attend_to == "latest":
            return self.bridge.steps(state.media.of(rows, times), times.clamp(max=1)[:, None])
        return self.bridge.steps(state.media.of(rows), times[:, None])

    @torch.inference_mode()
    def advance(self, state: DecodeState, tokens: Int[Tensor, "..."], steps: NextSteps) -> DecodeState:
        """The decode state after one more token (rows,) of each row. The state's cache grows.

        A language model that has a media token in its vocabulary may write it. No medium follows it. From there on the
        row attends to its first medium, as in OpenFlamingo: while it decodes, it counts the media tokens of the tokens
        that it was last given with any among them, and these are the ones just written.
        """
        written = tokens == self.bridge.media_token
        state = replace(state, media_time=torch.where(written, 1, state.media_time))
        mask = F.pad(state.attention_mask, (0, 1), value=1)
        hidden = self.lm(
            self.bridge.embed(tokens[:, None]), mask, state.lengths[:, None], before=steps.of(state), cache=state.cache
        )
        return replace(state, attention_mask=mask, lengths=state.lengths + 1, hidden=hidden)

    def next_log_probabilities(self, hidden: Float[Tensor, "rows 1 head_width"]) -> Float[Tensor, "rows types"]:
        """The distribution of the next token, by the decoder's output at the last one.

        Raises:
            UserError: it is not finite.
        """
        found = self.bridge.logits(hidden)[:, -1].float().log_softmax(dim=-1)
        if bool(found.isnan().any()):
            raise UserError(
                "the model's output is not a number (NaN): its weights, or those of a tower, are damaged. Copy them "
                "again, or train again."
            )
        return found

    @torch.inference_mode()
    def log_likelihoods_after(
        self,
        state: DecodeState,
        rows: Int[Tensor, "..."],
        ids: Int[Tensor, "texts tokens"],
        mask: Int[Tensor, "texts tokens"],
    ) -> Float[Tensor, "..."]:
        """How likely each of several texts is to follow a row of a state, in nats.

        Args:
            state: it is not changed.
            rows: (texts,) the row that each text follows; texts of the same row are neighbours.
            ids: (texts, tokens).
            mask: (texts, tokens), 1 for real tokens, which come first.

        Raises:
            UserError: a log-likelihood is not finite.
        """
        distinct, of_text = rows.unique(return_inverse=True)
        first = self.next_log_probabilities(state.hidden[distinct])
        found = first[of_text].gather(1, ids[:, :1])[:, 0]
        if ids.shape[1] == 1:
            return found
        # Texts of one row attend to the same media, which need not be repeated if each row has as many texts.
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
        mask: Int[Tensor, "rows columns"],
        media: MediaKeysValues,
        hidden: Float[Tensor, "rows suffix head_width"],
        prefix: int,
    ) -> DecodeState:
        """The state after the last tokens of a batch; ``hidden`` is of its columns from ``prefix`` on.

        Padding is moved to the front, so that the next token comes right after the last one, for language models that
        count columns (sliding windows, MPT's biases).
        """
        rows = torch.arange(len(hidden), device=hidden.device)
        if bool((mask.diff(dim=1) < 0).any()):
            order = mask.argsort(dim=1, stable=True)
            mask, cache = mask.gather(1, order), _in_order(cache, order)
        last = batch.attention_mask[:, prefix:].sum(dim=-1) - 1
        return DecodeState(
            cache,
            mask,
            mask.sum(dim=-1),
            media,
            batch.media_time[rows, prefix + last],
            hidden[rows, last][:, None],
        )

    # The decoder's output, with less than the whole pass

    def _packed(self, batch: Batch) -> Float[Tensor, "batch tokens head_width"]:
        """All columns of documents that share rows, without gradients below the first gate."""
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
        """The columns from the first medium on; what depends on text alone is recalled."""
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


def _in_order(cache: DynamicCache, order: Int[Tensor, "rows columns"]) -> DynamicCache:
    """The same keys and values, with the columns of each row in another order."""
    moved = DynamicCache()
    for index, layer in enumerate(cache.layers):
        columns = order[:, None, :, None]
        keys, values = (
            side.gather(2, columns.expand(-1, side.shape[1], -1, side.shape[3])) for side in (layer.keys, layer.values)
        )
        moved.update(keys, values, index)
    return moved
