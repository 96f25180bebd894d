"""The folder of a run: its lock, atomic writing of files, and the recorded environment."""

from __future__ import annotations

import json
import os
import platform
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

import torch
from filelock import FileLock, Timeout

from vislang.errors import UserError
from vislang.files import write_text

PACKAGES = ("vislang", "torch", "transformers", "tokenizers", "safetensors", "numpy", "pillow")
LOCK = "run.lock"
RUN = "run.json"
"""Holds the recipe of a run: only a folder that contains it is the folder of a run."""


def must_be_free(folder: Path) -> None:
    """Raise an error if a folder cannot be used for a new run.

    Raises:
        UserError: it contains something other than a run, or another process is training there.
    """
    names = {path.name for path in folder.iterdir()} if folder.exists() else set()
    if names - {LOCK} and RUN not in names:
        raise UserError(f"{folder}: is not empty and contains no run (no run.json). Choose another folder with --out.")
    if RUN in names:
        recorded(folder)
    if LOCK in names:
        with locked(folder):
            pass


def fresh_folder(folder: Path) -> Path | None:
    """Make a folder for a new run; an earlier run of the same name is renamed, never overwritten.

    Returns:
        The new path of the earlier run, or None if there was none.

    Raises:
        UserError: the folder contains something other than a run, or another process is training there.
    """
    must_be_free(folder)
    if not (folder / RUN).is_file():
        folder.mkdir(parents=True, exist_ok=True)
        return None
    with locked(folder):
        number = 1
        while (moved := folder.with_name(f"{folder.name}.{number}")).exists():
            number += 1
        os.replace(folder, moved)
    folder.mkdir()
    return moved


def recorded(folder: Path) -> dict[str, Any]:
    """What a run recorded in its run.json when it started: its recipe and its environment.

    Raises:
        UserError: the folder is not that of a run.
    """
    if not (folder / RUN).is_file():
        raise UserError(f"{folder}: not the folder of a run (it has no run.json).")
    found = read_json(folder / RUN)
    if not isinstance(found, dict) or not isinstance(found.get("recipe"), dict):
        raise UserError(f"{folder}: not the folder of a run (its run.json contains no recipe).")
    return found


def discard_unused(folder: Path) -> None:
    """Delete the folder of a run that failed before it wrote anything but its recipe."""
    if {path.name for path in folder.iterdir()} <= {RUN, LOCK}:
        shutil.rmtree(folder)


@contextmanager
def locked(folder: Path) -> Iterator[None]:
    """Lock a folder against other runs; the operating system releases the lock when the process ends.

    Raises:
        UserError: another process is running there.
    """
    lock = FileLock(folder / LOCK, blocking=False)
    try:
        lock.acquire()
    except Timeout:
        raise UserError(
            f"{folder}: another process is training in this folder. Wait for it, or choose another folder with --out."
        ) from None
    try:
        yield
    finally:
        lock.release()


def versions() -> dict[str, str]:
    """Versions of the packages on which results depend."""
    found = {"python": platform.python_version()}
    for package in PACKAGES:
        try:
            found[package] = version(package)
        except PackageNotFoundError:
            found[package] = "not installed"
    return found


def environment() -> dict[str, Any]:
    """The environment in which a result was computed."""
    return {
        "versions": versions(),
        "threads": torch.get_num_threads(),
        "machine": platform.machine(),
        "system": platform.system(),
        "cuda": torch.version.cuda,
    }


def write_json(path: Path, value: Any) -> None:
    """Write JSON atomically."""
    write_text(path, json.dumps(value, indent=2, default=str) + "\n")


def read_json(path: Path) -> Any:
    """Read a JSON file that vislang wrote.

    Raises:
        UserError: it is missing, or is no longer valid JSON.
    """
    try:
        return json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise UserError(f"{path}: no such file; give the folder of a run.") from None
    except ValueError as error:
        raise UserError(f"{path}: not valid JSON ({error}). Restore the file as vislang wrote it.") from None
