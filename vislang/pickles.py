"""Read pickles without running code in them: only plain values and arrays."""

from __future__ import annotations

import io
import pickle
from pathlib import Path
from typing import Any

import numpy as np

from vislang.errors import UserError


class PickleError(UserError):
    """A pickle that is damaged or contains other classes; the message names the file and the record."""


_ALLOWED = {
    ("numpy", "ndarray"),
    ("numpy", "dtype"),
    *((f"numpy.{core}.multiarray", name) for core in ("core", "_core") for name in ("_reconstruct", "scalar")),
    *((f"numpy.{core}.numeric", "_frombuffer") for core in ("core", "_core")),
    ("_codecs", "encode"),
    ("collections", "OrderedDict"),
}
"""The classes and functions that pickled arrays consist of; ``encode`` is needed for bytes of Python 2."""


class _Unpickler(pickle.Unpickler):
    def find_class(self, module: str, name: str) -> Any:
        if (module, name) in _ALLOWED:
            return super().find_class(module, name)
        raise pickle.UnpicklingError(f"it contains {module}.{name}, which is neither a plain value nor an array")


def read_pickle(data: bytes | io.BufferedIOBase, name: str) -> Any:
    """Read the plain values and arrays in a pickle, also of Python 2.

    Args:
        data: the pickle, or an open file.
        name: name of the file and record, for the message.

    Raises:
        PickleError: the pickle is damaged, or contains a class that could run code.
    """
    file = io.BytesIO(data) if isinstance(data, bytes) else data
    try:
        return _Unpickler(file, encoding="latin1").load()
    except Exception as error:
        # Damaged bytes are instructions, too, and can raise anything, such as a MemoryError.
        raise PickleError(
            f"{name}: not a pickle of plain values ({_reason(error)}). None of its code was run."
        ) from None


def read_array(path: Path) -> Any:
    """Read a file of ``numpy.save``: an array, or the value that was wrapped in one.

    Raises:
        PickleError: the file does not exist, is damaged, or contains a class that could run code.
    """
    try:
        with path.open("rb") as file:
            version = np.lib.format.read_magic(file)
            if version not in ((1, 0), (2, 0)):
                raise PickleError(
                    f"{path}: an .npy file of version {version}; only versions 1.0 and 2.0 are read. Save it again."
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
        # The header is a line of Python and states a size; if it is damaged, anything can be raised.
        raise PickleError(f"{path}: not an .npy file, or damaged ({_reason(error)}).") from None


def _reason(error: Exception) -> str:
    return str(error) or type(error).__name__
