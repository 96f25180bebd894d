"""Task heads, which turn the output of an encoder into logits."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal, NamedTuple

import torch
import torch.nn.functional as F
from jaxtyping import Bool, Float, Int
from torch import Tensor, nn

from vislang.errors import UserError
from vislang.models.data2vec.blocks import EncoderConfig
from vislang.models.data2vec.front_ends import FrontEndConfig, TextConfig
from vislang.models.settings import must_be_at_least, must_be_rates
from vislang.nn.embed import frames

Kind = Literal["classification", "regression", "tagging", "ctc", "language", "answering", "choice", "speaker"]


@dataclass
class HeadConfig:
    """Configuration of a head.

    Attributes:
        kind: ``classification`` of the input; ``regression`` to a number; ``tagging``: a label for each token, patch or
            frame; ``ctc``: a transcript of speech; ``language``: masked tokens of a text; ``answering``: start and end
            of an answer in a text; ``choice`` of one text among several; ``speaker``: an x-vector of speech (Snyder et
            al. 2018).
        pooling: how the output becomes one vector: the ``mean`` over tokens, patches or frames, or the ``first`` token
            (the start token of text, or a class token).
        dropout: dropout rate before each linear layer.
        norm: normalise the pooled vector.
        inner: units of a hidden linear layer; None for no such layer. For a speaker, the width of the x-vector.
        activation: activation of the hidden layer.
        layer_sum: use a learned average of the first block's input and all blocks' outputs, not the last output.
        tied: the last layer of a language head shares its weights with the token embeddings.
        convolutions: (channels, kernel, dilation) of a speaker head's convolutions over frames.
    """

    kind: Kind = "classification"
    pooling: Literal["mean", "first"] = "mean"
    dropout: float = 0.1
    norm: bool = False
    inner: int | None = None
    activation: Literal["none", "tanh"] = "none"
    layer_sum: bool = False
    tied: bool = True
    convolutions: Sequence[Sequence[int]] = ((512, 5, 1), (512, 3, 2), (512, 3, 3), (512, 1, 1), (1500, 1, 1))

    def __post_init__(self):
        must_be_at_least(1, self, "inner", of="head.")
        must_be_rates(self, "dropout", of="head.")
        if any(len(layer) != 3 or min(layer) < 1 for layer in self.convolutions):
            raise UserError(
                f"head.convolutions is {self.convolutions}; each is channels, kernel and dilation, all at least 1."
            )


class Encoded(NamedTuple):
    """The output of an encoder.

    Attributes:
        tokens: output of the last block, class tokens first.
        padding: True at padding.
        class_tokens: number of class tokens.
        layers: the first block's input and each block's output, if the head averages them.
    """

    tokens: Float[Tensor, "batch tokens width"]
    padding: Bool[Tensor, "batch tokens"] | None
    class_tokens: int
    layers: list[Tensor]

    def without_class_tokens(self) -> tuple[Tensor, Tensor | None]:
        """Tokens and padding without class tokens."""
        padding = None if self.padding is None else self.padding[:, self.class_tokens :]
        return self.tokens[:, self.class_tokens :], padding


class Head(nn.Module, ABC):
    """The common part of all heads; the last layer of a head is ``output``.

    Args:
        config: configuration of the head.
        encoder: configuration of the encoder.
    """

    output: nn.Linear

    def __init__(self, config: HeadConfig, encoder: EncoderConfig):
        super().__init__()
        self.config = config
        self.dropout = nn.Dropout(config.dropout)
        count = encoder.depth + 1
        self.layer_weights = nn.Parameter(torch.full((count,), 1 / count)) if config.layer_sum else None

    def forward(self, encoded: Encoded) -> Float[Tensor, "batch ... outputs"]:
        """Logits."""
        if self.layer_weights is not None:
            shares = self.layer_weights.softmax(dim=0)
            average = torch.einsum("lbtw,l->btw", torch.stack(encoded.layers), shares)
            encoded = encoded._replace(tokens=average)
        return self.read(encoded)

    @abstractmethod
    def read(self, encoded: Encoded) -> Float[Tensor, "batch ... outputs"]:
        """Logits from the tokens."""


class WholeHead(Head):
    """Logits for each input: ``classification``, ``regression``, ``choice``."""

    def __init__(self, config: HeadConfig, encoder: EncoderConfig, outputs: int):
        super().__init__(config, encoder)
        width = encoder.width
        self.norm = nn.LayerNorm(width, encoder.eps) if config.norm else None
        self.inner = nn.Linear(width, config.inner) if config.inner else None
        self.output = nn.Linear(config.inner or width, outputs)

    def read(self, encoded: Encoded) -> Float[Tensor, "batch outputs"]:
        """Pool the tokens, then apply the linear layers."""
        if self.config.pooling == "first":
            pooled = encoded.tokens[:, 0]
        else:
            tokens, padding = encoded.without_class_tokens()
            pooled = tokens.mean(dim=1) if padding is None else _mean(tokens, padding)
        if self.norm is not None:
            pooled = self.norm(pooled)
        if self.inner is not None:
            # For choices, the pooled vector has no dropout, as in BERT.
            pooled = self.inner(pooled if self.config.kind == "choice" else self.dropout(pooled))
            pooled = pooled.tanh() if self.config.activation == "tanh" else pooled
        return self.output(self.dropout(pooled))


def _mean(tokens: Tensor, padding: Tensor) -> Tensor:
    real = ~padding[..., None]
    return (tokens * real).sum(dim=1) / real.sum(dim=1)


class TokenHead(Head):
    """Logits for each token, patch or frame: ``tagging``, ``ctc``, ``answering``."""

    def __init__(self, config: HeadConfig, encoder: EncoderConfig, outputs: int):
        super().__init__(config, encoder)
        self.output = nn.Linear(encoder.width, outputs)

    def read(self, encoded: Encoded) -> Float[Tensor, "batch tokens outputs"]:
        """Map each position on its own."""
        return self.output(self.dropout(encoded.without_class_tokens()[0]))


class LanguageHead(Head):
    """Logits over the vocabulary at each position (RoBERTa's head, Liu et al. 2019): ``language``."""

    def __init__(self, config: HeadConfig, encoder: EncoderConfig, outputs: int):
        super().__init__(config, encoder)
        self.dense = nn.Linear(encoder.width, encoder.width)
        self.norm = nn.LayerNorm(encoder.width, encoder.eps)
        self.output = nn.Linear(encoder.width, outputs)

    def read(self, encoded: Encoded) -> Float[Tensor, "batch tokens outputs"]:
        """Map each position on its own."""
        return self.output(self.norm(F.gelu(self.dense(encoded.without_class_tokens()[0]))))


class SpeakerHead(Head):
    """An x-vector: convolutions over frames, mean and standard deviation over time, two linear layers (Snyder et al.
    2018): ``speaker``.

    Its logits have the width of the x-vector; :meth:`similarities` compares them with the labels.
    """

    def __init__(self, config: HeadConfig, encoder: EncoderConfig, outputs: int):
        super().__init__(config, encoder)
        inner = config.inner or encoder.width
        widths = [config.convolutions[0][0], *(channels for channels, _, _ in config.convolutions)]
        self.project = nn.Linear(encoder.width, widths[0])
        # A 2d kernel that is as wide as the channels is a convolution over frames.
        self.convolutions = nn.ModuleList(
            nn.Conv2d(1, channels, (kernel, before), dilation=(dilation, 1))
            for before, (channels, kernel, dilation) in zip(widths, config.convolutions, strict=False)
        )
        self.vector = nn.Linear(2 * widths[-1], inner)
        self.output = nn.Linear(inner, inner)
        self.speakers = nn.Parameter(torch.randn(inner, outputs))

    def read(self, encoded: Encoded) -> Float[Tensor, "batch inner"]:
        """Compute the x-vector, and apply the last layer."""
        tokens, padding = encoded.without_class_tokens()
        hidden = self.project(tokens)
        for convolution in self.convolutions:
            hidden = F.relu(convolution(hidden[:, None])).squeeze(-1).transpose(1, 2)
        lengths = [hidden.shape[1]] * len(hidden) if padding is None else self._lengths(padding).tolist()
        rows = [row[:length] for row, length in zip(hidden, lengths, strict=True)]
        statistics = torch.stack([torch.cat([row.mean(dim=0), row.std(dim=0)]) for row in rows])
        return self.output(self.vector(statistics))

    def _lengths(self, padding: Bool[Tensor, "batch frames"]) -> Int[Tensor, "..."]:
        # As in transformers, which ignores the dilation here: a few padded frames are included.
        return frames((~padding).sum(dim=1), [(width, kernel, 1) for width, kernel, _ in self.config.convolutions])

    def similarities(self, logits: Float[Tensor, "batch inner"]) -> Float[Tensor, "batch outputs"]:
        """The cosine similarity with each speaker's vector, as trained by the additive-margin softmax (Wang et al.
        2018)."""
        return F.normalize(logits, dim=1) @ F.normalize(self.speakers, dim=0)


HEADS: dict[str, type[WholeHead] | type[TokenHead] | type[LanguageHead] | type[SpeakerHead]] = {
    "classification": WholeHead,
    "regression": WholeHead,
    "choice": WholeHead,
    "tagging": TokenHead,
    "ctc": TokenHead,
    "answering": TokenHead,
    "language": LanguageHead,
    "speaker": SpeakerHead,
}

NEEDS = {"ctc": "speech", "speaker": "speech", "language": "text", "answering": "text", "choice": "text"}
"""The modality of heads for a single modality."""


def must_fit(config: HeadConfig, modality: str, front_end: FrontEndConfig) -> None:
    """Check that a head can be used with an encoder of this modality.

    Raises:
        UserError: it cannot.
    """
    if config.kind in NEEDS and modality != NEEDS[config.kind]:
        raise UserError(f"head.kind {config.kind} is for {NEEDS[config.kind]}, and this model reads {modality}.")
    if config.pooling == "first" and modality != "text" and front_end.class_tokens == 0:
        raise UserError(f"head.pooling first: this {modality} model has no class token; use the mean.")


def outputs_without_labels(config: HeadConfig, front_end: FrontEndConfig) -> int | None:
    """The number of outputs of a head without named labels; None if it is the number of labels."""
    if config.kind == "language":
        assert isinstance(front_end, TextConfig)
        return front_end.vocabulary_size
    return {"regression": 1, "choice": 1, "answering": 2}.get(config.kind)


def make_head(config: HeadConfig, encoder: EncoderConfig, outputs: int) -> Head:
    """A new head, with linear layers initialised as in BERT."""
    head = HEADS[config.kind](config, encoder, outputs)
    for module in head.modules():
        if isinstance(module, nn.Linear):
            nn.init.normal_(module.weight, std=0.02)
            nn.init.zeros_(module.bias)
    return head
