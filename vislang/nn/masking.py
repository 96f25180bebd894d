"""Random masks over tokens, patches and frames, for masked prediction.

Each function uses a generator that the caller seeds, so the same seed masks the same positions. A batch is masked
example by example (:func:`generator_of`), so a mask does not depend on the other examples. A mask is never empty and
never covers everything.
"""

from __future__ import annotations

import math
from typing import NamedTuple

import torch
from jaxtyping import Bool, Int
from torch import Tensor


def generator_of(seed: int, number: int) -> torch.Generator:
    """The random generator of an example in a batch; it does not depend on the other examples.

    Args:
        seed: seed of the batch.
        number: index of the example in the batch; below 1,000,003.
    """
    return torch.Generator().manual_seed((seed * 1_000_003 + number) % 2**63)


class MaskedTokens(NamedTuple):
    """The tokens that a model reads, and True where it predicts (including chosen tokens that were left unchanged)."""

    input_ids: Int[Tensor, "batch tokens"]
    mask: Bool[Tensor, "batch tokens"]


def mask_tokens(
    input_ids: Int[Tensor, "batch tokens"],
    maskable: Bool[Tensor, "batch tokens"],
    mask_id: int,
    vocabulary_size: int,
    generator: torch.Generator,
    rate: float = 0.15,
    replaced: float = 0.8,
    randomised: float = 0.1,
    span: int = 1,
) -> MaskedTokens:
    """Choose tokens and mask most of them (BERT, Devlin et al. 2019, section 3.1; data2vec, section 4.3).

    Some of the chosen tokens become the mask token, some a random token, and the rest is unchanged. In each row,
    ``rate`` of the maskable tokens are chosen, rounded, but at least one. fairseq's released text model
    differs: ``rate=0.35, replaced=1, randomised=0, span=4``.

    Args:
        input_ids: the tokens.
        maskable: False at padding and special tokens, which are never chosen.
        mask_id: the mask token.
        vocabulary_size: random tokens are drawn below this.
        generator: the source of randomness.
        rate: share of the maskable tokens that is chosen.
        replaced: share of the chosen tokens that become the mask token.
        randomised: share of the chosen tokens that become a random token.
        span: choose runs of this many tokens; the last run is shortened to fit the number.

    Raises:
        ValueError: a row has no maskable token.
    """
    counts = maskable.sum(dim=1)
    if bool((counts == 0).any()):
        raise ValueError("a text has no token that could be masked")
    wanted = (counts * rate).round().long().clamp(min=1)
    order = torch.rand(input_ids.shape, generator=generator)
    if span > 1:
        order = _run_order(order, span)
    order = order.masked_fill(~maskable, math.inf)
    ranks = order.argsort(dim=1).argsort(dim=1)
    mask = ranks < wanted[:, None]
    fate = torch.rand(input_ids.shape, generator=generator)
    drawn = torch.randint(vocabulary_size, input_ids.shape, generator=generator)
    replaced_ids = torch.where(mask & (fate < replaced), mask_id, input_ids)
    return MaskedTokens(torch.where(mask & (fate >= 1 - randomised), drawn, replaced_ids), mask)


def _run_order(order: Tensor, span: int) -> Tensor:
    """Give all tokens of a run of ``span`` the same rank, so they are chosen together; runs start at a random
    offset."""
    offset = int(order[0, 0].item() * span)
    runs = (torch.arange(order.shape[1]) + offset) // span
    # Within a run, tokens are ordered from left to right, so a run that is shortened loses its end.
    return order[:, runs.clamp(max=order.shape[1] - 1)] + 1e-6 * torch.arange(order.shape[1])


def block_mask(
    rows: int,
    columns: int,
    masked: int,
    generator: torch.Generator,
    smallest: int = 16,
    aspect: float = 0.3,
) -> Bool[Tensor, "rows columns"]:
    """Mask exactly ``masked`` patches of a grid by blocks (BEiT, Bao et al. 2022, algorithm 1; data2vec, section 4.1).

    A block covers at least ``smallest`` patches and has a ratio of height to width between ``aspect`` and
    ``1 / aspect``. Blocks are drawn until enough patches are masked; they may overlap. The last block is cut, row by
    row, to the number that is still missing.

    Raises:
        ValueError: no patch or every patch would be masked.
    """
    patches = rows * columns
    if not 0 < masked < patches:
        raise ValueError(f"cannot mask {masked} of {patches} patches; at least one must be masked and one visible")
    smallest = min(smallest, masked)
    mask = torch.zeros(rows, columns, dtype=torch.bool)
    while (left := masked - int(mask.sum())) > 0:
        area = _uniform(generator, smallest, max(smallest, left))
        ratio = math.exp(_uniform(generator, math.log(aspect), -math.log(aspect)))
        height = min(rows, max(1, round(math.sqrt(area * ratio))))
        width = min(columns, max(1, round(math.sqrt(area / ratio))))
        # Rounding and the border of the grid must not make a block smaller than the minimum.
        while height * width < smallest:
            if width < columns and (width <= height or height == rows):
                width += 1
            else:
                height += 1
        top = int(_uniform(generator, 0, rows - height + 1))
        left_edge = int(_uniform(generator, 0, columns - width + 1))
        block = torch.zeros_like(mask)
        block[top : top + height, left_edge : left_edge + width] = True
        new = (block & ~mask).flatten().nonzero()[:left, 0]
        mask.view(-1)[new] = True
    return mask


def _uniform(generator: torch.Generator, low: float | int, high: float | int) -> float:
    return low + (high - low) * torch.rand((), generator=generator).item()


def inverse_block_mask(
    batch: int,
    rows: int,
    columns: int,
    mask_ratio: float,
    generator: torch.Generator,
    block: int = 3,
    adjust: float = 0.07,
) -> Bool[Tensor, "batch rows columns"]:
    """Choose square blocks to keep, and mask the rest (data2vec 2.0, section 3.4).

    Every sample keeps the same number of patches, ``1 - mask_ratio`` of all, rounded down: the patches of the blocks,
    from which random patches are removed or to which random patches are added.

    Args:
        batch: number of masks.
        rows, columns: of the grid.
        mask_ratio: share of the patches to mask.
        generator: the source of randomness.
        block: side of a block, in patches.
        adjust: added to the share to keep when the number of blocks is computed, because blocks overlap.

    Raises:
        ValueError: nothing or everything would be masked.
    """
    patches = rows * columns
    kept = int(patches * (1 - mask_ratio) + 1e-9)
    if not 0 < kept < patches:
        raise ValueError(
            f"cannot mask {mask_ratio:.0%} of {patches} patches; at least one must be masked and one visible"
        )
    count = max(1, int(patches * (1 - mask_ratio + adjust) / block**2))
    centres = torch.randint(patches, (batch, count), generator=generator)
    offsets = torch.arange(block) - block // 2
    down = (centres // columns)[..., None, None] + offsets[:, None]
    right = (centres % columns)[..., None, None] + offsets
    index = down.clamp(0, rows - 1) * columns + right.clamp(0, columns - 1)
    in_block = torch.zeros(batch, patches).scatter_(1, index.expand(-1, -1, block, block).flatten(1), 1.0)
    # Patches of blocks come before all others, in a drawn order among themselves.
    order = in_block + torch.rand(batch, patches, generator=generator)
    mask = torch.ones(batch, patches, dtype=torch.bool)
    mask.scatter_(1, order.topk(kept, dim=1).indices, False)
    return mask.view(batch, rows, columns)


def span_mask(
    lengths: Int[Tensor, "#batch"],
    frames: int,
    generator: torch.Generator,
    rate: float = 0.65,
    span: int = 10,
    same: bool = False,
) -> Bool[Tensor, "batch frames"]:
    """Mask spans of frames (wav2vec 2.0, Baevski et al. 2020, section 3.1; data2vec, section 4.2).

    In each sample, ``rate * length / span`` starts are drawn, rounded up or down at random. Spans may overlap, so with
    the defaults about half of the frames are masked. Padded frames are never masked. In a sample that is too short for
    a span and a visible frame, the spans are shortened.

    Args:
        lengths: number of real frames of each sample, at least 2.
        frames: number of frames of the mask.
        generator: the source of randomness.
        rate: see above; 0.65 with spans of 10 frames is the paper's start probability of 0.065.
        span: length of a span.
        same: mask the same number of frames in each sample, by unmasking random frames.

    Raises:
        ValueError: a sample has fewer than 2 frames.
    """
    if bool((lengths < 2).any()):
        raise ValueError("a recording has fewer than two frames; at least one must be masked and one visible")
    mask = torch.zeros(len(lengths), frames, dtype=torch.bool)
    for row, length in zip(mask, lengths.tolist(), strict=True):
        size = min(span, length - 1)
        count = max(1, int(rate * length / span + torch.rand((), generator=generator).item()))
        starts = torch.randperm(length - size + 1, generator=generator)[:count]
        row[(starts[:, None] + torch.arange(size)).flatten()] = True
        if bool(row[:length].all()):
            row[torch.randint(length, (), generator=generator)] = False
    if same:
        fewest = int(mask.sum(dim=1).min())
        order = mask + torch.rand(mask.shape, generator=generator)
        mask = torch.zeros_like(mask).scatter_(1, order.topk(fewest, dim=1).indices, True)
    return mask
