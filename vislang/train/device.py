"""The device that a model trains on, and the state of every generator that a step may draw from."""

from __future__ import annotations

import json
import os
import random
from collections.abc import Mapping
from typing import Any

import numpy as np
import torch
from torch import Tensor

from vislang.errors import UserError


def device_of(name: str, local_rank: int = 0) -> torch.device:
    """The device that a setting means, for the process of this number on its machine.

    ``auto`` takes a GPU where torch sees one, then Apple's, then the processor.

    Args:
        name: ``auto``, ``cpu``, ``cuda``, ``mps``, or one GPU of several such as ``cuda:1``.
        local_rank: of the processes of a machine; each takes a GPU of its own.

    Raises:
        UserError: torch sees no such device; the message names the remedy.
    """
    if name == "auto":
        name = "cuda" if torch.cuda.is_available() else "mps" if torch.backends.mps.is_available() else "cpu"
    try:
        device = torch.device(name)
    except RuntimeError:
        raise UserError(f"device {name}: no device; give auto, cpu, cuda, cuda:1 or mps.") from None
    if device.type == "cuda":
        if not torch.cuda.is_available():
            built = "no GPU is visible" if torch.version.cuda else "this torch was built for processors alone"
            raise UserError(f"device {name}: {built}. Give auto or cpu, or install torch for your GPU.")
        count = torch.cuda.device_count()
        index = local_rank if device.index is None else device.index
        if index >= count:
            raise UserError(f"device {name}: process or GPU {index} of a machine with {count}. Start fewer processes.")
        return torch.device("cuda", index)
    if device.type == "mps" and not torch.backends.mps.is_available():
        raise UserError(f"device {name}: torch sees no GPU of Apple here. Give auto or cpu.")
    if device.type not in ("cpu", "mps"):
        raise UserError(f"device {name}: not supported; give auto, cpu, cuda or mps.")
    return device


def memory_of(device: torch.device) -> int:
    """Bytes of memory that a device has; on a CPU, those of the machine."""
    if device.type == "cuda":
        return torch.cuda.get_device_properties(device).total_memory
    if device.type == "mps":
        return torch.mps.recommended_max_memory()
    return os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")


def random_state(device: torch.device) -> dict[str, Tensor]:
    """The state of every generator that a step may draw from: of torch, Python and numpy, and of the device."""
    version, internal, gauss = random.getstate()
    name, keys, position, has_gauss, cached = np.random.get_state(legacy=True)
    assert isinstance(keys, np.ndarray)
    host = {
        "python": [version, list(internal), gauss],
        "numpy": [str(name), keys.tolist(), int(position), int(has_gauss), float(cached)],
    }
    state = {"torch": torch.get_rng_state(), "host": torch.tensor(list(json.dumps(host).encode()), dtype=torch.uint8)}
    if device.type == "cuda":
        state["device"] = torch.cuda.get_rng_state(device)
    if device.type == "mps":
        state["device"] = torch.mps.get_rng_state()
    return state


def set_random_state(state: Mapping[str, Any], device: torch.device) -> None:
    """Restore what :func:`random_state` gave, or what an earlier version saved, on the same kind of device."""
    torch.set_rng_state(state["torch"])
    host = json.loads(bytes(state["host"].tolist())) if "host" in state else state
    version, internal, gauss = host["python"]
    random.setstate((version, tuple(internal), gauss))
    name, keys, position, has_gauss, cached = host["numpy"]
    np.random.set_state((name, np.array(keys, dtype=np.uint32), position, has_gauss, cached))
    if "device" in state and device.type == "cuda":
        torch.cuda.set_rng_state(state["device"], device)
    if "device" in state and device.type == "mps":
        torch.mps.set_rng_state(state["device"])


def seed_everything(seed: int) -> None:
    """Seed all of these generators."""
    torch.manual_seed(seed)
    random.seed(seed)
    np.random.seed(seed % 2**32)
