"""The two streams and their co-attention (Lu et al. 2019, section 2.2), and the single stream of the ablation."""

from __future__ import annotations

from typing import Any, NamedTuple

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor, nn

from vislang.models.vilbert.config import EPS, TextStreamConfig, ViLBERTConfig, VisionStreamConfig
from vislang.nn.attention import Mask, attend, attention_weights, not_padding, split_heads
from vislang.nn.linear import Linear
from vislang.nn.recompute import Recomputable
from vislang.nn.transformer import ACTIVATIONS, EncoderBlock

BOX, DIRECTION = 5, 6
"""Numbers of a box, and of the direction of its image (:meth:`vislang.document.Facing.direction`)."""


class TextEmbedding(nn.Module):
    """The normalised sum of word, position and segment embeddings; a task token may be inserted after the first
    token."""

    def __init__(self, config: TextStreamConfig):
        super().__init__()
        self.words = nn.Embedding(config.vocabulary_size, config.width, padding_idx=0)
        self.positions = nn.Embedding(config.max_length, config.width)
        self.segments = nn.Embedding(config.segments, config.width)
        self.tasks = nn.Embedding(config.task_tokens, config.width) if config.task_tokens else None
        self.norm = nn.LayerNorm(config.width, EPS)
        self.dropout = nn.Dropout(config.dropout)

    def forward(
        self,
        ids: Int[Tensor, "batch tokens"],
        segments: Int[Tensor, "batch tokens"],
        tasks: Int[Tensor, "..."] | None = None,
    ) -> Float[Tensor, "batch tokens_ width"]:
        """Embed texts; with task tokens, the sequence gets one token longer."""
        x = self.words(ids) + self.positions.weight[: ids.shape[1]] + self.segments(segments)
        if self.tasks is not None:
            assert tasks is not None
            x = torch.cat([x[:, :1], self.tasks(tasks)[:, None], x[:, 1:]], dim=1)
        return self.dropout(self.norm(x))


class RegionEmbedding(nn.Module):
    """The normalised sum of a region's projected features and projected box (section 2.2, "Image representations")."""

    def __init__(self, config: VisionStreamConfig):
        super().__init__()
        self.features = Linear(config.feature_width, config.width)
        self.boxes = nn.Linear(BOX, config.width)
        self.images = nn.Embedding(config.images, config.width) if config.images > 1 else None
        # Without a bias, an image without a direction adds nothing.
        self.directions = nn.Linear(DIRECTION, config.width, bias=False) if config.directions else None
        self.norm = nn.LayerNorm(config.width, EPS)
        self.dropout = nn.Dropout(config.dropout)

    def forward(
        self,
        features: Float[Tensor, "batch regions feature_width"],
        boxes: Float[Tensor, "batch regions box"],
        steps: Int[Tensor, "batch regions"] | None = None,
    ) -> Float[Tensor, "batch regions width"]:
        """Embed regions. A box is (left, top, right, bottom, area), relative to the image, and may be followed by the
        direction of its image; ``steps`` has the image index of each region."""
        x = self.features(features) + self.boxes(boxes[..., :BOX])
        if self.directions is not None and boxes.shape[-1] > BOX:
            x = x + self.directions(boxes[..., BOX:])
        if self.images is not None and steps is not None:
            x = x + self.images(steps)
        return self.dropout(self.norm(x))


class CoAttentionStream(nn.Module):
    """One stream's side of a co-attention layer: attention to the other stream, then a feed-forward layer."""

    def __init__(self, stream: TextStreamConfig | VisionStreamConfig, width: int, heads: int, attention_dropout: float):
        super().__init__()
        self.heads = heads
        self.attention_dropout = attention_dropout
        self.to_queries_keys_values = Linear(stream.width, 3 * width)
        self.to_output = Linear(width, stream.width)
        self.attention_norm = nn.LayerNorm(stream.width, EPS)
        self.activation = ACTIVATIONS[stream.activation]
        self.widen = Linear(stream.width, stream.mlp_width)
        self.narrow = Linear(stream.mlp_width, stream.width)
        self.feed_forward_norm = nn.LayerNorm(stream.width, EPS)
        self.dropout = nn.Dropout(stream.dropout)

    def project(self, x: Float[Tensor, "batch length width"]) -> tuple[Tensor, Tensor, Tensor]:
        """Queries, keys and values: (batch, heads, length, head width)."""
        queries, keys, values = self.to_queries_keys_values(x).chunk(3, dim=-1)
        return split_heads(queries, self.heads), split_heads(keys, self.heads), split_heads(values, self.heads)

    def forward(
        self,
        x: Float[Tensor, "batch length width"],
        queries: Float[Tensor, "batch heads length head_width"],
        keys: Float[Tensor, "batch heads others head_width"],
        values: Float[Tensor, "batch heads others head_width"],
        mask: Mask | None,
    ) -> Float[Tensor, "batch length width"]:
        """Attend with own queries to the other stream's keys and values; ``mask`` is False at its padding."""
        attended = attend(queries, keys, values, mask, self.attention_dropout if self.training else 0.0)
        x = self.attention_norm(x + self.dropout(self.to_output(attended)))
        mapped = self.narrow(self.activation(self.widen(x)))
        return self.feed_forward_norm(x + self.dropout(mapped))


class CoAttentionBlock(Recomputable):
    """The co-attentional transformer layer (section 2.2, figure 2b)."""

    def __init__(self, config: ViLBERTConfig):
        super().__init__()
        # As in the original, the dropout rate is that of the stream that is attended to.
        self.text = CoAttentionStream(config.text, config.width, config.heads, config.vision.attention_dropout)
        self.vision = CoAttentionStream(config.vision, config.width, config.heads, config.text.attention_dropout)

    def forward(
        self,
        text: Float[Tensor, "batch tokens text_width"],
        vision: Float[Tensor, "batch regions vision_width"],
        text_mask: Bool[Tensor, "batch 1 1 tokens"] | None,
        vision_mask: Bool[Tensor, "batch 1 1 regions"] | None,
    ) -> tuple[Float[Tensor, "batch tokens text_width"], Float[Tensor, "batch regions vision_width"]]:
        """Update both streams: each attends to the other's input of this block."""
        text_queries, text_keys, text_values = self.text.project(text)
        vision_queries, vision_keys, vision_values = self.vision.project(vision)
        return (
            self.text(text, text_queries, vision_keys, vision_values, vision_mask),
            self.vision(vision, vision_queries, text_keys, text_values, text_mask),
        )

    def weights(
        self,
        text: Float[Tensor, "batch tokens text_width"],
        vision: Float[Tensor, "batch regions vision_width"],
        text_mask: Bool[Tensor, "batch 1 1 tokens"] | None,
        vision_mask: Bool[Tensor, "batch 1 1 regions"] | None,
    ) -> tuple[Float[Tensor, "batch heads tokens regions"], Float[Tensor, "batch heads regions tokens"]]:
        """The attention weights of :meth:`forward`: of text over regions, and of regions over text."""
        text_queries, text_keys, _ = self.text.project(text)
        vision_queries, vision_keys, _ = self.vision.project(vision)
        return (
            attention_weights(text_queries, vision_keys, vision_mask),
            attention_weights(vision_queries, text_keys, text_mask),
        )


class Stream(NamedTuple):
    """Hidden states of a stream, and their padding (True)."""

    tokens: Float[Tensor, "batch length width"]
    padding: Bool[Tensor, "batch length"] | None

    @property
    def mask(self) -> Bool[Tensor, "batch 1 1 length"] | None:
        """The attention mask: False at padding."""
        return not_padding(self.padding)


class Encoded(NamedTuple):
    """The outputs of both streams.

    Attributes:
        text, vision: hidden states of tokens and of regions.
        pooled_text, pooled_vision: pooled from the first token, and from the first region, which represents the whole
            image. A single stream pools only the first token.
        vision_padding: True at padded regions.
    """

    text: Float[Tensor, "batch tokens text_width"]
    vision: Float[Tensor, "batch regions vision_width"]
    pooled_text: Float[Tensor, "batch width"]
    pooled_vision: Float[Tensor, "batch width"] | None
    vision_padding: Bool[Tensor, "batch regions"] | None


class QueryKeyGatedBlock(EncoderBlock):
    """A vision block of 12-in-1's dynamic attention: the text scales its queries and keys."""

    def forward(
        self,
        x: Float[Tensor, "batch regions width"],
        mask: Mask | None = None,
        gates: Float[Tensor, "batch two_widths"] | None = None,
    ) -> tuple[Float[Tensor, "batch regions width"], Float[Tensor, "batch regions width"]]:
        """See :class:`~vislang.nn.transformer.EncoderBlock`.

        ``gates`` are the factors of queries and of keys, concatenated; they are the same for all regions of a row.
        """
        if gates is None:
            return super().forward(x, mask)
        queries, keys, values = self.project(x)
        query_gate, key_gate = (split_heads(gate[:, None], self.attention.heads) for gate in gates.chunk(2, dim=-1))
        return self.after_attention(x, self.attention.attend(queries * query_gate, keys * key_gate, values, mask))


class TwoStreams(nn.Module):
    """Both streams, from embeddings to pooled outputs."""

    def __init__(self, config: ViLBERTConfig):
        super().__init__()
        self.config = config
        self.text_embedding = TextEmbedding(config.text)
        self.region_embedding = RegionEmbedding(config.vision)
        self.text_blocks = _blocks(config.text)
        self.vision_blocks = _blocks(config.vision, QueryKeyGatedBlock if config.dynamic_attention else EncoderBlock)
        self.co_attention = nn.ModuleList(
            CoAttentionBlock(config) for _ in config.co_attention_layers if config.co_attention
        )
        # 12-in-1's dynamic attention: gates on the queries and keys of each vision layer.
        gated = config.vision.depth if config.dynamic_attention else 0
        self.query_key_gates = nn.ModuleList(Linear(config.text.width, 2 * config.vision.width) for _ in range(gated))
        self.pool_text = Linear(config.text.width, config.width)
        self.pool_vision = Linear(config.vision.width, config.width)
        self.register_load_state_dict_pre_hook(_rename_weights)

    def read_text(
        self,
        ids: Int[Tensor, "batch tokens"],
        segments: Int[Tensor, "batch tokens"],
        padding: Bool[Tensor, "batch tokens"] | None = None,
        tasks: Int[Tensor, "..."] | None = None,
    ) -> Stream:
        """The text stream up to the first co-attention layer; it depends only on the text."""
        tokens = self.text_embedding(ids, segments, tasks)
        if padding is not None and self.text_embedding.tasks is not None:
            padding = torch.cat([padding[:, :1], torch.zeros_like(padding[:, :1]), padding[:, 1:]], dim=1)
        return self._text(Stream(tokens, padding), 0, self._alone[0])

    def read_regions(
        self,
        features: Float[Tensor, "batch regions feature_width"],
        boxes: Float[Tensor, "batch regions box"],
        padding: Bool[Tensor, "batch regions"] | None = None,
        steps: Int[Tensor, "batch regions"] | None = None,
    ) -> Stream:
        """The vision stream up to the first co-attention layer; it depends only on the image.

        With dynamic attention, every vision layer depends on the text, so this is only the embedding.
        """
        stream = Stream(self.region_embedding(features, boxes, steps), padding)
        return stream if self.query_key_gates else self._vision(stream, 0, self._alone[1], None)

    def forward(self, text: Stream, vision: Stream, weights: list[tuple[Tensor, Tensor]] | None = None) -> Encoded:
        """From the first co-attention layer to the outputs; equal rows of the two streams form pairs.

        The attention weights of each co-attention layer are appended to ``weights``; see
        :meth:`CoAttentionBlock.weights`.
        """
        text_from, vision_from = self._alone
        if self.query_key_gates:
            vision_from = 0
        for number, (text_until, vision_until) in enumerate(self.config.co_attention_layers):
            text = self._text(text, text_from, text_until)
            vision = self._vision(vision, vision_from, vision_until, text)
            if self.co_attention:
                block = self.co_attention[number]
                assert isinstance(block, CoAttentionBlock)
                if weights is not None:
                    weights.append(block.weights(text.tokens, vision.tokens, text.mask, vision.mask))
                tokens, regions = block(text.tokens, vision.tokens, text.mask, vision.mask)
                text, vision = text._replace(tokens=tokens), vision._replace(tokens=regions)
            text_from, vision_from = text_until, vision_until
        # Vision first, as in the original: with dynamic attention its layers depend on the text at this depth.
        vision = self._vision(vision, vision_from, self.config.vision.depth, text)
        text = self._text(text, text_from, self.config.text.depth)
        return Encoded(
            text.tokens,
            vision.tokens,
            self.pool_text(text.tokens[:, 0]).relu(),
            self.pool_vision(vision.tokens[:, 0]).relu(),
            vision.padding,
        )

    @property
    def _alone(self) -> tuple[int, int]:
        """Layers before the first co-attention layer."""
        if not self.config.co_attention_layers:
            return self.config.text.depth, self.config.vision.depth
        text, vision = self.config.co_attention_layers[0]
        return text, vision

    def _text(self, stream: Stream, first: int, end: int) -> Stream:
        tokens = stream.tokens
        for block in self.text_blocks[first:end]:
            tokens, _ = block(tokens, stream.mask)
        return stream._replace(tokens=tokens)

    def _vision(self, stream: Stream, first: int, end: int, text: Stream | None) -> Stream:
        tokens = stream.tokens
        for index in range(first, end):
            block = self.vision_blocks[index]
            if self.query_key_gates:
                assert text is not None
                tokens, _ = block(tokens, stream.mask, 1 + self.query_key_gates[index](_mean(text)).sigmoid())
            else:
                tokens, _ = block(tokens, stream.mask)
        return stream._replace(tokens=tokens)


class SingleStream(nn.Module):
    """The ablation (section 4.1, "Single-Stream"): one BERT over the concatenated tokens and regions.

    It has the shape of the text stream. As in BERT, its pooled output is a tanh layer over the first token.
    """

    def __init__(self, config: ViLBERTConfig):
        super().__init__()
        self.config = config
        self.text_embedding = TextEmbedding(config.text)
        self.region_embedding = RegionEmbedding(config.vision)
        self.blocks = _blocks(config.text)
        self.pool = Linear(config.text.width, config.width)

    def read_text(
        self,
        ids: Int[Tensor, "batch tokens"],
        segments: Int[Tensor, "batch tokens"],
        padding: Bool[Tensor, "batch tokens"] | None = None,
    ) -> Stream:
        """Embed texts."""
        return Stream(self.text_embedding(ids, segments), padding)

    def read_regions(
        self,
        features: Float[Tensor, "batch regions feature_width"],
        boxes: Float[Tensor, "batch regions box"],
        padding: Bool[Tensor, "batch regions"] | None = None,
        steps: Int[Tensor, "batch regions"] | None = None,
    ) -> Stream:
        """Embed regions."""
        return Stream(self.region_embedding(features, boxes, steps), padding)

    def forward(self, text: Stream, vision: Stream) -> Encoded:
        """All layers over tokens and regions; equal rows of the two form pairs."""
        padding = None
        if text.padding is not None or vision.padding is not None:
            sides = (side.tokens.new_zeros(side.tokens.shape[:2], dtype=torch.bool) for side in (text, vision))
            known = (side.padding for side in (text, vision))
            padding = torch.cat([none if p is None else p for none, p in zip(sides, known, strict=True)], dim=1)
        both = Stream(torch.cat([text.tokens, vision.tokens], dim=1), padding)
        tokens = both.tokens
        for block in self.blocks:
            tokens, _ = block(tokens, both.mask)
        length = text.tokens.shape[1]
        return Encoded(tokens[:, :length], tokens[:, length:], self.pool(tokens[:, 0]).tanh(), None, vision.padding)


RENAMED_WEIGHTS = {"meetings.": "co_attention.", "gains.": "query_key_gates."}
"""Beginnings of the weights' names in models of version 0.1.0, and their current names."""


def _rename_weights(module: nn.Module, state: dict[str, Tensor], prefix: str, *rest: Any) -> None:
    """Rename the weights of version 0.1.0 before they are loaded."""
    for name in list(state):
        for old, new in RENAMED_WEIGHTS.items():
            if name.startswith(prefix + old):
                state[prefix + new + name.removeprefix(prefix + old)] = state.pop(name)


def _blocks(config: TextStreamConfig | VisionStreamConfig, kind: type[EncoderBlock] = EncoderBlock) -> nn.ModuleList:
    return nn.ModuleList(
        kind(
            config.width,
            config.heads,
            config.mlp_width,
            eps=EPS,
            activation=config.activation,
            dropout=config.dropout,
            attention_dropout=config.attention_dropout,
        )
        for _ in range(config.depth)
    )


def _mean(stream: Stream) -> Float[Tensor, "batch width"]:
    if stream.padding is None:
        return stream.tokens.mean(dim=1)
    real = ~stream.padding[..., None]
    return (stream.tokens * real).sum(dim=1) / real.sum(dim=1)
