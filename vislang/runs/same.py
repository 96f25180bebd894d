"""Whether two runs gave the same: losses, all other rows of the log, scores, weights, moments, generators."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import safetensors.torch
import torch
from torch import Tensor

from vislang.runs.folder import read_json
from vislang.train.checkpoint import Checkpoints, list_checkpoints, open_checkpoint
from vislang.train.log import read_metrics, without_measurements

TOGETHER = 2**27
"""Numbers that are read from a checkpoint at a time."""


@dataclass(frozen=True)
class Differences:
    """How far two runs are apart.

    Attributes:
        parts: for each thing that was compared, the largest absolute difference of any number in it: 0 for the same
            bits, infinite where it cannot be told (something is missing in one of them, or is no number).
        first_step: the first step whose row differs; None if none does.
        relative: the largest difference of any loss, as a share of the largest size of that loss.
    """

    parts: dict[str, float]
    first_step: int | None
    relative: float

    @property
    def same(self) -> list[str]:
        """What is the same, bit for bit."""
        return [name for name, gap in self.parts.items() if gap == 0]

    @property
    def different(self) -> list[str]:
        """What is not."""
        return [name for name, gap in self.parts.items() if gap != 0]


def differences(one: Path, other: Path, same_processes: bool = True) -> Differences:
    """Compare two finished runs.

    Args:
        one, other: their folders.
        same_processes: whether they had the same number of processes. If not, the states of their random generators
            are not compared.
    """
    rows = [[without_measurements(row) for row in read_metrics(folder / "metrics.jsonl")] for folder in (one, other)]
    losses = [{row["step"]: _losses(row) for row in own if "loss" in row} for own in rows]
    scores = [_scores(folder) for folder in (one, other)]
    parts = {
        "losses": gap(*losses),
        "other metrics": gap(*([_rest(row) for row in own] for own in rows)),
        "scores": gap(*scores),
    }
    parts |= _checkpoint_gaps(one, other, same_processes)
    parts["weights"] = max(parts["weights"], _model_gap(one, other))
    return Differences(parts, _first_step(*rows), _relative(*losses))


def same_until(one: Path, other: Path, step: int) -> bool:
    """Whether the rows of two runs are the same, bit for bit, up to a step."""
    rows = [
        [without_measurements(row) for row in read_metrics(folder / "metrics.jsonl") if row["step"] <= step]
        for folder in (one, other)
    ]
    return rows[0] == rows[1]


def generators_that_moved(folder: Path) -> list[str]:
    """Which random generators drew something between the last two checkpoints of a run, in words.

    The order of the data and what is drawn for each example come from generators that are made for them. So what moves
    here is what a forward pass draws from: dropout, stochastic depth, noise.
    """
    before, after = (open_checkpoint(path) for path in list_checkpoints(folder / "checkpoints")[-2:])
    names = [name for name in after.sizes if name.startswith("random/0/") and name in before.sizes]
    old, new = (saved.read({name: torch.empty(0, dtype=torch.uint8) for name in names}) for saved in (before, after))
    called = {"torch": "torch's", "host": "Python's or numpy's", "device": "the device's"}
    return [called[name.rpartition("/")[2]] for name in names if not torch.equal(old[name], new[name])]


def gap(one: Any, other: Any) -> float:
    """The largest absolute difference between numbers at the same position of two nested values."""
    if isinstance(one, Mapping) and isinstance(other, Mapping):
        if one.keys() != other.keys():
            return math.inf
        return max((gap(one[key], other[key]) for key in one), default=0.0)
    if isinstance(one, Sequence) and isinstance(other, Sequence) and not isinstance(one, str):
        if len(one) != len(other):
            return math.inf
        return max((gap(*pair) for pair in zip(one, other, strict=True)), default=0.0)
    if one == other or (one != one and other != other):
        return 0.0
    numbers = all(isinstance(value, int | float) and math.isfinite(value) for value in (one, other))
    return abs(one - other) if numbers else math.inf


def tensor_gap(one: Tensor, other: Tensor) -> float:
    """The same for two tensors; 0 only if all bits are equal."""
    if one.shape != other.shape or one.dtype != other.dtype:
        return math.inf
    bits = [tensor.detach().cpu().contiguous().reshape(-1) for tensor in (one, other)]
    if torch.equal(*(flat.view(torch.uint8) for flat in bits)):
        return 0.0
    largest = (bits[0].double() - bits[1].double()).abs().max().item()
    # A zero of another sign, and what is not a number.
    return largest if largest > 0 else math.inf


def _losses(row: Mapping[str, Any]) -> dict[str, float]:
    return {name: value for name, value in row.items() if name == "loss" or name.startswith("loss/")}


def _rest(row: Mapping[str, Any]) -> dict[str, Any]:
    return {name: value for name, value in row.items() if name != "loss" and not name.startswith("loss/")}


def _scores(folder: Path) -> dict[str, Any]:
    metrics = read_json(folder / "metrics.json")
    return {name: value for name, value in metrics.items() if not name.endswith("seconds")}


def _first_step(one: Sequence[Mapping[str, Any]], other: Sequence[Mapping[str, Any]]) -> int | None:
    for mine, theirs in zip(one, other, strict=False):
        if mine != theirs:
            return min(mine["step"], theirs["step"])
    if len(one) == len(other):
        return None
    longer = one if len(one) > len(other) else other
    return longer[min(len(one), len(other))]["step"]


def _relative(one: Mapping[int, Mapping[str, float]], other: Mapping[int, Mapping[str, float]]) -> float:
    sizes: dict[str, float] = {}
    for row in one.values():
        for name, value in row.items():
            sizes[name] = max(sizes.get(name, 0.0), abs(value))
    if one.keys() != other.keys():
        return math.inf
    gaps = [
        gap(value, other[step].get(name)) / max(sizes[name], 1e-12)
        for step, row in one.items()
        for name, value in row.items()
        if value != other[step].get(name)
    ]
    return max(gaps, default=0.0)


def _checkpoint_gaps(one: Path, other: Path, generators: bool) -> dict[str, float]:
    kinds = {"model": "weights", "optimizer": "moments", **({"random": "generators"} if generators else {})}
    parts = {**dict.fromkeys(kinds.values(), 0.0), "other state": 0.0}
    saved = [each for f in (one, other) if (each := Checkpoints(f / "checkpoints").latest()) is not None]
    if len(saved) < 2:
        return dict.fromkeys(parts, math.inf)
    names = [{n for n in each.sizes if n.partition("/")[0] in kinds} for each in saved]
    for name in names[0] ^ names[1]:
        parts[kinds[name.partition("/")[0]]] = math.inf
    for some in _in_turn(sorted(names[0] & names[1]), saved[0].sizes):
        mine, theirs = (each.read({name: torch.empty(0) for name in some}) for each in saved)
        for name in some:
            part = kinds[name.partition("/")[0]]
            parts[part] = max(parts[part], tensor_gap(mine[name], theirs[name]))
    state = [{key: each.values[key] for key in ("extra", "schedule")} | {"step": each.step} for each in saved]
    parts["other state"] = gap(*state)
    return parts


def _in_turn(names: Sequence[str], sizes: Mapping[str, tuple[torch.Size, torch.dtype]]) -> Iterator[list[str]]:
    """The names in groups, none of which takes much memory unless a single tensor does."""
    some: list[str] = []
    numbers = 0
    for name in names:
        if some and numbers + sizes[name][0].numel() > TOGETHER:
            yield some
            some, numbers = [], 0
        some.append(name)
        numbers += sizes[name][0].numel()
    if some:
        yield some


def _model_gap(one: Path, other: Path) -> float:
    """The same for the saved models, as ``vislang.load`` opens them."""
    files = [{path.relative_to(f) for path in (f / "model").rglob("*.safetensors")} for f in (one, other)]
    if files[0] != files[1] or not files[0]:
        return math.inf
    largest = 0.0
    for file in files[0]:
        mine, theirs = (safetensors.torch.load_file(folder / file) for folder in (one, other))
        if mine.keys() != theirs.keys():
            return math.inf
        largest = max([largest, *(tensor_gap(mine[name], theirs[name]) for name in mine)])
    return largest
