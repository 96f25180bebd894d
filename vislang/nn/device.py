"""Moving batches to a device."""

from __future__ import annotations

import dataclasses
from typing import Any, TypeVar

import torch
from torch import Tensor

Values = TypeVar("Values")


def to_device(values: Values, device: torch.device | str) -> Values:
    """The same values with all their tensors on a device; the copies are not waited for.

    Args:
        values: a tensor, or a dataclass, named tuple, tuple, list or dict of such values; other objects in it are kept.
            It is returned itself if no tensor has to be moved.
        device: the device.
    """
    return _moved(values, torch.device(device))


def _moved(values: Any, device: torch.device) -> Any:
    if isinstance(values, Tensor):
        if values.device.type == device.type and device.index in (None, values.device.index):
            return values
        # Only copies from pinned memory are asynchronous.
        pinned = values.pin_memory() if device.type == "cuda" and values.device.type == "cpu" else values
        return pinned.to(device, non_blocking=True)
    if dataclasses.is_dataclass(values) and not isinstance(values, type):
        parts = {part.name: getattr(values, part.name) for part in dataclasses.fields(values) if part.init}
        moved = {name: _moved(value, device) for name, value in parts.items()}
        changed = {name: value for name, value in moved.items() if value is not parts[name]}
        return dataclasses.replace(values, **changed) if changed else values
    if isinstance(values, tuple | list):
        own = [_moved(value, device) for value in values]
        if all(new is old for new, old in zip(own, values, strict=True)):
            return values
        return type(values)(*own) if hasattr(values, "_fields") else type(values)(own)
    if isinstance(values, dict):
        return {key: _moved(value, device) for key, value in values.items()}
    return values
