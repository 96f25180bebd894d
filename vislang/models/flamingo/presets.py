"""The paper's three Flamingos by size, built without memory: what their stated shapes amount to, part by part.

Alayrac et al. 2022, table 1 and appendix A.1.1. The language models (Chinchilla) and the vision encoder (NFNet-F6) were
never released; their counts are the paper's own.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace

import torch

from vislang.errors import UserError
from vislang.models.flamingo.bridge import GatedCrossAttentionBlock, PerceiverResampler

FEATURES = 1536
"""Width of NFNet-F6's features, and of the resampler."""

FRAMES = 8
"""Time embeddings: of the frames of a video in training."""


@dataclass(frozen=True)
class Stated:
    """What the paper's table says of a model, in parameters."""

    language: float
    vision: float
    gated: float
    resampler: float
    total: float


@dataclass(frozen=True)
class Preset:
    """A Flamingo of the paper.

    Attributes:
        name: of it.
        width: of the language model.
        gated_blocks: how many there are, each before one layer of the language model.
        every: of how many layers.
        heads, head_width: of the gated blocks' attention.
        resampler_heads, resampler_head_width: of the resampler's.
        stated: counts in the paper's table.
    """

    name: str
    width: int
    gated_blocks: int
    every: int
    heads: int
    head_width: int
    stated: Stated
    resampler_heads: int = 16
    resampler_head_width: int = 96
    latents: int = 64
    resampler_depth: int = 6


PRESETS = {
    preset.name: preset
    for preset in (
        Preset("flamingo-3b", 2048, 24, 1, 16, 128, Stated(1.4e9, 435e6, 1.2e9, 194e6, 3.2e9)),
        Preset("flamingo-9b", 4096, 10, 4, 32, 128, Stated(7.1e9, 435e6, 1.6e9, 194e6, 9.3e9)),
        Preset("flamingo-80b", 8192, 12, 7, 64, 128, Stated(70e9, 435e6, 10e9, 194e6, 80e9)),
    )
}


def preset(name: str) -> Preset:
    """A preset by name.

    Raises:
        UserError: there is none of this name.
    """
    if name not in PRESETS:
        raise UserError(f"{name}: no such preset; there are {', '.join(PRESETS)}.")
    return PRESETS[name]


@dataclass(frozen=True)
class Part:
    """Parameters of a part: ``built`` from the stated shapes (None for what was never released), and as ``stated``."""

    name: str
    trained: bool
    built: int | None
    stated: float


def parts(chosen: Preset) -> list[Part]:
    """Every part, those that train built on the meta device."""
    with torch.device("meta"):
        resampler = PerceiverResampler(
            FEATURES,
            FEATURES,
            chosen.latents,
            chosen.resampler_depth,
            chosen.resampler_heads,
            chosen.resampler_head_width,
            frames=FRAMES,
        )
        block = GatedCrossAttentionBlock(chosen.width, FEATURES, chosen.heads, chosen.head_width)
    stated = chosen.stated
    return [
        Part("language model", False, None, stated.language),
        Part("vision encoder", False, None, stated.vision),
        Part("gated blocks", True, chosen.gated_blocks * _count(block), stated.gated),
        Part("resampler", True, _count(resampler), stated.resampler),
    ]


def readings(chosen: Preset) -> Iterator[tuple[str, int]]:
    """(what the heads might mean, parameters of all gated blocks): the paper states their number, not their width.

    Heads may split the language model's width among them, have the 96 of the resampler's, or OpenFlamingo's 64.
    """
    widths = {"the width split among heads": chosen.width // chosen.heads, "96 a head": 96, "64 a head": 64}
    for name, head_width in widths.items():
        yield name, parts(replace(chosen, head_width=head_width))[2].built or 0


def nearest_reading(chosen: Preset) -> str:
    """The reading whose count comes nearest to the stated one."""
    return min(readings(chosen), key=lambda pair: abs(pair[1] - chosen.stated.gated))[0]


def _count(module: torch.nn.Module) -> int:
    return sum(parameter.numel() for parameter in module.parameters())
