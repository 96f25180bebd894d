"""The map from the keys of another project's checkpoint to our tensors."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass

from torch import Tensor

from vislang.errors import UserError


class ConversionError(UserError):
    """A configuration or checkpoint cannot be converted; the message lists the reasons."""


@dataclass(frozen=True)
class Slot:
    """Where the values of a key belong: a tensor of ours, or slice ``part`` of ``parts`` equal slices of its rows."""

    name: str
    part: int = 0
    parts: int = 1

    def of(self, tensors: Mapping[str, Tensor]) -> Tensor:
        """The slice, as a view."""
        tensor = tensors[self.name]
        if self.parts == 1:
            return tensor
        rows = len(tensor) // self.parts
        return tensor[self.part * rows : (self.part + 1) * rows]


Keys = dict[str, Slot]
"""Their key -> our tensor or slice."""


def linear(theirs: str, ours: str, *kinds: str) -> Iterator[tuple[str, Slot]]:
    """The keys of a linear layer or a norm: weight and bias, or the given ``kinds``."""
    for kind in kinds or ("weight", "bias"):
        yield f"{theirs}.{kind}", Slot(f"{ours}.{kind}")


def fill(tensors: Mapping[str, Tensor], keys: Keys, source: Mapping[str, Tensor]) -> None:
    """Copy the values of ``source`` into our tensors; keys that it lacks are ignored. Call it under ``torch.no_grad``.

    Raises:
        ConversionError: a tensor has the wrong number of elements.
    """
    for key, slot in keys.items():
        if key in source:
            target = slot.of(tensors)
            if source[key].numel() != target.numel():
                shapes = f"{tuple(source[key].shape)}, not {tuple(target.shape)}"
                raise ConversionError(f"checkpoint: {key} is {shapes}; the configuration describes another model.")
            target.copy_(source[key].reshape(target.shape))
