"""Flamingo's bridge: a frozen language model looks at media (Alayrac et al. 2022). Tensors in, tensors out.

Read from the top: the resampler turns the features of a medium into a few latents; a gated block lets text tokens look
at those latents, before a layer of the frozen language model; the bridge puts both around any causal language model.
Only resampler, gated blocks and, if wanted, the embeddings of two added tokens train. A vision tower, a tokenizer and
Documents are put around it in :mod:`vislang.models.flamingo.model`.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Literal

import torch
import torch.nn.functional as F
from jaxtyping import Bool, Float, Int
from torch import Tensor, nn
from transformers import DynamicCache

from vislang.errors import UserError
from vislang.models.flamingo.collate import IGNORED, Batch
from vislang.models.flamingo.frozen_text import FrozenText, ReadText, add_below, cache_above, stack_entering
from vislang.models.towers.causal_lm import FrozenCausalLM, Step
from vislang.nn.attention import CrossAttention, KeysValues, kernel_for, look_at_media
from vislang.nn.statistics import mean_and_deviation
from vislang.nn.transformer import FeedForward


class PerceiverResampler(nn.Module):
    """Features of a medium, however many, become a fixed number of latents (section 3.1.1, figure 5).

    Learned latents attend to the features and to themselves: keys and values come from both, laid end to end.
    Features are standardised first, channel by channel, by what :meth:`standardise` measured (nothing, at first):
    what all images share would otherwise drown what tells them apart.

    A video is several frames, told apart by a learned embedding each; an image is a video of one frame. Of more frames
    than have an embedding each gets one in between, by interpolation along time (appendix A.1.1).

    Args:
        features_width: width of the vision tower's features.
        width: width of the latents; features of another width are mapped to it first.
        latents: number of latents of a medium.
        depth: number of layers.
        heads, head_width: shape of the attention.
        expansion: inner width of the feed-forward, in widths.
        frames: number of time embeddings; 0 for images alone, which then get none.
    """

    features_mean: Tensor
    features_deviation: Tensor

    def __init__(
        self,
        features_width: int,
        width: int,
        latents: int = 64,
        depth: int = 6,
        heads: int = 8,
        head_width: int = 64,
        expansion: int = 4,
        frames: int = 0,
    ):
        super().__init__()
        self.register_buffer("features_mean", torch.zeros(features_width))
        self.register_buffer("features_deviation", torch.ones(features_width))
        self.project = nn.Identity() if features_width == width else _small_linear(features_width, width)
        # Louder than the features: at 0.02, like the latents, the order of frames was not learned (docs/flamingo.md).
        self.times = nn.Parameter(torch.randn(frames, width)) if frames else None
        # Small beside what they gather, so that images differ in the latents from the first step.
        self.latents = nn.Parameter(0.02 * torch.randn(latents, width))
        self.layers = nn.ModuleList(ResamplerLayer(width, heads, head_width, expansion) for _ in range(depth))
        self.norm = nn.LayerNorm(width)

    @torch.no_grad()
    def standardise(self, features: Float[Tensor, "media positions features_width"]) -> None:
        """Measure mean and deviation of each channel, over media and positions."""
        mean, deviation = mean_and_deviation(features)
        self.features_mean.copy_(mean)
        self.features_deviation.copy_(deviation)

    def forward(
        self,
        features: Float[Tensor, "media frames positions features_width"],
        frames: Int[Tensor, "..."] | None = None,
        weights: list[Tensor] | None = None,
    ) -> Float[Tensor, "media latents width"]:
        """Resample each medium.

        Args:
            features: of each frame; those of videos with fewer frames than others end in padding.
            frames: (media,) number of real frames of each; None where all are.
            weights: a list that receives each layer's attention over positions: (media, heads, latents, frames *
                positions), the share that latents give to each other left out.

        Raises:
            UserError: a video, and there are no time embeddings.
        """
        media, most, positions, _ = features.shape
        features = self.project((features - self.features_mean) / self.features_deviation)
        counts = [most] * media if frames is None else frames.tolist()
        if self.times is not None:
            times = torch.stack([F.pad(self._times(n), (0, 0, 0, most - n)) for n in counts])
            features = features + times[:, :, None].to(features.dtype)
        elif most > 1:
            raise UserError(
                "this bridge was built for images alone; set bridge.frames (8, say) and train it on videos."
            )
        mask = None
        if min(counts) < most:
            real = torch.arange(most, device=features.device) < frames[:, None]  # type: ignore[index]
            mask = F.pad(real.repeat_interleave(positions, dim=1), (0, len(self.latents)), value=True)[:, None]
        latents = self.latents.expand(media, -1, -1)
        for layer in self.layers:
            latents = layer(features.flatten(1, 2), latents, mask, weights)
        return self.norm(latents)

    def _times(self, frames: int) -> Float[Tensor, "frames width"]:
        """The embedding of each frame's time."""
        assert self.times is not None
        if frames <= len(self.times):
            return self.times[:frames]
        spread = F.interpolate(self.times.t()[None], size=frames, mode="linear", align_corners=True)
        return spread[0].t()


def _small_linear(width_in: int, width_out: int) -> nn.Linear:
    """A linear map that starts a tenth of the usual size: its output is normalised next, so that only the
    direction of its rows counts, and from a small start they turn ten times as fast."""
    linear = nn.Linear(width_in, width_out)
    with torch.no_grad():
        linear.weight.mul_(0.1)
        linear.bias.zero_()
    return linear


class ResamplerLayer(nn.Module):
    """Latents look at features and at each other, then a feed-forward; both with a residual connection."""

    def __init__(self, width: int, heads: int, head_width: int, expansion: int):
        super().__init__()
        self.norm_features = nn.LayerNorm(width)
        self.norm_latents = nn.LayerNorm(width)
        self.attention = CrossAttention(width, width, heads, head_width)
        self.feed_forward = FeedForward(width, expansion)

    def forward(
        self,
        features: Float[Tensor, "media positions width"],
        latents: Float[Tensor, "media latents width"],
        mask: Bool[Tensor, "media 1 positions_and_latents"] | None = None,
        weights: list[Tensor] | None = None,
    ) -> Float[Tensor, "media latents width"]:
        """One round of looking; ``mask`` hides the frames that are padding."""
        queries = self.norm_latents(latents)
        context = self.attention.keys_values(torch.cat([self.norm_features(features), queries], dim=1))
        if weights is not None:
            weights.append(self.attention.weights(queries, context, mask)[..., : features.shape[1]])
        latents = latents + self.attention(queries, context, mask)
        return latents + self.feed_forward(latents)


class GatedCrossAttentionBlock(nn.Module):
    """Text looks at media before a frozen layer, as much as two gates allow (section 3.1.2, figure 4).

    ``x + s tanh(a) * attend(x, media)``, then ``x + s tanh(f) * feed_forward(x)``. Both gates start at 0, so
    the language model starts out as it was.

    The scale s is ours (the paper has 1). A language model's hidden states grow from layer to layer, to a root
    mean square of 8 to 25 in the upper layers of SmolLM2-135M, where a fresh block puts out about 0.1: it would
    spend its training on growing loud enough to be heard. s lets it speak in the layer's own unit.

    Args:
        width: width of the language model.
        media_width: width of the latents.
        heads, head_width: shape of the attention.
        expansion: inner width of the feed-forward, in widths.
        scale: s, the root mean square of the hidden states that enter this layer.
    """

    def __init__(
        self,
        width: int,
        media_width: int,
        heads: int = 8,
        head_width: int = 64,
        expansion: int = 4,
        scale: float = 1.0,
    ):
        super().__init__()
        self.scale = scale
        self.norm = nn.LayerNorm(width)
        self.attention = CrossAttention(width, media_width, heads, head_width)
        self.attention_gate = nn.Parameter(torch.zeros(()))
        self.feed_forward = FeedForward(width, expansion)
        self.feed_forward_gate = nn.Parameter(torch.zeros(()))

    def forward(
        self,
        hidden: Float[Tensor, "batch tokens width"],
        media: KeysValues,
        mask: Bool[Tensor, "#batch #tokens row_latents"] | None,
    ) -> Float[Tensor, "batch tokens width"]:
        """Let each token look at the media that ``mask`` opens to it; without a mask, at all that are given."""
        attended = self.attention(self.norm(hidden), media, mask)
        hidden = hidden + self.scale * self.attention_gate.tanh() * attended
        return hidden + self.scale * self.feed_forward_gate.tanh() * self.feed_forward(hidden)


@dataclass
class FlamingoConfig:
    """Shape of the bridge. The defaults are OpenFlamingo's; the paper's 3B to 80B have 16 heads of 96.

    Attributes:
        gated_layers: indices of the language model's layers with a gated block before them; None places
            one before each layer i with (i + 1) % gate_every == 0.
        gate_every: see ``gated_layers``.
        latents: latents of a medium.
        resampler_width: width of the latents; None takes the vision tower's.
        resampler_depth: layers of the resampler.
        heads, head_width: shape of every attention, in the resampler and in the gated blocks.
        expansion: inner width of every feed-forward, in widths.
        scales: the unit that each gated block speaks in (see GatedCrossAttentionBlock), in the order of layers;
            None measures them on the language model, 1 for each is the paper's.
        gate_all_text: let the gated blocks' feed-forward act on text before the first medium too, as the paper
            does. Otherwise such text stays exactly what the language model makes of it, which is then computed
            once a text (see :mod:`vislang.models.flamingo.frozen_text`).
        train_added_tokens: train embeddings of the media token and of an end of chunks, two tokens beyond the
            language model's vocabulary; no other row of its embedding is touched. The layers below the first gate then
            depend on them and are computed, and differentiated, at every step. Otherwise the media token keeps its
            first embedding, and chunks end with the language model's own end of text.
        media_token: its id, where the language model's vocabulary has it already; None puts it beyond that.
        chunk_token: likewise, of the end of chunks; None takes the trained one, or else the end of text.
        look: at the latest medium alone, or at ``all`` that stand before a token.
        frames: time embeddings for videos; 0 for a model of images.
    """

    gated_layers: list[int] | None = None
    gate_every: int = 4
    latents: int = 64
    resampler_width: int | None = None
    resampler_depth: int = 6
    heads: int = 8
    head_width: int = 64
    expansion: int = 4
    scales: list[float] | None = None
    gate_all_text: bool = False
    train_added_tokens: bool = False
    media_token: int | None = None
    chunk_token: int | None = None
    look: Literal["latest", "all"] = "latest"
    frames: int = 0

    def __post_init__(self):
        for name in ("gate_every", "latents", "resampler_depth", "heads", "head_width", "expansion"):
            if getattr(self, name) < 1:
                raise ValueError(f"bridge.{name} is {getattr(self, name)}; it must be at least 1.")
        if self.resampler_width is not None and self.resampler_width < 1:
            raise ValueError(f"bridge.resampler_width is {self.resampler_width}; it must be at least 1.")
        if self.frames < 0:
            raise ValueError(f"bridge.frames is {self.frames}; it must not be negative.")


class MediaKeysValues:
    """Keys and values of the media of a batch for every gated layer, projected once.

    Args:
        by_layer: keys and values (media, heads, latents, head width) of each gated layer, each distinct medium once.
        index: (rows, row media) which medium; -1 for none.
    """

    def __init__(self, by_layer: dict[int, KeysValues], index: Int[Tensor, "rows row_media"]):
        self.by_layer = by_layer
        self.index = index
        self.latents = next(iter(by_layer.values())).keys.shape[2]

    def of_rows(self, layer: int) -> KeysValues:
        """(rows, heads, row media * latents, head width), the media of each row laid end to end."""
        rows = self.index.clamp(min=0)
        if torch.equal(rows.flatten(), torch.arange(len(self.by_layer[layer].keys), device=rows.device)):
            # Each medium stands once, in order: nothing has to be picked out, nor gradients to be gathered.
            whole = (side.unflatten(0, rows.shape) for side in self.by_layer[layer])
            return KeysValues(*(side.transpose(1, 2).flatten(2, 3) for side in whole))
        return KeysValues(*(side[rows].transpose(1, 2).flatten(2, 3) for side in self.by_layer[layer]))

    def present(self) -> Bool[Tensor, "rows row_latents"]:
        """Which latents are there."""
        return (self.index >= 0).repeat_interleave(self.latents, dim=1)

    def of(self, rows: Int[Tensor, "..."], times: Int[Tensor, "..."] | None = None) -> MediaKeysValues:
        """The media of some rows; with ``times``, one for each row alone, its latest at that time."""
        index = self.index[rows]
        if times is not None:
            latest = index.gather(1, (times - 1).clamp(min=0)[:, None])
            index = latest.masked_fill(times[:, None] == 0, -1)
        return MediaKeysValues(self.by_layer, index)

    def followed_by(self, others: MediaKeysValues) -> MediaKeysValues:
        """Each row's media, and then those of the same row of others."""
        by_layer, known = {}, len(next(iter(self.by_layer.values())).keys)
        for layer, (keys, values) in self.by_layer.items():
            more = others.by_layer[layer]
            by_layer[layer] = KeysValues(torch.cat([keys, more.keys]), torch.cat([values, more.values]))
        moved = torch.where(others.index >= 0, others.index + known, others.index)
        return MediaKeysValues(by_layer, torch.cat([self.index, moved], dim=1))


@dataclass
class Reading:
    """Texts that were read and can be read on: what the next token depends on.

    Attributes:
        cache: keys and values of every layer of the language model.
        attention_mask: (rows, columns) 1 for real tokens, which come last.
        lengths: (rows,) number of real tokens.
        media: of each row.
        media_time: (rows,) how many media have been met.
        hidden: (rows, 1, head width) the decoder's output at the last token of each.
    """

    cache: DynamicCache
    attention_mask: Int[Tensor, "rows columns"]
    lengths: Int[Tensor, "..."]
    media: MediaKeysValues
    media_time: Int[Tensor, "..."]
    hidden: Float[Tensor, "rows 1 head_width"]

    def of(self, rows: Int[Tensor, "..."]) -> Reading:
        """Some of the rows, each as often as it is named; this reading stays as it is."""
        chosen = DynamicCache()
        for index, layer in enumerate(self.cache.layers):
            chosen.update(layer.keys[rows], layer.values[rows], index)
        return Reading(
            chosen,
            self.attention_mask[rows],
            self.lengths[rows],
            self.media.of(rows),
            self.media_time[rows],
            self.hidden[rows],
        )


def _in_order(cache: DynamicCache, order: Int[Tensor, "rows columns"]) -> DynamicCache:
    """The same keys and values, the columns of each row in another order."""
    moved = DynamicCache()
    for index, layer in enumerate(cache.layers):
        places = order[:, None, :, None]
        keys, values = (
            side.gather(2, places.expand(-1, side.shape[1], -1, side.shape[3])) for side in (layer.keys, layer.values)
        )
        moved.update(keys, values, index)
    return moved


class Bridge(nn.Module):
    """Everything of Flamingo that trains, around a frozen causal language model, tensors in and tensors out.

    Args:
        config: shape of the bridge.
        lm: the frozen language model.
        features_width: width of the vision tower's features.
        media_embedding: (width of the embeddings) what the media token is read as at first.

    Raises:
        UserError: a gated layer that the language model does not have, or none at all.
    """

    def __init__(self, config: FlamingoConfig, lm: FrozenCausalLM, features_width: int, media_embedding: Tensor):
        super().__init__()
        depth = len(lm.layers)
        gated = config.gated_layers
        if gated is None:
            gated = [i for i in range(depth) if (i + 1) % config.gate_every == 0]
        if not gated or min(gated) < 0 or max(gated) >= depth or len(set(gated)) != len(gated):
            raise UserError(
                f"gated_layers {gated}: name at least one of the language model's layers 0 to {depth - 1}, "
                "each once (gate_every must not exceed their number)."
            )
        if config.scales is not None and len(config.scales) != len(gated):
            raise UserError(
                f"scales: {len(config.scales)}, and there are {len(gated)} gated layers. Give one for each."
            )
        self.lm = lm
        width = config.resampler_width or features_width
        shape = {"heads": config.heads, "head_width": config.head_width, "expansion": config.expansion}
        self.resampler = PerceiverResampler(
            features_width, width, config.latents, config.resampler_depth, **shape, frames=config.frames
        )
        scales = config.scales or lm.residual_scales(sorted(gated))
        self.gated_blocks = nn.ModuleDict(
            {
                str(layer): GatedCrossAttentionBlock(lm.width, width, **shape, scale=scale)
                for layer, scale in zip(sorted(gated), scales, strict=True)
            }
        )
        self.config = replace(config, gated_layers=sorted(gated), scales=scales)
        trains = config.train_added_tokens
        self.media_embedding = nn.Parameter(media_embedding.clone().float(), requires_grad=trains)
        self.chunk_embedding = nn.Parameter(media_embedding.clone().float()) if trains else None
        # Where the head is the embedding, the new row serves both.
        untied = trains and not lm.tied
        self.chunk_head = nn.Parameter(torch.zeros(lm.head_width)) if untied else None
        self.frozen_text = FrozenText(lm, self.gated_layers[0])

    @property
    def gated_layers(self) -> list[int]:
        """Indices of the language model's layers with a gated block before them, lowest first."""
        return [int(name) for name in self.gated_blocks]

    def block(self, layer: int) -> GatedCrossAttentionBlock:
        """The gated block before a layer."""
        block = self.gated_blocks[str(layer)]
        assert isinstance(block, GatedCrossAttentionBlock)
        return block

    @property
    def media_token(self) -> int:
        """The media token's id: one beyond the language model's vocabulary, unless it has one of its own."""
        return self.lm.vocabulary_size if self.config.media_token is None else self.config.media_token

    @property
    def chunk_token(self) -> int | None:
        """The id of the end of chunks, a trained one being one beyond the media token; None where there is none."""
        return self.config.chunk_token if self.chunk_embedding is None else self.lm.vocabulary_size + 1

    def embed(self, input_ids: Int[Tensor, "batch tokens"]) -> Float[Tensor, "batch tokens embed_width"]:
        """Embed tokens, the added ones included."""
        is_media = input_ids == self.media_token
        is_chunk = torch.zeros_like(is_media) if self.chunk_embedding is None else input_ids == self.chunk_token
        embeddings = self.lm.embed(input_ids.masked_fill(is_media | is_chunk, 0))
        embeddings = torch.where(is_media[..., None], self.media_embedding.to(embeddings.dtype), embeddings)
        if self.chunk_embedding is not None:
            embeddings = torch.where(is_chunk[..., None], self.chunk_embedding.to(embeddings.dtype), embeddings)
        return embeddings

    def logits(self, hidden: Float[Tensor, "batch tokens head_width"]) -> Float[Tensor, "batch tokens types"]:
        """The language model's logits; where an end of chunks was added, also its own, behind one of minus infinity
        for the media token, which is never to be said."""
        own = self.lm.logits(hidden)
        if self.chunk_embedding is None:
            return own
        row = self.chunk_embedding if self.chunk_head is None else self.chunk_head
        never = torch.full_like(own[..., :1], -torch.inf)
        return torch.cat([own, never, self.lm.logits(hidden, rows=row[None])], dim=-1)

    def media_keys_values(
        self, latents: Float[Tensor, "media latents width"], media_index: Int[Tensor, "batch row_media"]
    ) -> MediaKeysValues:
        """Project resampled media for every gated layer."""
        by_layer = {layer: self.block(layer).attention.keys_values(latents) for layer in self.gated_layers}
        return MediaKeysValues(by_layer, media_index)

    def steps(
        self,
        media: MediaKeysValues,
        media_time: Int[Tensor, "batch tokens"],
        media_before: Int[Tensor, "batch tokens"] | None = None,
        looking: dict[int, Tensor] | None = None,
    ) -> dict[int, Step]:
        """What to do before each gated layer.

        Several rows of hidden states may share one row of media, as beams do: then their tokens ask side by side, and
        the media are not repeated.

        Args:
            media: the media of each row.
            media_time: (rows, tokens) the medium that a token goes with, counted from 1; 0 for none.
            media_before: (rows, tokens) how many of the row's media belong to other documents before; None for none.
            looking: a dictionary that receives the attention weights that each gated layer uses: (batch, heads, tokens,
                row media * latents).
        """
        mask: Tensor | None = look_at_media(
            media_time, media.index.shape[1], media.latents, self.config.look == "all", media_before
        )
        mask = mask & media.present()[:, None]
        if bool(mask.all()):
            mask = None
        reached = (media_time > 0)[..., None]
        everywhere = self.config.gate_all_text or bool(reached.all())

        def before(layer: int) -> Step:
            block, keys_values = self.block(layer), media.of_rows(layer)

            def step(hidden: Tensor) -> Tensor:
                if looking is not None:
                    looking[layer] = block.attention.weights(block.norm(hidden), keys_values, mask)
                rows, shared = len(media.index), len(hidden) // len(media.index)
                beside = hidden.unflatten(0, (rows, shared)).flatten(1, 2) if shared > 1 else hidden
                seen = mask
                if mask is not None and shared > 1:
                    seen = mask.expand(-1, hidden.shape[1], -1).repeat(1, shared, 1)
                gated = block(beside, keys_values, seen)
                gated = gated.unflatten(1, (shared, -1)).flatten(0, 1) if shared > 1 else gated
                if everywhere:
                    return gated
                return torch.where(reached.repeat_interleave(shared, dim=0), gated, hidden)

            return step

        return {layer: before(layer) for layer in self.gated_layers}

    def forward(self, batch: Batch) -> Float[Tensor, "batch tokens types"]:
        """Logits at every position, straight through: the definition that the shortcuts are tested against."""
        return self.logits(self._read_through(batch))

    def losses(self, batch: Batch) -> dict[str, Float[Tensor, ""]]:
        """Mean cross-entropy over the targets, in nats; 0 where there are none."""
        with kernel_for(batch.input_ids.shape[1], batch.input_ids.device, self.lm.lm.dtype):
            log_likelihoods, _ = self.token_log_likelihoods(batch)
        return {"text": -log_likelihoods.sum() / max(1, len(log_likelihoods))}

    def token_log_likelihoods(self, batch: Batch) -> tuple[Tensor, Tensor]:
        """Log-probability of each target, in nats, and the row that it stands in, both (targets,).

        Only what can change is computed with gradients: the tokens from the first medium on, from the first
        gated layer up; and logits only where there is a target.
        """
        if self.config.train_added_tokens:
            hidden, targets = self._read_through(batch), batch.targets
        elif batch.segments is not None:
            hidden, targets = self._read_packed(batch), batch.targets
        else:
            hidden, targets = self._read_from_first_medium(batch)[0], batch.targets[:, batch.prefix :]
        labelled = targets != IGNORED
        logits = self.logits(hidden[labelled][None])[0]
        log_likelihoods = -F.cross_entropy(logits.float(), targets[labelled], reduction="none")
        return log_likelihoods, labelled.nonzero()[:, 0]

    def keep_texts(self, batch: Batch, to_continue: bool) -> None:
        """Read the texts of a batch now and keep what they leave behind, for all later batches.

        Nothing is kept while added tokens train, since their embeddings then change with every step.
        """
        if not self.config.train_added_tokens:
            embeddings = self.embed(batch.input_ids)
            self.frozen_text.keep(embeddings, batch.input_ids, batch.attention_mask, batch.prefix, to_continue)

    @torch.inference_mode()
    def read(self, batch: Batch) -> Reading:
        """Read texts that are to be continued."""
        media = self._media(batch)
        hidden, cache, texts = self._read_from_first_medium(batch, media, to_continue=True)
        add_below(cache, texts, batch.prefix, batch.input_ids.shape[1])
        return self._reading(batch, cache, batch.attention_mask, media, hidden, batch.prefix)

    @torch.inference_mode()
    def read_on(self, reading: Reading, batch: Batch) -> Reading:
        """Read what follows a reading: of one row, which then begins every row of the batch, or of as many rows.

        The reading itself stays as it was, so that it can be continued in other ways. The batch's columns are padded
        on the right.
        """
        count = len(batch.input_ids)
        rows = torch.arange(count, device=batch.input_ids.device) if len(reading.lengths) > 1 else None
        begun = reading.of(torch.zeros_like(batch.media_index[:, 0]) if rows is None else rows)
        media = begun.media.followed_by(self._media(batch))
        known = begun.media.index.shape[1]
        # A token that no medium of its own stands before goes with the last one of what was read.
        media_time = torch.where(batch.media_time > 0, batch.media_time + known, begun.media_time[:, None])
        batch = replace(batch, media_time=media_time)
        mask = torch.cat([begun.attention_mask, batch.attention_mask], dim=1)
        positions = begun.lengths[:, None] + batch.position_ids()
        hidden = self.lm.run(
            self.embed(batch.input_ids), mask, positions, before=self.steps(media, media_time), cache=begun.cache
        )
        return self._reading(batch, begun.cache, mask, media, hidden, 0)

    def steps_after(self, reading: Reading, beams: int = 1) -> dict[int, Step]:
        """What to do before each gated layer for every token that continues a reading.

        Args:
            reading: what was read.
            beams: how many neighbouring rows go with the same media, which are then not repeated.
        """
        rows = torch.arange(0, len(reading.lengths), beams, device=reading.lengths.device)
        times = reading.media_time[rows]
        if self.config.look == "latest":
            return self.steps(reading.media.of(rows, times), times.clamp(max=1)[:, None])
        return self.steps(reading.media.of(rows), times[:, None])

    @torch.inference_mode()
    def advance(self, reading: Reading, tokens: Int[Tensor, "..."], before: dict[int, Step]) -> Reading:
        """Read one token (rows,) more in each row; ``before`` is of :meth:`steps_after`. The reading's cache grows."""
        mask = F.pad(reading.attention_mask, (0, 1), value=1)
        positions = reading.lengths[:, None]
        hidden = self.lm.run(self.embed(tokens[:, None]), mask, positions, before=before, cache=reading.cache)
        return replace(reading, attention_mask=mask, lengths=reading.lengths + 1, hidden=hidden)

    @torch.inference_mode()
    def log_likelihoods_after(
        self, reading: Reading, ids: Int[Tensor, "options_of_rows tokens"], mask: Int[Tensor, "options_of_rows tokens"]
    ) -> Float[Tensor, "..."]:
        """How likely each of several texts is to follow each row of a reading, in nats.

        Args:
            reading: its rows; it stays as it was.
            ids: as many texts for each row, those of a row together.
            mask: (rows * texts, tokens), 1 for real tokens, which come first.
        """
        rows, each = len(reading.lengths), len(ids) // len(reading.lengths)
        first = self.logits(reading.hidden)[:, -1].float().log_softmax(dim=-1)
        found = first.repeat_interleave(each, dim=0).gather(1, ids[:, :1])[:, 0]
        if ids.shape[1] == 1:
            return found
        row = torch.arange(rows, device=ids.device).repeat_interleave(each)
        begun = reading.of(row)
        whole = torch.cat([begun.attention_mask, mask[:, :-1]], dim=1)
        positions = begun.lengths[:, None] + torch.arange(ids.shape[1] - 1, device=ids.device)
        hidden = self.lm.run(
            self.embed(ids[:, :-1]), whole, positions, before=self.steps_after(begun, each), cache=begun.cache
        )
        said = mask[:, 1:].bool()
        logits = self.logits(hidden[said][None])[0].float()
        chosen = logits.log_softmax(dim=-1).gather(1, ids[:, 1:][said][:, None])[:, 0]
        return found.index_add(0, said.nonzero()[:, 0], chosen)

    @torch.no_grad()
    def attention_maps(self, batch: Batch) -> Float[Tensor, "batch tokens row_media positions"]:
        """Where each token looks in each medium of its row, as shares of its attention.

        A token's attention to latents, averaged over heads and over gated layers (each as far as its gate is
        open), followed through the latents' attention to positions, averaged over the resampler's layers and
        heads. It shows what was looked at, which is not yet why an answer was given.
        """
        reading: list[Tensor] = []
        latents = self.resampler(batch.features, batch.frames, reading)
        positions = torch.stack(reading).mean(dim=(0, 2))
        positions = positions / positions.sum(dim=-1, keepdim=True)
        media = self.media_keys_values(latents, batch.media_index)
        looking: dict[int, Tensor] = {}
        self._read_through(batch, media, looking)
        opening = torch.stack([self.block(layer).attention_gate.tanh().abs() for layer in looking])
        weights = torch.stack([heads.mean(dim=1) for heads in looking.values()])
        weights = torch.einsum("g,gbtl->btl", opening / opening.sum().clamp(min=1e-12), weights)
        weights = weights.unflatten(-1, (media.index.shape[1], media.latents))
        return torch.einsum("btml,bmlp->btmp", weights, positions[batch.media_index.clamp(min=0)])

    def gates(self) -> dict[str, float]:
        """tanh of every gate: how far each gated block is open, 0 for shut."""
        return {
            f"gate/{layer}/{part}": gate.tanh().item()
            for layer in self.gated_layers
            for part, gate in (
                ("attention", self.block(layer).attention_gate),
                ("feed_forward", self.block(layer).feed_forward_gate),
            )
        }

    def _media(self, batch: Batch) -> MediaKeysValues:
        return self.media_keys_values(self.resampler(batch.features, batch.frames), batch.media_index)

    def _reading(
        self,
        batch: Batch,
        cache: DynamicCache,
        mask: Int[Tensor, "rows columns"],
        media: MediaKeysValues,
        hidden: Float[Tensor, "rows suffix head_width"],
        prefix: int,
    ) -> Reading:
        """What the last tokens of a batch leave; ``hidden`` is of its columns from ``prefix`` on.

        Padding is moved to the front, so that what follows stands next to what was read, for language models that go by
        columns (sliding windows, MPT's biases).
        """
        rows = torch.arange(len(hidden), device=hidden.device)
        if bool((mask.diff(dim=1) < 0).any()):
            order = mask.argsort(dim=1, stable=True)
            mask, cache = mask.gather(1, order), _in_order(cache, order)
        last = batch.attention_mask[:, prefix:].sum(dim=-1) - 1
        return Reading(
            cache,
            mask,
            mask.sum(dim=-1),
            media,
            batch.media_time[rows, prefix + last],
            hidden[rows, last][:, None],
        )

    def _read_through(
        self, batch: Batch, media: MediaKeysValues | None = None, looking: dict[int, Tensor] | None = None
    ) -> Float[Tensor, "batch tokens head_width"]:
        """The decoder's output for all columns, every layer run for every token."""
        if batch.segments is not None:
            self._must_pack(batch)
        embeddings = self.embed(batch.input_ids)
        return self.lm.run(
            embeddings,
            batch.mask(embeddings.dtype),
            batch.position_ids(),
            before=self.steps(media or self._media(batch), batch.media_time, batch.media_before, looking),
        )

    def _must_pack(self, batch: Batch) -> None:
        """Refuse to lay documents side by side for a language model that cannot be told who sees whom."""
        config = self.lm.lm.config.get_text_config()
        window = getattr(config, "sliding_window", None) if getattr(config, "use_sliding_window", True) else None
        longest = int((batch.position_ids() * batch.attention_mask).max()) + 1
        if window is not None and longest > window:
            raise UserError(
                f"collate.pack: this {config.model_type} looks {window} tokens back in some layers, and documents that "
                f"share a row cannot be told to. Set pack to at most {window}, or to 0."
            )
        if getattr(config, "alibi", False) or config.model_type in ("bloom", "mpt"):
            raise UserError(
                f"collate.pack: a {config.model_type} biases attention by distances (ALiBi) that it reads off the "
                "columns, so documents cannot share a row. Set pack to 0."
            )

    def _read_packed(self, batch: Batch) -> Float[Tensor, "batch tokens head_width"]:
        """The same, without gradients below the first gate."""
        self._must_pack(batch)
        embeddings = self.embed(batch.input_ids)
        mask, positions = batch.mask(embeddings.dtype), batch.position_ids()
        with torch.no_grad():
            entering = self.lm.run(embeddings, mask, positions, leave=self.gated_layers[0])
        return self.lm.run(
            embeddings,
            mask,
            positions,
            before=self.steps(self._media(batch), batch.media_time, batch.media_before),
            enter=(self.gated_layers[0], entering),
        )

    def _read_from_first_medium(
        self, batch: Batch, media: MediaKeysValues | None = None, to_continue: bool = False
    ) -> tuple[Float[Tensor, "batch suffix head_width"], DynamicCache, list[ReadText]]:
        """The decoder's output for the columns from the first medium on; what text decides is recalled."""
        prefix = batch.prefix
        embeddings = self.embed(batch.input_ids)
        texts = self.frozen_text.read(embeddings, batch.input_ids, batch.attention_mask, prefix, to_continue)
        cache = cache_above(texts, prefix, self.gated_layers[0])
        hidden = self.lm.run(
            embeddings[:, prefix:],
            batch.attention_mask,
            batch.position_ids()[:, prefix:],
            before=self.steps(media or self._media(batch), batch.media_time[:, prefix:]),
            cache=cache,
            enter=(self.gated_layers[0], stack_entering(texts, embeddings.shape[1] - prefix)),
        )
        return hidden, cache, texts
