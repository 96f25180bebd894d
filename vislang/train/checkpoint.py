"""Checkpoints: all that a run needs to go on as if it had never stopped, written whole or not at all."""

from __future__ import annotations

import os
import pickle
import shutil
from pathlib import Path
from typing import Any

import torch

from vislang.errors import UserError

PREFIX = "step-"
FILE = "state.pt"


class CheckpointError(UserError):
    """No checkpoint to go on from, or not one of this run."""


def save_checkpoint(folder: Path, step: int, state: dict[str, Any], keep: int) -> Path:
    """Write the state after ``step`` steps and drop all but the latest ``keep`` checkpoints.

    The checkpoint takes its name only once it is complete, so whatever carries the name can be trusted.

    Args:
        folder: where the run's checkpoints lie.
        step: steps done.
        state: tensors, numbers, strings and containers of them; no other objects, so that reading is safe.
        keep: how many to keep.
    """
    folder.mkdir(parents=True, exist_ok=True)
    final = folder / f"{PREFIX}{step:08d}"
    unfinished = folder / f".unfinished-{step:08d}"
    shutil.rmtree(unfinished, ignore_errors=True)
    unfinished.mkdir()
    with (unfinished / FILE).open("wb") as file:
        torch.save({"step": step, **state}, file)
        file.flush()
        os.fsync(file.fileno())
    shutil.rmtree(final, ignore_errors=True)
    os.replace(unfinished, final)
    for old in list_checkpoints(folder)[:-keep]:
        shutil.rmtree(old)
    return final


def list_checkpoints(folder: Path) -> list[Path]:
    """The complete checkpoints, oldest first."""
    return sorted(path for path in folder.glob(f"{PREFIX}*") if (path / FILE).is_file())


def load_checkpoint(folder: Path) -> dict[str, Any]:
    """The state of the latest checkpoint.

    Raises:
        CheckpointError: there is none, or it is damaged.
    """
    found = list_checkpoints(folder)
    if not found:
        raise CheckpointError(f"{folder}: no checkpoint in it. Give --resume the folder of a run that wrote one.")
    try:
        return torch.load(found[-1] / FILE, weights_only=True)
    except (RuntimeError, pickle.UnpicklingError, EOFError) as error:
        raise CheckpointError(
            f"{found[-1]}: damaged ({error}). Remove this folder to go on from the checkpoint before it."
        ) from None
