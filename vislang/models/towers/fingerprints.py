"""The hash of a tower's weights, which is computed once for each state of its files."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from pathlib import Path

from torch import Tensor

from vislang.cache import cache_folder, writing
from vislang.files import write_text
from vislang.models.base import fingerprint

WEIGHTS = (".safetensors", ".bin")
"""Endings of files that hold weights."""


def fingerprint_of_files(folder: str, state: Mapping[str, Tensor]) -> str:
    """The fingerprint of a tower that was opened from a folder; see :func:`~vislang.models.base.fingerprint`.

    Hashing the weights takes longer than mapping them into memory, so the result is kept in the cache. It holds as long
    as the files of weights are the same to the file system: path, inode, size, and times of modification and of change.

    Args:
        folder: the folder; the fingerprint of a tower from elsewhere, such as the Hub, is not kept.
        state: the tower's weights.

    Raises:
        UserError: the cache cannot be written.
    """
    files = sorted(path for path in Path(folder).glob("*") if path.suffix in WEIGHTS)
    if not files:
        return fingerprint(state)
    digest = hashlib.sha256()
    for path in files:
        about = path.stat()
        digest.update(
            f"{path.resolve()} {about.st_ino} {about.st_size} {about.st_mtime_ns} {about.st_ctime_ns}\n".encode()
        )
    # Other versions of transformers may have other names for the same weights.
    for name, tensor in state.items():
        digest.update(f"{name} {tensor.dtype} {tuple(tensor.shape)}\n".encode())
    known = cache_folder("fingerprints") / digest.hexdigest()
    if known.is_file() and len(found := known.read_text(encoding="utf-8")) == 64:
        return found
    found = fingerprint(state)
    with writing(known.parent):
        write_text(known, found)
    return found
