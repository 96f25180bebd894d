"""The media that a text attends to: their keys and values, and which of them each token sees."""

from __future__ import annotations

from collections.abc import Sequence
from functools import cached_property

import torch
import torch.nn.functional as F
from jaxtyping import Bool, Int
from torch import Tensor

from vislang.nn.attention import KeysValues


class MediaKeysValues:
    """Keys and values of the media of a batch for every gated layer, projected once.

    Args:
        by_layer: for each gated layer, keys and values (media, heads, latents, head width) of each distinct medium.
        index: (rows, row media) the media of each row; -1 where a row has fewer.
    """

    def __init__(self, by_layer: dict[int, KeysValues], index: Int[Tensor, "rows row_media"]):
        self.by_layer = by_layer
        self.index = index
        self.latents = next(iter(by_layer.values())).keys.shape[2]

    def of_rows(self, layer: int) -> KeysValues:
        """(rows, heads, row media * latents, head width): the media of each row, concatenated."""
        if self._in_order:
            # Reshaping is enough, and no gradient has to be scattered.
            chosen = (side.unflatten(0, self.index.shape) for side in self.by_layer[layer])
        else:
            chosen = (side[self.index.clamp(min=0)] for side in self.by_layer[layer])
        return KeysValues(*(side.transpose(1, 2).flatten(2, 3) for side in chosen))

    @cached_property
    def _in_order(self) -> bool:
        """Whether each medium occurs once, in order. Found once for all layers, since a GPU is waited for."""
        media = len(next(iter(self.by_layer.values())).keys)
        return torch.equal(self.index.clamp(min=0).flatten(), torch.arange(media, device=self.index.device))

    def present(self) -> Bool[Tensor, "rows row_latents"]:
        """True for the latents of a row's media, False where the row has fewer media than others."""
        return (self.index >= 0).repeat_interleave(self.latents, dim=1)

    def of(self, rows: Int[Tensor, "..."], times: Int[Tensor, "..."] | None = None) -> MediaKeysValues:
        """The media of some rows. With ``times`` only one medium of each row: its n-th, counted from 1, or none for
        0."""
        index = self.index[rows]
        if times is not None:
            latest = index.gather(1, (times - 1).clamp(min=0)[:, None])
            index = latest.masked_fill(times[:, None] == 0, -1)
        return MediaKeysValues(self.by_layer, index)

    def followed_by(self, others: MediaKeysValues) -> MediaKeysValues:
        """The media of each row, followed by the media that the same row has in ``others``."""
        by_layer, known = {}, len(next(iter(self.by_layer.values())).keys)
        for layer, (keys, values) in self.by_layer.items():
            more = others.by_layer[layer]
            by_layer[layer] = KeysValues(torch.cat([keys, more.keys]), torch.cat([values, more.values]))
        moved = torch.where(others.index >= 0, others.index + known, others.index)
        return MediaKeysValues(by_layer, torch.cat([self.index, moved], dim=1))


def stacked(each: Sequence[MediaKeysValues]) -> MediaKeysValues:
    """The rows of several; media that no row has are left out."""
    most = max(media.index.shape[1] for media in each)
    index, used, known = [], [], 0
    for media in each:
        own, place = media.index.clamp(min=0).unique(return_inverse=True)
        moved = torch.where(media.index >= 0, place + known, media.index)
        index.append(F.pad(moved, (0, most - moved.shape[1]), value=-1))
        used.append(own)
        known += len(own)
    by_layer = {
        layer: KeysValues(
            torch.cat([media.by_layer[layer].keys[own] for media, own in zip(each, used, strict=True)]),
            torch.cat([media.by_layer[layer].values[own] for media, own in zip(each, used, strict=True)]),
        )
        for layer in each[0].by_layer
    }
    return MediaKeysValues(by_layer, torch.cat(index))


def media_mask(
    media_time: Int[Tensor, "batch tokens"],
    media_count: int,
    latents: int,
    all_before: bool = False,
    media_before: Int[Tensor, "batch tokens"] | None = None,
) -> Bool[Tensor, "batch tokens row_latents"]:
    """Flamingo's mask: each token attends only to the latest medium before it (section 2.3, figure 7).

    Args:
        media_time: (batch, tokens) the index of each token's medium, counted from 1; 0 for no medium.
        media_count: number of media in a row.
        latents: number of latents of each medium.
        all_before: a token attends to all media up to its own.
        media_before: (batch, tokens) with ``all_before``, for packed rows: how many media of the row belong to earlier
            documents, which the token must not attend to.

    Returns:
        True where a token may attend to a latent; the latents of all media are concatenated.
    """
    order = torch.arange(1, media_count + 1, device=media_time.device).repeat_interleave(latents)
    if not all_before:
        return media_time[..., None] == order
    first = torch.zeros_like(media_time) if media_before is None else media_before
    return (order <= media_time[..., None]) & (order > first[..., None])
