"""Reading checkpoints of other people's code without running any of it."""

from __future__ import annotations

import pickle
import zipfile
from collections.abc import Mapping
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import torch

from vislang.errors import UserError


class CheckpointUnreadable(UserError):
    """The file is missing, damaged, or no checkpoint."""


class _Inert:
    """Stands for an object of a class that is not to be trusted: it takes anything and does nothing."""

    def __init__(self, *args: Any, **kwargs: Any):
        del args, kwargs

    def __call__(self, *args: Any, **kwargs: Any) -> _Inert:
        return _Inert()

    def __setstate__(self, state: Any) -> None:
        if isinstance(state, dict):
            self.__dict__.update(state)

    def append(self, item: Any) -> None:
        """Take an item of a list."""

    def extend(self, items: Any) -> None:
        """Take items of a list."""

    def __setitem__(self, key: Any, value: Any) -> None:
        """Take an item of a mapping."""


_TENSORS = {
    ("torch._utils", "_rebuild_tensor"),
    ("torch._utils", "_rebuild_tensor_v2"),
    ("torch._utils", "_rebuild_parameter"),
    ("torch", "Size"),
    ("collections", "OrderedDict"),
}
"""What tensors and the dictionaries around them are made of."""


class _Unpickler(pickle.Unpickler):
    """Builds tensors and plain containers; every other class becomes an inert stub of the same name."""

    def find_class(self, module: str, name: str) -> Any:
        if (module, name) in _TENSORS or (module == "torch" and name.endswith("Storage")):
            return super().find_class(module, name)
        if module == "torch" and isinstance(getattr(torch, name, None), torch.dtype):
            return getattr(torch, name)
        return type(name, (_Inert,), {"__module__": f"{module} (not loaded)"})


def _load(file: Any, **options: Any) -> Any:
    return _Unpickler(file, **options).load()


def read_checkpoint(path: Path | str) -> Mapping[str, Any]:
    """Read a file that ``torch.save`` wrote, whatever objects are wrapped around its tensors.

    Unknown classes become inert stubs and nothing of theirs runs, so that a checkpoint with pickled configuration
    objects opens without the code that wrote it, and a hostile one does no harm.

    Raises:
        CheckpointUnreadable: no such file, or nothing that can be read.
    """
    path = Path(path)
    if not path.is_file():
        raise CheckpointUnreadable(f"{path}: no such file.")
    safe = SimpleNamespace(Unpickler=_Unpickler, load=_load, __name__="vislang.convert.checkpoint")
    try:
        content = torch.load(path, map_location="cpu", pickle_module=safe, weights_only=False)
    except (
        pickle.UnpicklingError,
        EOFError,
        RuntimeError,
        zipfile.BadZipFile,
        ValueError,
        AttributeError,
        TypeError,
    ) as error:
        reason = (str(error).strip().splitlines() or [type(error).__name__])[0]
        raise CheckpointUnreadable(f"{path}: cannot be read as a checkpoint ({reason}).") from None
    if not isinstance(content, Mapping):
        raise CheckpointUnreadable(f"{path}: holds no dictionary of tensors.")
    return content
