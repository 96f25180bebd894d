"""The paper's three Flamingos, built on the meta device to count their parameters part by part.

Alayrac et al. 2022, table 1 and appendix A.1.1. The language models (Chinchilla) and the vision encoder (NFNet-F6) were
never released; for them, the paper's counts are used.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace

import torch

from vislang.errors import UserError
from vislang.models.flamingo.gated_block import GatedCrossAttentionBlock
from vislang.models.flamingo.resampler import PerceiverResampler

FEATURES = 1536
"""Width of NFNet-F6's features, and of the resampler."""

FRAMES = 8
"""Number of time embeddings: one for each frame of a training video."""


@dataclass(frozen=True)
class Stated:
    """Numbers of parameters in the paper's table."""

    language: float
    vision: float
    gated: float
    resampler: float
    total: float


@dataclass(frozen=True)
class Preset:
    """A Flamingo of the paper.

    Attributes:
        name: of the model.
        width: of the language model.
        gated_blocks: number of gated blocks.
        every: there is a gated block before every n-th layer of the language model.
        heads, head_width: of the gated blocks' attention.
        stated: the paper's counts.
        resampler_heads, resampler_head_width: of the resampler's attention.
        latents: of a medium.
        resampler_depth: layers of the resampler.
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


FLAMINGO_3B = Preset(
    name="flamingo-3b",
    width=2048,
    gated_blocks=24,
    every=1,
    heads=16,
    head_width=128,
    stated=Stated(language=1.4e9, vision=435e6, gated=1.2e9, resampler=194e6, total=3.2e9),
)
FLAMINGO_9B = Preset(
    name="flamingo-9b",
    width=4096,
    gated_blocks=10,
    every=4,
    heads=32,
    head_width=128,
    stated=Stated(language=7.1e9, vision=435e6, gated=1.6e9, resampler=194e6, total=9.3e9),
)
FLAMINGO_80B = Preset(
    name="flamingo-80b",
    width=8192,
    gated_blocks=12,
    every=7,
    heads=64,
    head_width=128,
    stated=Stated(language=70e9, vision=435e6, gated=10e9, resampler=194e6, total=80e9),
)

PRESETS = {preset.name: preset for preset in (FLAMINGO_3B, FLAMINGO_9B, FLAMINGO_80B)}


def preset(name: str) -> Preset:
    """A preset by name.

    Raises:
        UserError: there is none of this name.
    """
    if name not in PRESETS:
        raise UserError(f"no preset {name!r}. The presets are {', '.join(PRESETS)}.")
    return PRESETS[name]


@dataclass(frozen=True)
class Part:
    """Number of parameters of a part: ``built`` from the stated shape (None if it was never released), and
    ``stated``."""

    name: str
    trained: bool
    built: int | None
    stated: float


def parts(chosen: Preset) -> list[Part]:
    """All parts; the trained ones are built on the meta device."""
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
    """Parameters of all gated blocks for each possible head width; the paper states only the number of heads.

    The heads may divide the language model's width, be 96 wide as in the resampler, or 64 wide as in OpenFlamingo.
    """
    widths = {"the width split among heads": chosen.width // chosen.heads, "96 a head": 96, "64 a head": 64}
    for name, head_width in widths.items():
        yield name, parts(replace(chosen, head_width=head_width))[2].built or 0


def nearest_reading(chosen: Preset) -> str:
    """The head width whose count is nearest to the stated one."""
    return min(readings(chosen), key=lambda pair: abs(pair[1] - chosen.stated.gated))[0]


def _count(module: torch.nn.Module) -> int:
    return sum(parameter.numel() for parameter in module.parameters())
