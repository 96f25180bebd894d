"""Where an answer attends to: the positions of the media, and the text of earlier examples."""

from __future__ import annotations

from collections.abc import Callable

import torch
import torch.nn.functional as F

from vislang.capabilities import ChunkAttention, TokenAttention
from vislang.models.flamingo.bridge import Bridge
from vislang.models.flamingo.collate import IGNORED, Batch
from vislang.models.towers.recorded_attention import recorded_attention


def token_maps(bridge: Bridge, batch: Batch, decode: Callable[[int], str]) -> tuple[TokenAttention, ...]:
    """The attention of each token of an answer to the positions of each medium; see :meth:`Bridge.attention_maps`.

    Args:
        bridge: with its language model.
        batch: a single prompt with its answer as the target, and features of its media.
        decode: the text of a token; tokens without text are left out.

    Returns:
        For each token, maps of (frames, rows, columns), one for each medium. A map is that of the position that
        predicted the token.
    """
    assert batch.features is not None
    maps = bridge.attention_maps(batch)[0].float().unflatten(-1, batch.features.shape[1:3])
    side = round(maps.shape[-1] ** 0.5)
    # Videos that are shorter than others are padded.
    frames = [maps.shape[2]] * maps.shape[1] if batch.frames is None else batch.frames[batch.media_index[0]].tolist()
    shown = []
    for column in (batch.targets[0] != IGNORED).nonzero()[:, 0].tolist():
        if text := decode(int(batch.targets[0, column])):
            of_media = zip(maps[column], frames, strict=True)
            grids = [grid[:count].unflatten(1, (side, side)).cpu() for grid, count in of_media]
            shown.append(TokenAttention(text, grids))
    return tuple(shown)


def chunk_shares(bridge: Bridge, batch: Batch, media: int) -> ChunkAttention:
    """The attention of an answer to each medium, and to each medium's text; a mean over tokens, heads and layers.

    Args:
        bridge: with its language model.
        batch: see :func:`token_maps`.
        media: number of media in the prompt.
    """
    with recorded_attention(bridge.lm.lm) as layers:
        maps = bridge.attention_maps(batch)[0].float()
    answer = batch.targets[0] != IGNORED
    to_media = maps[answer].sum(dim=-1).mean(dim=0).cpu()
    if not layers:
        return ChunkAttention(None, to_media)
    chunk_of = F.one_hot(batch.media_time[0], media + 1).float()
    weights = torch.stack([layer[0, answer].mean(dim=0) for layer in layers]).mean(dim=0)
    return ChunkAttention((weights @ chunk_of).cpu(), to_media)
