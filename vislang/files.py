"""Reading regular files only, atomic writing, and errors of the operating system."""

from __future__ import annotations

import os
import re
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from vislang.errors import UserError


def must_be_file(path: Path, wanted: str, name: str = "", error: type[UserError] = UserError) -> None:
    """Raise an error unless a path is a regular file; opening a named pipe could block forever.

    Args:
        path: path of the file.
        wanted: what it should be, such as ``a JSON Lines file``.
        name: its name in the message, if that is not its path.
        error: class of the error.

    Raises:
        UserError: it does not exist, or is a folder, a pipe or a device.
    """
    if path.is_file():
        return
    if path.is_dir():
        found = "is a folder"
    elif path.exists():
        found = "is a pipe or a device, not a regular file"
    else:
        found = "cannot be read (No such file or directory)"
    raise error(f"{name or path}: {found}. Give {wanted}.")


@contextmanager
def whole_file(path: Path) -> Iterator[Path]:
    """Yield a temporary path in the same folder; it is renamed to ``path`` at the end, or deleted after an error.

    Raises:
        OSError: it cannot be written; ``filename`` is ``path``.
    """
    unfinished = path.with_name(f".{path.name}.unfinished")
    try:
        with system_errors(path):
            yield unfinished
            os.replace(unfinished, path)
    except BaseException:
        unfinished.unlink(missing_ok=True)
        raise


def write_text(path: Path, text: str) -> None:
    """Write a text file atomically.

    Raises:
        OSError: it cannot be written.
    """
    with whole_file(path) as unfinished:
        unfinished.write_text(text, encoding="utf-8")


@contextmanager
def system_errors(path: Path) -> Iterator[None]:
    """Raise the operating system's error, such as a full disk, if a library hides it in an error of its own.

    Args:
        path: the path in the error.

    Raises:
        OSError: the system could not write; ``filename`` is ``path``.
    """
    try:
        yield
    except Exception as error:
        number = _number(error)
        if number is None:
            raise
        raise OSError(number, os.strerror(number), str(path)) from error


def _number(error: BaseException | None) -> int | None:
    """The number of the system's error behind an error: its own, or one that it came from, or one in its text."""
    while error is not None:
        if isinstance(error, OSError):
            return error.errno
        # As safetensors writes it.
        if found := re.search(r"\(os error (\d+)\)", str(error)):
            return int(found[1])
        error = error.__cause__ or error.__context__
    return None
