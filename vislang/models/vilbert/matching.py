"""Score all pairs of many images and texts; the layers before the first co-attention layer run once per item (Lu et
al. 2019, section 3.2, "Caption-Based Image Retrieval")."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import torch
from jaxtyping import Bool, Float
from torch import Tensor

from vislang.capabilities import Progress
from vislang.document import Image
from vislang.models.precision import autocast
from vislang.models.vilbert.inputs import PairInputs, pick, read_texts
from vislang.models.vilbert.model import ViLBERT
from vislang.models.vilbert.streams import Encoded, Stream
from vislang.nn.device import to_device

AT_ONCE = 64
"""Images, or texts, that are read at once."""


@torch.inference_mode()
def match_all(
    network: ViLBERT,
    inputs: PairInputs,
    score: Callable[[Encoded], Float[Tensor, "..."]],
    images: Sequence[Image],
    texts: Sequence[str],
    candidates: Bool[Tensor, "images texts"] | None = None,
    dtype: torch.dtype = torch.float32,
    pairs_at_once: int = 256,
    token: int = 0,
    progress: Progress | None = None,
) -> Float[Tensor, "images texts"]:
    """Score every image with every text, or only the candidates.

    The hidden states of all items before the first co-attention layer are kept, so memory grows with the number of
    items. Pairs pass through the other layers in chunks, so memory does not grow with the number of pairs.

    Args:
        network: the streams.
        inputs: how texts and images are prepared.
        score: returns a score for each encoded pair, higher is better.
        images, texts: the images and texts.
        candidates: True for the pairs to score, such as a shortlist of a faster model; None scores all.
        dtype: number type of the computation.
        pairs_at_once: number of pairs in a chunk.
        token: the task token, if the streams have any.
        progress: called with (pairs done, pairs in all).

    Returns:
        The scores; minus infinity for pairs that are not candidates.
    """
    scores = torch.full((len(images), len(texts)), -torch.inf)
    # Texts of similar length are read together, to avoid padding.
    order = sorted(range(len(texts)), key=lambda number: len(texts[number]))
    wanted = len(images) * len(texts) if candidates is None else int(candidates.sum())
    device = next(network.parameters()).device
    done = 0
    with autocast(device, dtype):
        images_read = [
            _regions(network, inputs, images[start : start + AT_ONCE]) for start in range(0, len(images), AT_ONCE)
        ]
        for start in range(0, len(order), AT_ONCE):
            columns = torch.tensor(order[start : start + AT_ONCE])
            pieces = to_device(inputs.text([(texts[number],) for number in columns.tolist()]), device)
            read = read_texts(network, pieces, token)
            for number, seen in enumerate(images_read):
                first = number * AT_ONCE
                rows = torch.arange(first, first + len(seen.tokens))
                chosen = torch.ones(len(rows), len(columns), dtype=torch.bool)
                if candidates is not None:
                    chosen = candidates[rows][:, columns]
                for chunk in chosen.nonzero().split(pairs_at_once):
                    image, text = chunk.unbind(dim=1)
                    encoded = network.streams(pick(read, text), pick(seen, image))
                    scores[rows[image], columns[text]] = score(encoded).float().cpu()
                    done += len(image)
                    if progress is not None:
                        progress(done, wanted)
    return scores


def _regions(network: ViLBERT, inputs: PairInputs, images: Sequence[Image]) -> Stream:
    pairs = to_device(inputs.images(images), next(network.parameters()).device)
    return network.streams.read_regions(pairs.features, pairs.boxes, pairs.region_padding, pairs.steps)
