"""Which key of another code's checkpoint is which of our tensors."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass

from torch import Tensor

from vislang.errors import UserError


class ConversionError(UserError):
    """A configuration or a checkpoint that cannot be converted; the message lists why."""


@dataclass(frozen=True)
class Slot:
    """Where a key's values stand among ours: a tensor, and of that one of ``parts`` equal slices of its rows."""

    name: str
    part: int = 0
    parts: int = 1

    def of(self, tensors: Mapping[str, Tensor]) -> Tensor:
        """The slice, a view."""
        whole = tensors[self.name]
        rows = len(whole) // self.parts if self.parts > 1 else 0
        return whole if self.parts == 1 else whole[self.part * rows : (self.part + 1) * rows]


Keys = dict[str, Slot]
"""Their key -> our slot."""


def linear(theirs: str, ours: str, *kinds: str) -> Iterator[tuple[str, Slot]]:
    """The keys of a linear map or a norm: weight and bias, or those kinds that are named."""
    for kind in kinds or ("weight", "bias"):
        yield f"{theirs}.{kind}", Slot(f"{ours}.{kind}")


def fill(tensors: Mapping[str, Tensor], keys: Keys, source: Mapping[str, Tensor]) -> None:
    """Copy what a source has of the keys into our tensors; call it without gradients.

    Raises:
        ConversionError: a size does not fit.
    """
    for key, slot in keys.items():
        if key in source:
            target = slot.of(tensors)
            if source[key].numel() != target.numel():
                shapes = f"{tuple(source[key].shape)}, not {tuple(target.shape)}"
                raise ConversionError(f"checkpoint: {key} is {shapes}; the configuration is of another model.")
            target.copy_(source[key].reshape(target.shape))
