"""Configurations of ViLBERT's streams, and the published ones by name."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any, Literal

from vislang.errors import UserError
from vislang.models.settings import must_be_at_least, must_be_rates

EPS = 1e-12
"""eps of all layer norms, as in BERT."""


def _check_shape(name: str, values: Any) -> None:
    """Check widths, depths and rates.

    Raises:
        UserError: one of them is out of range.
    """
    must_be_at_least(1, values, "width", "heads", of=f"{name}.")
    if not isinstance(values, ViLBERTConfig):
        must_be_at_least(1, values, "mlp_width", of=f"{name}.")
        must_be_at_least(0, values, "depth", of=f"{name}.")
        must_be_rates(values, "dropout", "attention_dropout", of=f"{name}.")
    if values.width % values.heads:
        raise UserError(f"{name}.width {values.width} is not a multiple of {values.heads} heads.")


@dataclass
class TextStreamConfig:
    """BERT's encoder (Devlin et al. 2019). The defaults are the base model's.

    Attributes:
        vocabulary_size, max_length, segments: sizes of the embeddings.
        task_tokens: number of task tokens; one is inserted after the first token (12-in-1, section 3.2).
        width, depth, heads, mlp_width: shape of the blocks.
        activation: activation of the feed-forward layers.
        dropout, attention_dropout: dropout rates.
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
        must_be_at_least(1, self, "vocabulary_size", "segments", of="text.")
        must_be_at_least(0, self, "task_tokens", of="text.")
        # There must be room for a word between [CLS], the task token if there is one, and [SEP].
        least = 3 + (self.task_tokens > 0)
        if self.max_length < least:
            raise UserError(f"text.max_length is {self.max_length}; it must be at least {least}.")


@dataclass
class VisionStreamConfig:
    """The vision stream, whose tokens are regions of an image.

    Attributes:
        feature_width: width of a region's features.
        classes: number of classes that are predicted for masked regions.
        images: greatest number of images of a document, such as the views of a path (VLN-BERT). Each has a learned
            embedding; 1 for no embeddings.
        directions: whether the direction of the camera is read, of images on a path (VLN-BERT).
        width, depth, heads, mlp_width: shape of the blocks. In the original, mlp_width equals width.
        activation: activation of the feed-forward layers.
        dropout, attention_dropout: dropout rates.
    """

    feature_width: int = 2048
    classes: int = 1601
    images: int = 1
    directions: bool = False
    width: int = 1024
    depth: int = 6
    heads: int = 8
    mlp_width: int = 1024
    activation: Literal["gelu", "relu"] = "gelu"
    dropout: float = 0.1
    attention_dropout: float = 0.1

    def __post_init__(self):
        _check_shape("vision", self)
        must_be_at_least(1, self, "feature_width", "images", of="vision.")
        must_be_at_least(0, self, "classes", of="vision.")


@dataclass
class ViLBERTConfig:
    """Two streams and their co-attention. The defaults are the original's base model with six co-attention layers.

    Attributes:
        text, vision: the streams.
        co_attention_layers: for each co-attention layer, the numbers of text layers and of vision layers before it.
        co_attention: False omits these layers; then only the pooled outputs of the streams are combined.
        width, heads: shape of the co-attention; the pooled outputs have the same width.
        fusion: how the pooled outputs of the two streams are combined.
        dynamic_attention: let the text scale the queries and keys of the vision layers (12-in-1's code).
        region_activation: activation of the head for region classes; None takes the vision stream's.
        single_stream: the single-stream ablation: one BERT reads tokens and regions together. It uses only
            ``feature_width``, ``classes`` and ``images`` of the vision stream, and no co-attention.
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
            raise UserError(
                "co_attention_layers: each entry must be a pair: text layers and vision layers before the block."
            )
        self.co_attention_layers = tuple((int(text), int(vision)) for text, vision in self.co_attention_layers)
        depths = (self.text.depth, self.vision.depth)
        for side, name in enumerate(("text", "vision")):
            before = [layers[side] for layers in self.co_attention_layers]
            if before != sorted(before) or any(not 0 <= count <= depths[side] for count in before):
                raise UserError(
                    f"co_attention_layers: {before} {name} layers before the blocks; the numbers must not decrease, "
                    f"and must not exceed the {name} stream's {depths[side]} layers."
                )
        if self.single_stream and not self.text.width == self.vision.width == self.width:
            raise UserError(
                f"single_stream: all widths must be equal; text has {self.text.width}, vision {self.vision.width}, and "
                f"the pooled output {self.width}."
            )
        _check_shape("streams", self)

    @property
    def longest_text(self) -> int:
        """The greatest number of word pieces of a text; a task token takes one position."""
        return self.text.max_length - (self.text.task_tokens > 0)


def preset(name: str) -> ViLBERTConfig:
    """A configuration of the original code: ``base`` or ``large``, and its number of co-attention layers.

    Args:
        name: ``base-2``, ``base-4``, ``base-6``, ``base-8``, ``large-2``, ``large-4`` or ``large-6``.

    Raises:
        UserError: another name.
    """
    sizes = {"base": (2, 4, 6, 8), "large": (2, 4, 6)}
    known = {f"{size}-{blocks}": (size, blocks) for size, all_blocks in sizes.items() for blocks in all_blocks}
    if name not in known:
        raise UserError(f"no preset {name!r}. The presets are {', '.join(known)}.")
    size, blocks = known[name]
    text = TextStreamConfig() if size == "base" else TextStreamConfig(width=1024, depth=24, heads=16, mlp_width=4096)
    first = text.depth - blocks
    return ViLBERTConfig(text, VisionStreamConfig(depth=blocks), tuple((first + n, n) for n in range(blocks)))
