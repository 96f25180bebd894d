"""Flamingo's bridge: a frozen language model attends to media (Alayrac et al. 2022). Tensors in, tensors out.

:meth:`Bridge.forward` is the definition: one pass through every layer. :mod:`vislang.models.flamingo.prefill` computes
the same with less work, and is tested against it. Only the resampler, the gated blocks and, if wanted, the embeddings
of two added tokens train.
"""

from __future__ import annotations

from dataclasses import replace

import torch
from jaxtyping import Float, Int
from torch import Tensor, nn

from vislang.errors import UserError
from vislang.models.flamingo.collate import Batch
from vislang.models.flamingo.config import FlamingoConfig
from vislang.models.flamingo.gated_block import GatedCrossAttentionBlock
from vislang.models.flamingo.media import MediaKeysValues, media_mask
from vislang.models.flamingo.resampler import LayerShape, PerceiverResampler, PlainResampler
from vislang.models.towers.causal_lm import CausalLM, Step


class Bridge(nn.Module):
    """The resampler and the gated blocks of a frozen causal language model: everything in Flamingo that trains.

    Args:
        config: shape of the bridge.
        lm: the frozen language model.
        features_width: width of the vision tower's features.
        media_embedding: (embedding width,) the initial embedding of the media token.

    Raises:
        UserError: the language model lacks one of the gated layers, or no layer is gated.
    """

    def __init__(self, config: FlamingoConfig, lm: CausalLM, features_width: int, media_embedding: Tensor):
        super().__init__()
        depth = len(lm.layers)
        gated = config.gated_layers
        if gated is None:
            gated = [i for i in range(depth) if (i + 1) % config.gate_every == 0]
        if not gated or min(gated) < 0 or max(gated) >= depth or len(set(gated)) != len(gated):
            raise UserError(
                f"gated_layers {gated}: list one or more of the language model's layers 0 to {depth - 1}, each once "
                "(gate_every must not exceed the number of layers)."
            )
        if config.scales is not None and len(config.scales) != len(gated):
            raise UserError(
                f"scales has {len(config.scales)} values for {len(gated)} gated layers. Give one for each layer."
            )
        self.lm = lm
        width = config.resampler_width or features_width
        shape = LayerShape(
            config.resampler_depth,
            config.resampler_heads or config.heads,
            config.resampler_head_width or config.head_width,
            config.expansion,
        )
        self.resampler: PerceiverResampler | PlainResampler
        if config.resampler == "perceiver":
            self.resampler = PerceiverResampler(features_width, width, shape, config.latents, config.frames)
        else:
            self.resampler = PlainResampler(features_width, width, shape, config.resampler == "transformer")
        scales = config.scales or lm.residual_scales(sorted(gated))
        self.gated_blocks = nn.ModuleDict(
            {
                str(layer): GatedCrossAttentionBlock(
                    lm.width, width, config.heads, config.head_width, config.expansion, scale, config.initial_gate
                )
                for layer, scale in zip(sorted(gated), scales, strict=True)
            }
        )
        self.config = replace(config, gated_layers=sorted(gated), scales=scales)
        trains = config.train_added_tokens
        self.media_embedding = nn.Parameter(media_embedding.clone().float(), requires_grad=trains)
        self.chunk_embedding = nn.Parameter(media_embedding.clone().float()) if trains else None
        # If the output layer shares its weights with the embedding, the new row is used in both.
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
        """The media token's id: the first one after the language model's vocabulary, unless that contains one."""
        return self.lm.vocabulary_size if self.config.media_token is None else self.config.media_token

    @property
    def chunk_token(self) -> int | None:
        """The id of the end-of-chunk token; a trained one follows the media token. None if there is none."""
        return self.config.chunk_token if self.chunk_embedding is None else self.lm.vocabulary_size + 1

    def embed(self, input_ids: Int[Tensor, "batch tokens"]) -> Float[Tensor, "batch tokens embed_width"]:
        """Embed tokens, including the added ones."""
        is_media = input_ids == self.media_token
        is_chunk = torch.zeros_like(is_media) if self.chunk_embedding is None else input_ids == self.chunk_token
        embeddings = self.lm.embed(input_ids.masked_fill(is_media | is_chunk, 0))
        embeddings = torch.where(is_media[..., None], self.media_embedding.to(embeddings.dtype), embeddings)
        if self.chunk_embedding is not None:
            embeddings = torch.where(is_chunk[..., None], self.chunk_embedding.to(embeddings.dtype), embeddings)
        return embeddings

    def logits(self, hidden: Float[Tensor, "batch tokens head_width"]) -> Float[Tensor, "batch tokens types"]:
        """The language model's logits.

        If an end-of-chunk token was added, two logits follow: minus infinity for the media token, which must never be
        generated, and that of the end-of-chunk token.
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
        """The gated blocks, as steps that run before the language model's layers.

        Args:
            media: the media of each row.
            media_time: (rows, tokens) or (rows, 1) the index of each token's medium, counted from 1; 0 for no medium.
            media_before: see :func:`~vislang.models.flamingo.media.media_mask`.
            weights: if given, receives the attention weights of each gated layer: (batch, heads, tokens,
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
                gated = block(hidden, keys_values, mask)
                return gated if gate_all else torch.where(gated_tokens, gated, hidden)

            return step

        return {layer: before(layer) for layer in self.gated_layers}

    def forward(self, batch: Batch) -> Float[Tensor, "batch tokens types"]:
        """Logits at every position, computed by running every layer for every token: the definition."""
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
        """How each token's attention is distributed over the positions of each medium of its row.

        A token's attention to the latents is averaged over heads and over gated layers, weighted by the size of each
        gate. The result is multiplied by the latents' attention to the positions, averaged over the resampler's layers
        and heads. The map shows what was attended to; that does not explain why an answer was given.
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

    @torch.no_grad()
    def gates(self) -> dict[str, Float[Tensor, ""]]:
        """tanh of every gate: how far each gated block is open, 0 is closed."""
        return {
            f"gate/{layer}/{part}": gate.tanh()
            for layer in self.gated_layers
            for part, gate in (
                ("attention", self.block(layer).attention_gate),
                ("feed_forward", self.block(layer).feed_forward_gate),
            )
        }
