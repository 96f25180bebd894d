"""ViLBERT: a stream for text, a stream for vision, and co-attention between them (Lu et al. 2019, arXiv 1908.02265).

Each stream is a transformer of its own width. Between some of their layers stands a co-attentional block, in which each
stream attends to the keys and values of the other. Before the first such block a stream depends on its own input alone.
That part is computed once per item (:meth:`TwoStreams.read_text`, :meth:`TwoStreams.read_regions`), however many pairs
the item is in.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal, NamedTuple

import torch
import torch.nn.functional as F
from jaxtyping import Bool, Float, Int
from torch import Tensor, nn

from vislang.errors import UserError
from vislang.models.base import fill_model, read_settings, write_model
from vislang.nn.attention import Mask, attend, attention_weights, not_padding, split_heads
from vislang.nn.linear import Linear
from vislang.nn.transformer import ACTIVATIONS, EncoderBlock

EPS = 1e-12
"""Of all layer norms, as in BERT."""

# ---------------------------------------------------------------------------------------------- configuration


def _check_shape(name: str, values: Any) -> None:
    """Check counts, widths and rates.

    Raises:
        UserError: one of them is out of its range.
    """
    for what, least in (("width", 1), ("heads", 1), ("mlp_width", 1), ("depth", 0), ("vocabulary_size", 1)):
        value = getattr(values, what, least)
        if value < least:
            raise UserError(f"{name}: {what} is {value}; it must be at least {least}.")
    for what in ("dropout", "attention_dropout"):
        rate = getattr(values, what, 0.0)
        if not 0 <= rate < 1:
            raise UserError(f"{name}: {what} is {rate}; it must be at least 0 and below 1.")
    if values.width % values.heads:
        raise UserError(f"{name}: width {values.width} is no multiple of {values.heads} heads.")


@dataclass
class TextStreamConfig:
    """BERT's encoder (Devlin et al. 2019). The defaults are the base model's.

    Attributes:
        vocabulary_size, max_length, segments: of the embeddings.
        task_tokens: tasks that have a token of their own, inserted behind the first (12-in-1, section 3.2).
        width, depth, heads, mlp_width: of the blocks.
        activation: of their feed-forwards.
        dropout, attention_dropout: rates.
    """

    vocabulary_size: int = 30522
    max_length: int = 512
    segments: int = 2
    task_tokens: int = 0
    width: int = 768
    depth: int = 12
    heads: int = 12
    mlp_width: int = 3072
    activation: Literal["gelu", "relu"] = "gelu"
    dropout: float = 0.1
    attention_dropout: float = 0.1

    def __post_init__(self):
        _check_shape("text", self)
        # Between [CLS], a task's token where there is one, and [SEP] there has to be room for a word.
        least = 3 + (self.task_tokens > 0)
        if self.max_length < least:
            raise UserError(f"text: max_length is {self.max_length}; it must be at least {least}.")


@dataclass
class VisionStreamConfig:
    """Regions of an image as tokens.

    Attributes:
        feature_width: of a region's features.
        classes: what a masked region's distribution is predicted over.
        images: the most images of a document, told apart by a learned vector each (a path's views, as in VLN-BERT);
            1 for no such vectors.
        width, depth, heads, mlp_width: of the blocks. The original's feed-forwards are no wider than its stream.
        activation: of their feed-forwards.
        dropout, attention_dropout: rates.
    """

    feature_width: int = 2048
    classes: int = 1601
    images: int = 1
    width: int = 1024
    depth: int = 6
    heads: int = 8
    mlp_width: int = 1024
    activation: Literal["gelu", "relu"] = "gelu"
    dropout: float = 0.1
    attention_dropout: float = 0.1

    def __post_init__(self):
        _check_shape("vision", self)


@dataclass
class ViLBERTConfig:
    """Two streams and their co-attention. The defaults are the original's base model with six co-attentional blocks.

    Attributes:
        text, vision: the streams.
        co_attention_layers: for each co-attentional block, the number of text layers and of vision layers before it.
        co_attention: False leaves the blocks out; the streams are then first combined in their pooled outputs.
        width, heads: of the co-attention; the width is also that of the pooled outputs.
        fusion: how the pooled outputs of the streams become one.
        dynamic_attention: text scales the queries and keys of vision layers (12-in-1's code).
        region_activation: in the head that predicts classes of regions; None takes the vision stream's.
        single_stream: one BERT reads tokens and regions side by side: the ablation. Only ``feature_width``, ``classes``
            and ``images`` of the vision stream then count, and the co-attention does not.
    """

    text: TextStreamConfig = field(default_factory=TextStreamConfig)
    vision: VisionStreamConfig = field(default_factory=VisionStreamConfig)
    co_attention_layers: Sequence[Sequence[int]] = tuple((6 + n, n) for n in range(6))
    co_attention: bool = True
    width: int = 1024
    heads: int = 8
    fusion: Literal["product", "sum"] = "product"
    dynamic_attention: bool = False
    region_activation: Literal["gelu", "relu"] | None = None
    single_stream: bool = False

    def __post_init__(self):
        if any(len(layers) != 2 for layers in self.co_attention_layers):
            raise UserError("co_attention_layers: each must be a pair: text layers and vision layers before the block.")
        self.co_attention_layers = tuple((int(text), int(vision)) for text, vision in self.co_attention_layers)
        depths = (self.text.depth, self.vision.depth)
        for side, name in enumerate(("text", "vision")):
            before = [layers[side] for layers in self.co_attention_layers]
            if before != sorted(before) or any(not 0 <= count <= depths[side] for count in before):
                raise UserError(
                    f"co_attention_layers: {before} {name} layers before the blocks; the numbers must not fall, and "
                    f"the {name} stream has {depths[side]} layers."
                )
        if self.single_stream and not self.text.width == self.vision.width == self.width:
            raise UserError(
                f"single_stream: has one width; text has {self.text.width}, vision {self.vision.width}, and the pooled "
                f"output {self.width}."
            )
        _check_shape("co-attention", self)

    @property
    def longest_text(self) -> int:
        """The most word pieces that are read; a task's token takes a position of its own."""
        return self.text.max_length - (self.text.task_tokens > 0)


def preset(name: str) -> ViLBERTConfig:
    """A configuration of the original code: ``base`` or ``large``, and its number of co-attentional blocks.

    Args:
        name: ``base-2``, ``base-4``, ``base-6``, ``base-8``, ``large-2``, ``large-4`` or ``large-6``.

    Raises:
        UserError: another name.
    """
    sizes = {"base": (2, 4, 6, 8), "large": (2, 4, 6)}
    known = {f"{size}-{blocks}": (size, blocks) for size, all_blocks in sizes.items() for blocks in all_blocks}
    if name not in known:
        raise UserError(f"{name}: no such preset; there are {', '.join(known)}.")
    size, blocks = known[name]
    text = TextStreamConfig() if size == "base" else TextStreamConfig(width=1024, depth=24, heads=16, mlp_width=4096)
    first = text.depth - blocks
    return ViLBERTConfig(text, VisionStreamConfig(depth=blocks), tuple((first + n, n) for n in range(blocks)))


# ------------------------------------------------------------------------------------------------- embeddings


class TextEmbedding(nn.Module):
    """Word, position and segment, added and normalised; a task's token may be inserted behind the first."""

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
        """Embed; with task tokens the sequence is longer by one."""
        x = self.words(ids) + self.positions.weight[: ids.shape[1]] + self.segments(segments)
        if self.tasks is not None:
            assert tasks is not None
            x = torch.cat([x[:, :1], self.tasks(tasks)[:, None], x[:, 1:]], dim=1)
        return self.dropout(self.norm(x))


class RegionEmbedding(nn.Module):
    """A region's features and its box, each mapped, added and normalised (section 2.2, "Image representations")."""

    def __init__(self, config: VisionStreamConfig):
        super().__init__()
        self.features = Linear(config.feature_width, config.width)
        self.boxes = nn.Linear(5, config.width)
        self.images = nn.Embedding(config.images, config.width) if config.images > 1 else None
        self.norm = nn.LayerNorm(config.width, EPS)
        self.dropout = nn.Dropout(config.dropout)

    def forward(
        self,
        features: Float[Tensor, "batch regions feature_width"],
        boxes: Float[Tensor, "batch regions 5"],
        steps: Int[Tensor, "batch regions"] | None = None,
    ) -> Float[Tensor, "batch regions width"]:
        """Embed. A box is (left, top, right, bottom, area), each a share; ``steps`` has the image of each region."""
        x = self.features(features) + self.boxes(boxes)
        if self.images is not None and steps is not None:
            x = x + self.images(steps)
        return self.dropout(self.norm(x))


# ------------------------------------------------------------------------------------------------ co-attention


class CoAttentionStream(nn.Module):
    """One stream's side of a co-attentional block: it attends to the other stream, then maps each token on its own."""

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
        """Own queries, the other stream's keys and values; ``mask`` is False at the other stream's padding."""
        attended = attend(queries, keys, values, mask, self.attention_dropout if self.training else 0.0)
        x = self.attention_norm(x + self.dropout(self.to_output(attended)))
        mapped = self.narrow(self.activation(self.widen(x)))
        return self.feed_forward_norm(x + self.dropout(mapped))


class CoAttentionBlock(nn.Module):
    """The co-attentional transformer layer (section 2.2, figure 2b)."""

    def __init__(self, config: ViLBERTConfig):
        super().__init__()
        # The dropout rate is that of the stream that is attended to, as in the original.
        self.text = CoAttentionStream(config.text, config.width, config.heads, config.vision.attention_dropout)
        self.vision = CoAttentionStream(config.vision, config.width, config.heads, config.text.attention_dropout)

    def forward(
        self,
        text: Float[Tensor, "batch tokens text_width"],
        vision: Float[Tensor, "batch regions vision_width"],
        text_mask: Bool[Tensor, "batch 1 1 tokens"] | None,
        vision_mask: Bool[Tensor, "batch 1 1 regions"] | None,
    ) -> tuple[Float[Tensor, "batch tokens text_width"], Float[Tensor, "batch regions vision_width"]]:
        """Both streams at once: each attends to the other's input of the block."""
        of_text, of_vision = self.text.project(text), self.vision.project(vision)
        return (
            self.text(text, of_text[0], of_vision[1], of_vision[2], vision_mask),
            self.vision(vision, of_vision[0], of_text[1], of_text[2], text_mask),
        )

    def weights(
        self,
        text: Float[Tensor, "batch tokens text_width"],
        vision: Float[Tensor, "batch regions vision_width"],
        text_mask: Bool[Tensor, "batch 1 1 tokens"] | None,
        vision_mask: Bool[Tensor, "batch 1 1 regions"] | None,
    ) -> tuple[Float[Tensor, "batch heads tokens regions"], Float[Tensor, "batch heads regions tokens"]]:
        """The attention that :meth:`forward` uses, written out: of text over regions, of regions over text."""
        of_text, of_vision = self.text.project(text), self.vision.project(vision)
        return (
            attention_weights(of_text[0], of_vision[1], vision_mask),
            attention_weights(of_vision[0], of_text[1], text_mask),
        )


# ------------------------------------------------------------------------------------------------- two streams


class Stream(NamedTuple):
    """Hidden states of a stream between layers, and True where they are padding."""

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
        pooled_text, pooled_vision: of the first token, and of the first region, which stands for the whole image; a
            single stream pools the first token alone.
        vision_padding: True where there is no region.
    """

    text: Float[Tensor, "batch tokens text_width"]
    vision: Float[Tensor, "batch regions vision_width"]
    pooled_text: Float[Tensor, "batch width"]
    pooled_vision: Float[Tensor, "batch width"] | None
    vision_padding: Bool[Tensor, "batch regions"] | None


class TwoStreams(nn.Module):
    """Both streams, from embeddings to pooled outputs."""

    def __init__(self, config: ViLBERTConfig):
        super().__init__()
        self.config = config
        self.text_embedding = TextEmbedding(config.text)
        self.region_embedding = RegionEmbedding(config.vision)
        self.text_blocks = _blocks(config.text)
        self.vision_blocks = _blocks(config.vision)
        self.co_attention = nn.ModuleList(
            CoAttentionBlock(config) for _ in config.co_attention_layers if config.co_attention
        )
        # 12-in-1's dynamic attention: gates on the queries and on the keys of each vision layer.
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
        """The text stream up to the first co-attentional block: a function of the text alone."""
        tokens = self.text_embedding(ids, segments, tasks)
        if padding is not None and self.text_embedding.tasks is not None:
            padding = torch.cat([padding[:, :1], torch.zeros_like(padding[:, :1]), padding[:, 1:]], dim=1)
        return self._text(Stream(tokens, padding), 0, self._alone[0])

    def read_regions(
        self,
        features: Float[Tensor, "batch regions feature_width"],
        boxes: Float[Tensor, "batch regions 5"],
        padding: Bool[Tensor, "batch regions"] | None = None,
        steps: Int[Tensor, "batch regions"] | None = None,
    ) -> Stream:
        """The vision stream up to the first co-attentional block: a function of the image alone.

        With dynamic attention every vision layer depends on the text, and this is the embedding alone.
        """
        stream = Stream(self.region_embedding(features, boxes, steps), padding)
        return stream if self.query_key_gates else self._vision(stream, 0, self._alone[1], None)

    def forward(self, text: Stream, vision: Stream, weights: list[tuple[Tensor, Tensor]] | None = None) -> Encoded:
        """From the first co-attentional block to the end; rows of the two are pairs.

        The attention weights of each co-attentional block are appended to ``weights``; see
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
        """Layers before the first co-attentional block."""
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
            assert isinstance(block, EncoderBlock)
            if self.query_key_gates:
                assert text is not None
                tokens = _gated(block, tokens, stream.mask, 1 + self.query_key_gates[index](_mean(text)).sigmoid())
            else:
                tokens, _ = block(tokens, stream.mask)
        return stream._replace(tokens=tokens)


class SingleStream(nn.Module):
    """The ablation (section 4.1, "Single-Stream"): tokens and regions side by side in one BERT.

    The text stream's config shapes it; widths are all the same. Its pooled output is of the first token, by tanh, as in
    BERT. Alone, a text and an image are no more than embedded.
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
        boxes: Float[Tensor, "batch regions 5"],
        padding: Bool[Tensor, "batch regions"] | None = None,
        steps: Int[Tensor, "batch regions"] | None = None,
    ) -> Stream:
        """Embed regions."""
        return Stream(self.region_embedding(features, boxes, steps), padding)

    def forward(self, text: Stream, vision: Stream) -> Encoded:
        """All layers, over both; rows of the two are pairs."""
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
"""Weights of the streams that version 0.1.0 saved, as the beginnings of names, and what they are called now."""


def _rename_weights(module: nn.Module, state: dict[str, Tensor], prefix: str, *rest: Any) -> None:
    """Load weights by their old names, too."""
    for name in list(state):
        for old, new in RENAMED_WEIGHTS.items():
            if name.startswith(prefix + old):
                state[prefix + new + name.removeprefix(prefix + old)] = state.pop(name)


def _blocks(config: TextStreamConfig | VisionStreamConfig) -> nn.ModuleList:
    return nn.ModuleList(
        EncoderBlock(
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


def _gated(
    block: EncoderBlock,
    x: Float[Tensor, "batch regions width"],
    mask: Mask | None,
    gates: Float[Tensor, "batch two_widths"],
) -> Float[Tensor, "batch regions width"]:
    """A block whose queries and keys are multiplied by gates, which are the same for all regions of an image."""
    queries, keys, values = block.project(x)
    query_gate, key_gate = (split_heads(gate[:, None], block.attention.heads) for gate in gates.chunk(2, dim=-1))
    output, _ = block.after_attention(x, block.attention.attend(queries * query_gate, keys * key_gate, values, mask))
    return output


def _mean(stream: Stream) -> Float[Tensor, "batch width"]:
    if stream.padding is None:
        return stream.tokens.mean(dim=1)
    real = ~stream.padding[..., None]
    return (stream.tokens * real).sum(dim=1) / real.sum(dim=1)


# ------------------------------------------------------------------------------------------------------- heads


@dataclass
class HeadConfig:
    """A task's head on the streams.

    Attributes:
        kind: ``fused``: the fused pooled outputs; ``pairs``: those of two neighbouring rows side by side (NLVR2: one
            text, two images); ``regions``, ``tokens``: each region or token.
        outputs: how many numbers.
        mlp_width: units of a layer between; 0 for none.
        activation: of these.
        norm: whether they are normalised.
        dropout: rate at which they are dropped.
    """

    kind: Literal["fused", "pairs", "regions", "tokens"]
    outputs: int
    mlp_width: int = 0
    activation: Literal["gelu", "relu"] = "gelu"
    norm: bool = True
    dropout: float = 0.0


def original_heads(width: int = 1024) -> dict[str, HeadConfig]:
    """The heads of 12-in-1 (Lu et al. 2020, arXiv 1912.02315, section 3.3) for co-attention of this width."""
    return {
        "answers": HeadConfig("fused", 3129, 2 * width),
        "answers-gqa": HeadConfig("fused", 1533, 2 * width),
        "pairs": HeadConfig("pairs", 2, 2 * width),
        "match": HeadConfig("fused", 1),
        "entailment": HeadConfig("fused", 3),
        "region": HeadConfig("regions", 1),
        "token": HeadConfig("tokens", 1),
    }


def task_head(config: HeadConfig, streams: ViLBERTConfig) -> nn.Module:
    """A fresh head."""
    width = {
        "fused": streams.width,
        "pairs": 2 * streams.width,
        "regions": streams.vision.width,
        "tokens": streams.text.width,
    }[config.kind]
    if not config.mlp_width:
        return Linear(width, config.outputs)
    layers: list[nn.Module] = [Linear(width, config.mlp_width), _activation(config.activation)]
    layers += [nn.LayerNorm(config.mlp_width, EPS)] if config.norm else []
    layers += [nn.Dropout(config.dropout)] if config.dropout else []
    return nn.Sequential(*layers, Linear(config.mlp_width, config.outputs))


def _activation(name: Literal["gelu", "relu"]) -> nn.Module:
    return nn.GELU() if name == "gelu" else nn.ReLU()


class PretrainingLogits(NamedTuple):
    """What pretraining predicts.

    Attributes:
        words: over the vocabulary.
        regions: over the classes of regions.
        alignment: whether text and image belong together: the first says yes, as in the original.
    """

    words: Float[Tensor, "*tokens vocabulary"]
    regions: Float[Tensor, "*regions classes"]
    alignment: Float[Tensor, "batch 2"]


class PretrainingHeads(nn.Module):
    """What pretraining predicts (section 2.3): masked words, the classes of masked regions, whether the two belong
    together. The last map to words is the word embedding's, as in BERT."""

    def __init__(self, config: ViLBERTConfig):
        super().__init__()
        text, vision = config.text, config.vision
        self.words = _transform(text.width, text.activation)
        self.word_bias = nn.Parameter(torch.zeros(text.vocabulary_size))
        self.regions = nn.Sequential(
            *_transform(vision.width, config.region_activation or vision.activation),
            Linear(vision.width, vision.classes),
        )
        self.alignment = Linear(config.width, 2)

    def forward(
        self,
        text: Float[Tensor, "*tokens text_width"],
        vision: Float[Tensor, "*regions vision_width"],
        fused: Float[Tensor, "batch width"],
        embedding: Float[Tensor, "vocabulary text_width"],
    ) -> PretrainingLogits:
        """Logits.

        Args:
            text, vision: tokens and regions to predict. Give only masked ones: the map to words is the widest there is.
            fused: pooled pairs, see :meth:`ViLBERT.fuse`.
            embedding: of the words.
        """
        words = F.linear(self.words(text), embedding, self.word_bias)
        return PretrainingLogits(words, self.regions(vision), self.alignment(fused))


def _transform(width: int, activation: Literal["gelu", "relu"]) -> nn.Sequential:
    return nn.Sequential(Linear(width, width), _activation(activation), nn.LayerNorm(width, EPS))


def head_key(name: str) -> str:
    """The name of a task's head among the parameters: the task's, unless torch does not allow it for a module."""
    key = name.replace(".", "-")
    while hasattr(_EMPTY, key):
        key += "_"
    return key


_EMPTY = nn.ModuleDict()
"""Names of its attributes, such as "train" and "values", are not allowed for modules in it."""


@dataclass(kw_only=True)
class SavedViLBERT:
    """The ``config.json`` of a network; models with inputs add theirs."""

    streams: ViLBERTConfig
    heads: dict[str, HeadConfig]
    pretraining: bool
    origin: dict[str, Any] | None = None


class ViLBERT(nn.Module):
    """Two streams and heads; tensors in, tensors out.

    Args:
        config: of the streams.
        heads: task heads, by name.
        pretraining: whether the heads of pretraining are there.
        origin: where converted weights came from, for the record.
    """

    def __init__(
        self,
        config: ViLBERTConfig,
        heads: Mapping[str, HeadConfig] | None = None,
        pretraining: bool = True,
        origin: dict[str, Any] | None = None,
    ):
        super().__init__()
        self.config = config
        self.head_configs: dict[str, HeadConfig] = {}
        self.origin = origin
        self.streams: TwoStreams | SingleStream = SingleStream(config) if config.single_stream else TwoStreams(config)
        self.pretraining = PretrainingHeads(config) if pretraining else None
        self.heads = nn.ModuleDict()
        for name, made in (heads or {}).items():
            self.add_head(name, made)
        # The original drops a tenth here, whatever the rates of the streams.
        self.dropout = nn.Dropout(0.1)
        self.apply(self.initialise)

    def add_head(self, name: str, config: HeadConfig) -> None:
        """Give the model a head for one more task, initialised afresh."""
        head = task_head(config, self.config)
        head.apply(self.initialise)
        self.head_configs[name] = config
        self.heads[head_key(name)] = head

    @staticmethod
    def initialise(module: nn.Module) -> None:
        """As BERT: weights by a normal distribution with a standard deviation of 0.02, biases 0."""
        if isinstance(module, nn.Linear | nn.Embedding):
            nn.init.normal_(module.weight, std=0.02)
        if isinstance(module, nn.Linear) and module.bias is not None:
            nn.init.zeros_(module.bias)

    def forward(
        self,
        ids: Int[Tensor, "batch tokens"],
        segments: Int[Tensor, "batch tokens"],
        features: Float[Tensor, "batch regions feature_width"],
        boxes: Float[Tensor, "batch regions 5"],
        text_padding: Bool[Tensor, "batch tokens"] | None = None,
        region_padding: Bool[Tensor, "batch regions"] | None = None,
        steps: Int[Tensor, "batch regions"] | None = None,
        tasks: Int[Tensor, "..."] | None = None,
    ) -> Encoded:
        """Both streams over pairs of a text and an image; see :class:`TextEmbedding` and :class:`RegionEmbedding`.

        :func:`~vislang.models.vilbert.inputs.encode` gives the same, and reads an item once that is in many pairs.
        """
        own = () if tasks is None else (tasks,)
        text = self.streams.read_text(ids, segments, text_padding, *own)
        return self.streams(text, self.streams.read_regions(features, boxes, region_padding, steps))

    def fuse(self, encoded: Encoded) -> Float[Tensor, "batch width"]:
        """One vector a pair (section 2.3, "Vision-and-language alignment")."""
        left, right = encoded.pooled_text, encoded.pooled_vision
        if right is None:
            return self.dropout(left)
        return self.dropout(left * right if self.config.fusion == "product" else left + right)

    def predict(
        self, name: str, encoded: Encoded, fused: Float[Tensor, "batch width"] | None = None
    ) -> Float[Tensor, "..."]:
        """What a head makes of encoded pairs.

        Args:
            name: of the head.
            encoded: pairs.
            fused: what :meth:`fuse` gave, where several heads share it.

        Returns:
            (batch, outputs); of ``pairs`` (batch / 2, outputs); of ``regions`` and ``tokens`` (batch, length, outputs).
        """
        kind = self.head_configs[name].kind
        if kind == "regions":
            scores = self.heads[head_key(name)](self.dropout(encoded.vision))
            # So far down that padding is never the best region; the original's number.
            return scores if encoded.vision_padding is None else scores - 10_000 * encoded.vision_padding[..., None]
        if kind == "tokens":
            return self.heads[head_key(name)](self.dropout(encoded.text))
        fused = self.fuse(encoded) if fused is None else fused
        return self.heads[head_key(name)](fused.unflatten(0, (-1, 2)).flatten(1) if kind == "pairs" else fused)

    def pretraining_logits(
        self,
        text: Float[Tensor, "*tokens text_width"],
        vision: Float[Tensor, "*regions vision_width"],
        fused: Float[Tensor, "batch width"],
    ) -> PretrainingLogits:
        """What pretraining predicts of tokens, regions and pairs; see :class:`PretrainingHeads`."""
        assert self.pretraining is not None
        return self.pretraining(text, vision, fused, self.streams.text_embedding.words.weight)

    def alignment_logits(self, fused: Float[Tensor, "batch width"]) -> Float[Tensor, "batch 2"]:
        """Whether text and image belong together, see :class:`PretrainingLogits`."""
        assert self.pretraining is not None
        return self.pretraining.alignment(fused)

    def settings(self) -> dict[str, Any]:
        """The values of :class:`SavedViLBERT`."""
        return {
            "streams": dataclasses.asdict(self.config),
            "heads": {name: dataclasses.asdict(made) for name, made in self.head_configs.items()},
            "pretraining": self.pretraining is not None,
            "origin": self.origin,
        }

    @classmethod
    def from_settings(cls, saved: SavedViLBERT) -> ViLBERT:
        """A fresh model of the same shape."""
        return cls(saved.streams, saved.heads, saved.pretraining, saved.origin)

    def save(self, folder: Path | str) -> None:
        """Write config and weights."""
        write_model(folder, self, self.settings())

    @classmethod
    def load(cls, folder: Path) -> ViLBERT:
        """Open a folder that :meth:`save` wrote.

        Raises:
            UserError: a setting is wrong, or the weights do not fit or are damaged.
        """
        model = cls.from_settings(read_settings(SavedViLBERT, folder))
        fill_model(model, folder)
        return model.eval()


# ------------------------------------------------------------------------------------------------- pretraining


class PretrainingLabels(NamedTuple):
    """What is to be predicted.

    Attributes:
        words: the ids of masked words, -1 elsewhere.
        regions: True at masked regions.
        region_classes: the distribution over classes of each region.
        aligned: whether text and image of a row belong together.
    """

    words: Int[Tensor, "batch tokens"]
    regions: Bool[Tensor, "batch regions"]
    region_classes: Float[Tensor, "batch regions classes"]
    aligned: Bool[Tensor, "..."]


def pretraining_losses(model: ViLBERT, encoded: Encoded, labels: PretrainingLabels) -> dict[str, Float[Tensor, ""]]:
    """The three losses (section 2.3): ``words``, ``regions``, ``alignment``.

    Words and regions are means over what was masked; where nothing was, the loss is 0, and has a gradient of 0.
    """
    masked = labels.words >= 0
    logits = model.pretraining_logits(encoded.text[masked], encoded.vision[labels.regions], model.fuse(encoded))
    words = F.cross_entropy(logits.words, labels.words[masked], reduction="sum")
    classes = labels.region_classes[labels.regions]
    regions = F.kl_div(logits.regions.log_softmax(dim=-1), classes, reduction="sum")
    alignment = F.cross_entropy(logits.alignment, (~labels.aligned).long())
    return {
        "words": words / masked.sum().clamp(min=1),
        "regions": regions / labels.regions.sum().clamp(min=1),
        "alignment": alignment,
    }
