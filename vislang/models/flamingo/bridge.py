"""Flamingo's bridge: a frozen language model attends to media (Alayrac et al. 2022). Tensors in, tensors out.

:meth:`Bridge.forward` is the definition, in one pass through every layer. :mod:`vislang.models.flamingo.prefill`
computes the same with less work, and is tested against it. Only the resampler, the gated blocks and, if wanted, the
embeddings of two added tokens train.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Literal

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor, nn

from vislang.errors import UserError
from vislang.models.flamingo.collate import Batch
from vislang.models.flamingo.gated_block import GatedCrossAttentionBlock
from vislang.models.flamingo.resampler import PerceiverResampler
from vislang.models.towers.causal_lm import FrozenCausalLM, Step
from vislang.nn.attention import KeysValues


@dataclass
class FlamingoConfig:
    """Shape of the bridge. The defaults are OpenFlamingo's; the paper's 3B to 80B are in ``vislang/presets``.

    Attributes:
        gated_layers: indices of the language model's layers with a gated block before them; None places
            one before each layer i with (i + 1) % gate_every == 0.
        gate_every: see ``gated_layers``.
        latents: latents of a medium.
        resampler_width: width of the latents; None takes the vision tower's.
        resampler_depth: layers of the resampler.
        heads, head_width: shape of every attention, in the resampler and in the gated blocks.
        resampler_heads, resampler_head_width: shape of the resampler's, where it differs.
        expansion: inner width of every feed-forward, in widths.
        scales: the scale of each gated block (see GatedCrossAttentionBlock), in the order of layers; None measures them
            on the language model, 1 for each is the paper's.
        gate_all_text: apply the gated blocks' feed-forward to text before the first medium too, as the paper does.
            Otherwise the frozen language model alone reads such text, and it does so once for each text (see
            :mod:`vislang.models.flamingo.frozen_text`).
        train_added_tokens: train embeddings of a media token and of an end-of-chunk token, two tokens beyond the
            language model's vocabulary; no other row of its embedding changes. The layers below the first gate then
            depend on them, and are computed and differentiated at every step. Otherwise the media token keeps its
            initial embedding, and chunks end with the language model's own end of text.
        media_token: its id, where the language model's vocabulary has one; None puts it beyond the vocabulary.
        chunk_token: the id of the end of chunks, where the vocabulary has one; None takes the trained one, or else the
            end of text.
        attend_to: a token attends to the ``latest`` medium before it (section 3.1.3), or to ``all`` before it.
        frames: time embeddings for videos; 0 for a model of images.
    """

    gated_layers: list[int] | None = None
    gate_every: int = 4
    latents: int = 64
    resampler_width: int | None = None
    resampler_depth: int = 6
    heads: int = 8
    head_width: int = 64
    resampler_heads: int | None = None
    resampler_head_width: int | None = None
    expansion: int = 4
    scales: list[float] | None = None
    gate_all_text: bool = False
    train_added_tokens: bool = False
    media_token: int | None = None
    chunk_token: int | None = None
    attend_to: Literal["latest", "all"] = "latest"
    frames: int = 0

    def __post_init__(self):
        for name in ("gate_every", "latents", "resampler_depth", "heads", "head_width", "expansion"):
            if getattr(self, name) < 1:
                raise ValueError(f"bridge.{name} is {getattr(self, name)}; it must be at least 1.")
        for name in ("resampler_width", "resampler_heads", "resampler_head_width"):
            if (value := getattr(self, name)) is not None and value < 1:
                raise ValueError(f"bridge.{name} is {value}; it must be at least 1.")
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
            # Each medium occurs once, in order: nothing has to be gathered, and no gradient scattered.
            whole = (side.unflatten(0, rows.shape) for side in self.by_layer[layer])
            return KeysValues(*(side.transpose(1, 2).flatten(2, 3) for side in whole))
        return KeysValues(*(side[rows].transpose(1, 2).flatten(2, 3) for side in self.by_layer[layer]))

    def present(self) -> Bool[Tensor, "rows row_latents"]:
        """True where a latent is there, False where the medium of a row is missing."""
        return (self.index >= 0).repeat_interleave(self.latents, dim=1)

    def of(self, rows: Int[Tensor, "..."], times: Int[Tensor, "..."] | None = None) -> MediaKeysValues:
        """The media of some rows; with ``times`` (counted from 1) only the medium of each row at that time."""
        index = self.index[rows]
        if times is not None:
            latest = index.gather(1, (times - 1).clamp(min=0)[:, None])
            index = latest.masked_fill(times[:, None] == 0, -1)
        return MediaKeysValues(self.by_layer, index)

    def followed_by(self, others: MediaKeysValues) -> MediaKeysValues:
        """Each row's media, followed by those of the same row of others."""
        by_layer, known = {}, len(next(iter(self.by_layer.values())).keys)
        for layer, (keys, values) in self.by_layer.items():
            more = others.by_layer[layer]
            by_layer[layer] = KeysValues(torch.cat([keys, more.keys]), torch.cat([values, more.values]))
        moved = torch.where(others.index >= 0, others.index + known, others.index)
        return MediaKeysValues(by_layer, torch.cat([self.index, moved], dim=1))


def media_mask(
    media_time: Int[Tensor, "batch tokens"],
    media_count: int,
    latents: int,
    all_before: bool = False,
    media_before: Int[Tensor, "batch tokens"] | None = None,
) -> Bool[Tensor, "batch tokens row_latents"]:
    """Flamingo's mask: each token sees only the latest medium before it (section 3.1.3, figure 7).

    Args:
        media_time: (batch, tokens) the medium that each token goes with, counted from 1; 0 sees nothing.
        media_count: number of media in a row.
        latents: number of latents of each medium.
        all_before: see every medium up to that one.
        media_before: (batch, tokens) how many of them belong to other texts in the same row, which it must not see.

    Returns:
        True where a token may look, over the media's latents laid end to end.
    """
    order = torch.arange(1, media_count + 1, device=media_time.device).repeat_interleave(latents)
    if not all_before:
        return media_time[..., None] == order
    first = torch.zeros_like(media_time) if media_before is None else media_before
    return (order <= media_time[..., None]) & (order > first[..., None])


class Bridge(nn.Module):
    """The resampler and the gated blocks around a frozen causal language model: everything of Flamingo that trains.

    Args:
        config: shape of the bridge.
        lm: the frozen language model.
        features_width: width of the vision tower's features.
        media_embedding: (width of the embeddings) the initial embedding of the media token.

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
        self.resampler = PerceiverResampler(
            features_width,
            width,
            config.latents,
            config.resampler_depth,
            config.resampler_heads or config.heads,
            config.resampler_head_width or config.head_width,
            config.expansion,
            config.frames,
        )
        scales = config.scales or lm.residual_scales(sorted(gated))
        self.gated_blocks = nn.ModuleDict(
            {
                str(layer): GatedCrossAttentionBlock(
                    lm.width, width, config.heads, config.head_width, config.expansion, scale
                )
                for layer, scale in zip(sorted(gated), scales, strict=True)
            }
        )
        self.config = replace(config, gated_layers=sorted(gated), scales=scales)
        trains = config.train_added_tokens
        self.media_embedding = nn.Parameter(media_embedding.clone().float(), requires_grad=trains)
        self.chunk_embedding = nn.Parameter(media_embedding.clone().float()) if trains else None
        # Where the head shares its weights with the embedding, the new row serves both.
        untied = trains and not lm.tied
        self.chunk_head = nn.Parameter(torch.zeros(lm.head_width)) if untied else None

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
        """The language model's logits.

        Where an end-of-chunk token was added, its logit follows, after minus infinity for the media token, which must
        never be generated.
        """
        own = self.lm.logits(hidden)
        if self.chunk_embedding is None:
            return own
        row = self.chunk_embedding if self.chunk_head is None else self.chunk_head
        never = torch.full_like(own[..., :1], -torch.inf)
        return torch.cat([own, never, self.lm.logits(hidden, rows=row[None])], dim=-1)

    def resample(self, batch: Batch) -> MediaKeysValues:
        """Resample the media of a batch and project them for every gated layer."""
        return self.media_keys_values(self.resampler(batch.features, batch.frames), batch.media_index)

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
        weights: dict[int, Tensor] | None = None,
    ) -> dict[int, Step]:
        """The gated blocks, as steps before the language model's layers.

        Several rows of hidden states may share one row of media, as beams do. Their tokens are then the queries of one
        row, and the media are not repeated.

        Args:
            media: the media of each row.
            media_time: (rows, tokens) the medium that a token goes with, counted from 1; 0 for none.
            media_before: (rows, tokens) how many of the row's media belong to documents before; None for none.
            weights: a dictionary that receives the attention weights of each gated layer: (batch, heads, tokens,
                row media * latents).
        """
        mask: Tensor | None = media_mask(
            media_time, media.index.shape[1], media.latents, self.config.attend_to == "all", media_before
        )
        mask = mask & media.present()[:, None]
        if bool(mask.all()):
            mask = None
        gated_tokens = (media_time > 0)[..., None]
        gate_all = self.config.gate_all_text or bool(gated_tokens.all())

        def before(layer: int) -> Step:
            block, keys_values = self.block(layer), media.of_rows(layer)

            def step(hidden: Tensor) -> Tensor:
                if weights is not None:
                    weights[layer] = block.attention.weights(block.norm(hidden), keys_values, mask)
                rows, shared = len(media.index), len(hidden) // len(media.index)
                queries = hidden.unflatten(0, (rows, shared)).flatten(1, 2) if shared > 1 else hidden
                visible = mask
                if mask is not None and shared > 1:
                    visible = mask.expand(-1, hidden.shape[1], -1).repeat(1, shared, 1)
                gated = block(queries, keys_values, visible)
                gated = gated.unflatten(1, (shared, -1)).flatten(0, 1) if shared > 1 else gated
                if gate_all:
                    return gated
                return torch.where(gated_tokens.repeat_interleave(shared, dim=0), gated, hidden)

            return step

        return {layer: before(layer) for layer in self.gated_layers}

    def forward(self, batch: Batch) -> Float[Tensor, "batch tokens types"]:
        """Logits at every position, every layer run for every token: the definition."""
        return self.logits(self.hidden_states(batch))

    def hidden_states(
        self, batch: Batch, media: MediaKeysValues | None = None, weights: dict[int, Tensor] | None = None
    ) -> Float[Tensor, "batch tokens head_width"]:
        """The decoder's output at every position; ``media`` and ``weights`` as in :meth:`steps`."""
        if batch.segments is not None:
            self.lm.check_packing(batch.longest())
        embeddings = self.embed(batch.input_ids)
        return self.lm(
            embeddings,
            batch.mask(embeddings.dtype),
            batch.position_ids(),
            before=self.steps(media or self.resample(batch), batch.media_time, batch.media_before, weights),
        )

    @torch.no_grad()
    def attention_maps(self, batch: Batch) -> Float[Tensor, "batch tokens row_media positions"]:
        """The attention of each token to the positions of each medium of its row, in shares.

        A token's attention to latents is averaged over heads and over gated layers (weighted by the size of each gate).
        It is multiplied by the latents' attention to positions, averaged over the resampler's layers and heads. The map
        shows what was attended to, which is not yet why an answer was given.
        """
        by_layer: list[Tensor] = []
        latents = self.resampler(batch.features, batch.frames, by_layer)
        positions = torch.stack(by_layer).mean(dim=(0, 2))
        positions = positions / positions.sum(dim=-1, keepdim=True)
        media = self.media_keys_values(latents, batch.media_index)
        by_gate: dict[int, Tensor] = {}
        self.hidden_states(batch, media, by_gate)
        opening = torch.stack([self.block(layer).attention_gate.tanh().abs() for layer in by_gate])
        weights = torch.stack([heads.mean(dim=1) for heads in by_gate.values()])
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
