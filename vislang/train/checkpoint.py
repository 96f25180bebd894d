"""Checkpoints: all that a run needs to continue as if it had never stopped, written whole or not at all."""

from __future__ import annotations

import json
import os
import pickle
import shutil
import warnings
from pathlib import Path
from typing import Any

import torch

from vislang.errors import UserError
from vislang.files import system_errors

PREFIX = "step-"
FILE = "state.pt"


class CheckpointError(UserError):
    """No checkpoint to continue from, or not one of this run."""


class DamagedCheckpoint(UserWarning):
    """A checkpoint cannot be read; the one before it is used."""


def save_checkpoint(folder: Path, step: int, state: dict[str, Any], keep: int) -> Path:
    """Write the state after ``step`` steps and drop all but the latest ``keep`` checkpoints.

    The checkpoint takes its name only once it is complete.

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
    try:
        with system_errors(final):
            unfinished.mkdir()
            with (unfinished / FILE).open("wb") as file:
                torch.save({"step": step, **state}, file)
                file.flush()
                os.fsync(file.fileno())
            shutil.rmtree(final, ignore_errors=True)
            os.replace(unfinished, final)
    except BaseException:
        shutil.rmtree(unfinished, ignore_errors=True)
        raise
    for old in list_checkpoints(folder)[:-keep]:
        shutil.rmtree(old)
    return final


def list_checkpoints(folder: Path) -> list[Path]:
    """The complete checkpoints, oldest first."""
    return sorted(path for path in folder.glob(f"{PREFIX}*") if (path / FILE).is_file())


def load_checkpoint(folder: Path) -> dict[str, Any] | None:
    """The state of the latest checkpoint that can be read; None where the run was stopped before it wrote one.

    A checkpoint of version 0.1.0 is translated: its text becomes the ``extra`` state of this version.

    Raises:
        CheckpointError: there are checkpoints, and all are damaged.
    """
    found = list_checkpoints(folder)
    for path in reversed(found):
        try:
            return _current(torch.load(path / FILE, weights_only=True))
        except (RuntimeError, pickle.UnpicklingError, EOFError, OSError) as error:
            reason = (str(error).strip().splitlines() or [type(error).__name__])[0]
            warnings.warn(f"{path}: damaged, and passed over ({reason}).", DamagedCheckpoint, stacklevel=2)
    if found:
        raise CheckpointError(f"{folder}: all {len(found)} checkpoints in it are damaged. Start the run again.")
    return None


def _current(state: dict[str, Any]) -> dict[str, Any]:
    """The state of a checkpoint, whatever version wrote it; version 0.1.0 kept text as tensors of bytes."""
    if "extra" in state:
        return state
    tensors, extra = dict(state["model"]), {}
    for name in ("tokenizer", "labels", "tasks"):
        if name in tensors and tensors[name].dtype == torch.uint8:
            text = bytes(tensors.pop(name).tolist()).decode()
            extra[name] = text if name == "tokenizer" else json.loads(text)
    if "updates" in tensors:
        extra["updates"] = int(tensors.pop("updates"))
    return {**state, "model": tensors, "extra": extra}
