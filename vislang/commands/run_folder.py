"""The folder of a run and what is recorded of the circumstances."""

from __future__ import annotations

import json
import os
import platform
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

import torch

PACKAGES = ("vislang", "torch", "transformers", "tokenizers", "safetensors", "numpy", "pillow")


def fresh_folder(folder: Path) -> Path | None:
    """Make a folder for a new run; an earlier run in its place is moved aside, never overwritten.

    Returns:
        Where the earlier run is now, or None where there was none.
    """
    if not folder.exists() or not any(folder.iterdir()):
        folder.mkdir(parents=True, exist_ok=True)
        return None
    number = 1
    while (aside := folder.with_name(f"{folder.name}.{number}")).exists():
        number += 1
    os.replace(folder, aside)
    folder.mkdir()
    return aside


def versions() -> dict[str, str]:
    """Versions of what decides a result."""
    found = {"python": platform.python_version()}
    for package in PACKAGES:
        try:
            found[package] = version(package)
        except PackageNotFoundError:
            found[package] = "not installed"
    return found


def circumstances() -> dict[str, Any]:
    """What a reader of a result needs to know of the machine."""
    return {
        "versions": versions(),
        "threads": torch.get_num_threads(),
        "machine": platform.machine(),
        "system": platform.system(),
        "cuda": torch.version.cuda,
    }


def write_json(path: Path, value: Any) -> None:
    """Write JSON whole or not at all."""
    unfinished = path.with_suffix(".unfinished")
    unfinished.write_text(json.dumps(value, indent=2, default=str) + "\n", encoding="utf-8")
    os.replace(unfinished, path)
