"""The paper's three Flamingos: the sizes that it states, and batches as long as its training sequences.

Their recipes are in ``vislang/presets``. Alayrac et al. 2022 (arXiv 2204.14198), tables 1 and 5 and section 4.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch

from vislang.models.flamingo.collate import IGNORED, Batch
from vislang.models.flamingo.model import Flamingo


def _stated(language: float, gated: float, total: float) -> dict[str, float]:
    """A row of the paper's table; all three models have the same vision encoder and the same resampler."""
    same = {"vision encoder": 435e6, "resampler": 194e6}
    return {"language model": language, "gated blocks": gated, **same, "total": total}


PAPER: dict[str, dict[str, float]] = {
    "flamingo-3b": _stated(1.4e9, 1.2e9, 3.2e9),
    "flamingo-9b": _stated(7.1e9, 1.6e9, 9.3e9),
    "flamingo-80b": _stated(70e9, 10e9, 80e9),
}
"""Numbers of parameters by preset, for the parts that :meth:`Flamingo.parts` has."""


@dataclass(frozen=True)
class PaperRun:
    """How the paper trained a model: on how many devices, for how many days, and what they are.

    Attributes:
        devices: number of devices.
        days: duration.
        device: name of the device.
        peak: its highest rate in bfloat16, in operations per second.
    """

    devices: int
    days: int
    device: str
    peak: float


PAPER_RUNS = {"flamingo-80b": PaperRun(1536, 15, "TPUv4", 275e12)}
"""By preset; the paper does not state it for the others."""


@dataclass(frozen=True)
class TrainingSequence:
    """A training sequence of the paper.

    Attributes:
        tokens: number of tokens, including those that represent media.
        media: number of images or videos.
        frames: number of frames of each medium.
    """

    tokens: int
    media: int
    frames: int = 1


SEQUENCES = {
    "m3w": TrainingSequence(256, 5),
    "align": TrainingSequence(64, 1),
    "ltip": TrainingSequence(64, 1),
    "vtp": TrainingSequence(64, 1, 8),
}
"""By data set. The length of captions is not stated; 64 tokens are assumed."""


def paper_batch(model: Flamingo, sequence: TrainingSequence, rows: int) -> Batch:
    """A batch with sequences as long as the paper's, without words, and with blank images.

    Each medium is at the beginning of its share of the text, and every text token has a target.

    Args:
        model: the model that reads it.
        sequence: one of :data:`SEQUENCES`.
        rows: number of sequences.
    """
    input_ids = torch.zeros(rows, sequence.tokens, dtype=torch.long)
    input_ids[:, torch.arange(sequence.media) * sequence.tokens // sequence.media] = model.bridge.media_token
    targets = torch.full_like(input_ids, IGNORED)
    is_text = input_ids[:, 1:] != model.bridge.media_token
    targets[:, :-1] = torch.where(is_text, input_ids[:, 1:], IGNORED)
    media = rows * sequence.media
    side = model.vision.image_size
    return Batch(
        input_ids,
        torch.ones_like(input_ids),
        (input_ids == model.bridge.media_token).cumsum(dim=1),
        targets,
        torch.arange(media).view(rows, sequence.media),
        prefix=0,
        pixels=torch.zeros(media * sequence.frames, 3, side, side),
        frames=torch.full((media,), sequence.frames),
        names=[""] * rows,
    )
