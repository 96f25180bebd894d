"""The shape of a Flamingo's bridge: what trains between the two frozen models."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from vislang.errors import UserError
from vislang.models.settings import must_be_at_least


@dataclass
class FlamingoConfig:
    """The shape of the bridge. The defaults are OpenFlamingo's; ``vislang/presets`` has the paper's.

    Attributes:
        gated_layers: indices of the language model's layers that have a gated block before them. None puts a block
            before every layer i with (i + 1) % gate_every == 0.
        gate_every: see ``gated_layers``.
        initial_gate: tanh of the gates at the start of training, from 0 (closed, as in the paper) to below 1. With open
            gates, untrained blocks change the language model's hidden states (table 3, "tanh gating").
        resampler: what the gated blocks attend to. ``perceiver`` maps the features of a medium to a fixed number of
            latents. ``transformer`` and ``mlp`` keep every position of an image (table 3, "resampler"): each layer is
            self-attention and a feed-forward layer, or a feed-forward layer alone.
        latents: number of latents of a medium, of a ``perceiver``.
        resampler_width: width of the latents. None takes the width of the vision tower's features.
        resampler_depth: number of layers of the resampler.
        heads, head_width: number and width of attention heads, in the resampler and in the gated blocks.
        resampler_heads, resampler_head_width: those of the resampler, if they differ.
        expansion: inner width of each feed-forward layer, as a multiple of its width.
        scales: the scale of each gated block (see GatedCrossAttentionBlock), lowest layer first. None measures the
            scales on the language model; the paper has 1 everywhere.
        standardise_text: before training, set the layer norms of the gated blocks so that over the training questions,
            at the token after which the answer begins, each channel has mean 0 and standard deviation 1 (see
            GatedCrossAttentionBlock.standardise). The paper starts from plain layer norms.
        gate_all_text: apply the gated blocks' feed-forward layer also to text before the first medium, as the paper
            does. Otherwise only the frozen language model reads such text, once for each text (see
            :mod:`vislang.models.flamingo.frozen_text`).
        train_added_tokens: train the embeddings of a media token and of an end-of-chunk token, which are added to the
            language model's vocabulary. No other row of its embedding changes. The layers below the first gate then
            depend on trained parameters, and are computed and differentiated at every step. Otherwise the media token
            keeps its initial embedding, and chunks end with the language model's own end-of-text token.
        media_token: id of the media token, if the language model's vocabulary has one. None adds one.
        chunk_token: id of the end-of-chunk token, if the vocabulary has one. None takes the trained one, or else the
            end-of-text token.
        attend_to: whether a token attends to the ``latest`` medium before it (section 2.3) or to ``all`` before it.
        frames: number of time embeddings, for videos; 0 for a model that reads only images.
    """

    gated_layers: list[int] | None = None
    gate_every: int = 4
    initial_gate: float = 0.0
    resampler: Literal["perceiver", "transformer", "mlp"] = "perceiver"
    latents: int = 64
    resampler_width: int | None = None
    resampler_depth: int = 6
    heads: int = 8
    head_width: int = 64
    resampler_heads: int | None = None
    resampler_head_width: int | None = None
    expansion: int = 4
    scales: list[float] | None = None
    standardise_text: bool = False
    gate_all_text: bool = False
    train_added_tokens: bool = False
    media_token: int | None = None
    chunk_token: int | None = None
    attend_to: Literal["latest", "all"] = "latest"
    frames: int = 0

    def __post_init__(self):
        counts = ("gate_every", "latents", "resampler_width", "resampler_depth", "heads", "head_width", "expansion")
        must_be_at_least(1, self, *counts, "resampler_heads", "resampler_head_width", of="bridge.")
        must_be_at_least(0, self, "frames", "media_token", "chunk_token", of="bridge.")
        if not 0 <= self.initial_gate < 1:
            raise UserError(f"bridge.initial_gate is {self.initial_gate}; it must be at least 0 and below 1.")
        if self.frames and self.resampler != "perceiver":
            raise UserError(
                f"bridge.frames is {self.frames}, and bridge.resampler is {self.resampler}, which reads only images. "
                "Set frames to 0, or take the perceiver."
            )
