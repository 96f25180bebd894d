"""Reading pickles of other people without running any of them: plain values and arrays, nothing else."""

from __future__ import annotations

import io
import pickle
from pathlib import Path
from typing import Any

import numpy as np

from vislang.errors import UserError


class PickleError(UserError):
    """A pickle that is damaged, or wants to run code; the message names the file and the record."""


_ALLOWED = {
    ("numpy", "ndarray"),
    ("numpy", "dtype"),
    *((f"numpy.{core}.multiarray", name) for core in ("core", "_core") for name in ("_reconstruct", "scalar")),
    *((f"numpy.{core}.numeric", "_frombuffer") for core in ("core", "_core")),
    ("_codecs", "encode"),
    ("collections", "OrderedDict"),
}
"""What arrays and the values around them are made of; ``encode`` is how Python 2's bytes are written."""


class _Unpickler(pickle.Unpickler):
    def find_class(self, module: str, name: str) -> Any:
        if (module, name) in _ALLOWED:
            return super().find_class(module, name)
        raise pickle.UnpicklingError(f"it wants {module}.{name}, which is neither a plain value nor an array")


def read_pickle(data: bytes | io.BufferedIOBase, name: str) -> Any:
    """The plain values and arrays in a pickle; Python 2's open as well.

    Args:
        data: the pickle, or a file at its start.
        name: of the file and the record, for the message.

    Raises:
        PickleError: it is damaged, or wants a class that could run code.
    """
    file = io.BytesIO(data) if isinstance(data, bytes) else data
    try:
        return _Unpickler(file, encoding="latin1").load()
    except Exception as error:
        # Damaged bytes are instructions too, and may fail in any way: a length beyond all memory, say.
        raise PickleError(
            f"{name}: cannot be read as a pickle of plain values ({_told(error)}). Nothing of it was run."
        ) from None


def read_array(path: Path) -> Any:
    """What ``numpy.save`` wrote: an array, or the value that was wrapped in one.

    Raises:
        PickleError: no such file, damaged, or it wants a class that could run code.
    """
    try:
        with path.open("rb") as file:
            version = np.lib.format.read_magic(file)
            if version not in ((1, 0), (2, 0)):
                raise PickleError(
                    f"{path}: an .npy file of version {version}, which numpy writes for no array of ours."
                )
            read_header = (
                np.lib.format.read_array_header_1_0 if version == (1, 0) else np.lib.format.read_array_header_2_0
            )
            _, _, dtype = read_header(file)
            if dtype.hasobject:
                value = read_pickle(file, str(path))
                return value.item() if isinstance(value, np.ndarray) and value.ndim == 0 else value
            file.seek(0)
            return np.lib.format.read_array(file, allow_pickle=False)
    except PickleError:
        raise
    except FileNotFoundError:
        raise PickleError(f"{path}: no such file.") from None
    except Exception as error:
        # Its header is a line of Python, and states a size: damaged, both may fail in any way.
        raise PickleError(f"{path}: no .npy file, or a damaged one ({_told(error)}).") from None


def _told(error: Exception) -> str:
    return str(error) or type(error).__name__
