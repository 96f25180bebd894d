"""The differences between a converted model's outputs and those recorded from the original code."""

from __future__ import annotations

import math
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from vislang.convert.checkpoint import CheckpointUnreadable
from vislang.files import must_be_file

TOLERANCE = 1e-4
"""The largest difference that counts as agreement."""


class RecordedInputs(dict[str, Any]):
    """The inputs of the original model; errors about missing inputs name the file."""

    def __init__(self, values: Mapping[str, Any], path: Path | str):
        super().__init__(values)
        self.path = path

    def __missing__(self, name: str) -> Any:
        raise CheckpointUnreadable(
            f"{self.path}: has no input {name!r}, only {', '.join(self)}; it was recorded from another type of model."
        )


def read_reference(path: Path | str) -> tuple[dict[str, Any], dict[str, Any], dict[str, Any] | None]:
    """Read a recording: inputs, outputs (with losses and gradient norms), and labels if there are any.

    Raises:
        CheckpointUnreadable: no such file, or it is not a recording.
    """
    must_be_file(Path(path), "a recording of the original code", error=CheckpointUnreadable)
    try:
        content = torch.load(path, weights_only=True)
    except Exception as error:
        raise CheckpointUnreadable(f"{path}: cannot be read ({str(error).splitlines()[0]}).") from None
    if not isinstance(content, dict) or not {"inputs", "outputs"} <= set(content):
        raise CheckpointUnreadable(f"{path}: has no 'inputs' and 'outputs'.")
    more = {name: content[name] for name in ("losses", "grad_norms") if name in content}
    return RecordedInputs(content["inputs"], path), content["outputs"] | more, content.get("labels")


def differences(recorded: Mapping[str, Any], ours: Mapping[str, Any], floor: float | None = None) -> dict[str, float]:
    """The largest difference of each recorded output, by name; nested names are joined by slashes.

    Differences of activations and parameters are absolute; those of losses and gradient norms are relative to the
    recorded value. A gradient norm below a thousandth of the largest is compared relative to that thousandth,
    because some gradients, such as that of a key bias, are zero except for rounding. The difference of a missing
    output, or of one with another number of elements, is infinite; that of token sequences is 0 or 1.

    Args:
        recorded: what the original code computed.
        ours: our outputs, by the same names.
        floor: make all differences relative to the recorded value, or to ``floor`` if that is greater.
    """
    found: dict[str, float] = {}
    for name, value in recorded.items():
        other = ours.get(name)
        if isinstance(value, Mapping):
            inner = other if isinstance(other, Mapping) else {}
            least = floor
            if name == "grad_norms":
                least = 1e-3 * max(float(norm) for norm in value.values())
            elif name == "losses":
                least = 0.0
            found |= {f"{name}/{key}": gap for key, gap in differences(value, inner, least).items()}
        elif other is None:
            found[name] = math.inf
        else:
            is_loss = name == "loss" or name.startswith("loss_")
            found[name] = _difference(value, other, 0.0 if is_loss else floor)
    return found


def _difference(recorded: Any, ours: Any, floor: float | None) -> float:
    if isinstance(recorded, (list, tuple)) and not any(isinstance(item, Tensor) for item in recorded):
        return float(list(recorded) != list(ours))
    expected, found = (torch.as_tensor(value).detach().double().flatten() for value in (recorded, ours))
    if expected.shape != found.shape:
        return math.inf
    if expected.numel() == 0:
        return 0.0
    gap = (expected - found).abs().max().item()
    if floor is not None:
        gap /= max(expected.abs().max().item(), floor, torch.finfo(torch.float32).tiny)
    return gap if math.isfinite(gap) else math.inf
