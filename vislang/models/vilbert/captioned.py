"""Captioned images that are compared with each other: their batches, and the items of all processes."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Sequence

import torch
import torch.distributed as distributed
import torch.nn.functional as F
from jaxtyping import Bool, Float, Int
from torch import Tensor
from torch.distributed.nn.functional import all_gather

from vislang.document import Image
from vislang.example import Example
from vislang.models.vilbert.inputs import PairInputs, Pairs, pairs_of


class PairCollator:
    """Turns captioned images into a batch; nothing is random.

    Args:
        inputs: how texts and images are prepared.
    """

    def __init__(self, inputs: PairInputs):
        self.inputs = inputs

    def __call__(self, examples: Sequence[Example], seed: int = 0, first: int = 0) -> Pairs:
        """Collate; each reference of an example makes a pair.

        Raises:
            UserError: an example is not an image with its caption.
            RegionError, MediaError: an image's regions cannot be computed or read.
        """
        pairs = pairs_of(examples)
        rows = [((caption,), (self.shown(image, seed),)) for image, caption in map(self.inputs.pair_of, pairs)]
        read = self.inputs.read(rows, [pair.name for pair in pairs])
        # Each distinct item once, in the order of its first pair, as they are read.
        read.text_keys = keys_of(text for text, _ in rows)
        read.image_keys = keys_of(images for _, images in rows)
        return read

    def shown(self, image: Image, seed: int) -> Image:
        """What is shown of an image: itself. A subclass may draw a version of it by the seed of the step."""
        return image


def belonging(pairs: Pairs) -> Bool[Tensor, "images texts"]:
    """Which images and texts of a batch belong together."""
    belong = torch.zeros(len(pairs.features), len(pairs.text.ids), dtype=torch.bool, device=pairs.features.device)
    belong[pairs.image_of, pairs.text_of] = True
    return belong


def are_several() -> bool:
    """Whether several processes train together."""
    return distributed.is_initialized() and distributed.get_world_size() > 1


def gathered(
    images: Float[Tensor, "images vector"],
    texts: Float[Tensor, "texts vector"],
    belong: Bool[Tensor, "images texts"],
    image_keys: Int[Tensor, "..."],
    text_keys: Int[Tensor, "..."],
) -> tuple[Tensor, Tensor, Tensor]:
    """The items of all processes; gradients flow back to the process of an item.

    An item that occurs in several processes counts once, as in the batch of one process.

    Args:
        images, texts: a vector of each item; they are of one width in all processes.
        belong: which of them belong together.
        image_keys, text_keys: (images,) and (texts,) which item each is; see :func:`keys_of`.

    Returns:
        Images, texts and which of them belong together.
    """
    counts = torch.tensor([len(images), len(texts)], device=images.device)
    of_each = torch.stack(_received(counts)).tolist()
    most_images, most_texts = (max(column) for column in zip(*of_each, strict=True))
    own = F.pad(belong.float(), (0, most_texts - len(texts), 0, most_images - len(images)))
    blocks = [block[:n, :m] for block, (n, m) in zip(_received(own), of_each, strict=True)]
    together = torch.block_diag(*blocks).bool()
    vectors, numbers = [], []
    for side, (part, keys, most) in enumerate(((images, image_keys, most_images), (texts, text_keys, most_texts))):
        real = [n[side] for n in of_each]
        rows = all_gather(F.pad(part, (0, 0, 0, most - len(part))))
        everything = torch.cat([each[:n] for each, n in zip(rows, real, strict=True)])
        marks = _received(F.pad(keys, (0, most - len(keys))))
        distinct, number = torch.cat([e[:n] for e, n in zip(marks, real, strict=True)]).unique(return_inverse=True)
        positions = torch.arange(len(number), device=number.device)
        first = number.new_full((len(distinct),), len(number)).scatter_reduce(0, number, positions, "amin")
        vectors.append(everything[first])
        numbers.append(number)
    row, column = together.nonzero(as_tuple=True)
    merged = torch.zeros(len(vectors[0]), len(vectors[1]), dtype=torch.bool, device=images.device)
    merged[numbers[0][row], numbers[1][column]] = True
    return vectors[0], vectors[1], merged


def flattened(
    items: Float[Tensor, "items length width"], padding: Bool[Tensor, "items length"] | None
) -> Float[Tensor, "items vector"]:
    """Sequences as vectors that :func:`gathered` takes, as long as the longest sequence of any process."""
    longest = torch.tensor(items.shape[1], device=items.device)
    distributed.all_reduce(longest, op=distributed.ReduceOp.MAX)
    real = items.new_ones(items.shape[:2]) if padding is None else (~padding).to(items.dtype)
    marked = torch.cat([items, real[..., None]], dim=-1)
    return F.pad(marked, (0, 0, 0, int(longest) - items.shape[1])).flatten(1)


def unflattened(
    vectors: Float[Tensor, "items vector"], width: int
) -> tuple[Float[Tensor, "items length width"], Bool[Tensor, "items length"]]:
    """The sequences of :func:`flattened`, and their padding."""
    items = vectors.unflatten(1, (-1, width + 1))
    return items[..., :-1], items[..., -1] == 0


def _received(own: Tensor) -> list[Tensor]:
    """A tensor of the same shape from each process, without gradients."""
    received = [torch.empty_like(own) for _ in range(distributed.get_world_size())]
    distributed.all_gather(received, own.contiguous())
    return received


def keys_of(items: Iterable[object]) -> Int[Tensor, "..."]:
    """A number for each distinct item, in the order of their first appearance: the same in every process."""
    digests = (hashlib.sha256(repr(item).encode()).digest() for item in dict.fromkeys(items))
    return torch.tensor([int.from_bytes(digest[:8], "little", signed=True) for digest in digests])
