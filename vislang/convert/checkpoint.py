"""Reading other projects' checkpoints without running their code."""

from __future__ import annotations

import pickle
import zipfile
from collections.abc import Mapping
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import torch

from vislang.errors import UserError
from vislang.files import must_be_file


class CheckpointUnreadable(UserError):
    """The file is missing, damaged, or not a checkpoint."""


class _Inert:
    """Replaces an object of an untrusted class: accepts any call and does nothing."""

    def __init__(self, *args: Any, **kwargs: Any):
        del args, kwargs

    def __call__(self, *args: Any, **kwargs: Any) -> _Inert:
        return _Inert()

    def __setstate__(self, state: Any) -> None:
        if isinstance(state, dict):
            self.__dict__.update(state)

    def append(self, item: Any) -> None:
        """Ignore a list item."""

    def extend(self, items: Any) -> None:
        """Ignore list items."""

    def __setitem__(self, key: Any, value: Any) -> None:
        """Ignore an item of a mapping."""


_TENSORS = {
    ("torch._utils", "_rebuild_tensor"),
    ("torch._utils", "_rebuild_tensor_v2"),
    ("torch._utils", "_rebuild_parameter"),
    ("torch", "Size"),
    ("collections", "OrderedDict"),
}
"""Classes and functions by which tensors and dictionaries are pickled."""


class _Unpickler(pickle.Unpickler):
    """Builds tensors and plain containers; any other class becomes an inert stub with the same name."""

    def find_class(self, module: str, name: str) -> Any:
        if (module, name) in _TENSORS or (module == "torch" and name.endswith("Storage")):
            return super().find_class(module, name)
        if module == "torch" and isinstance(getattr(torch, name, None), torch.dtype):
            return getattr(torch, name)
        return type(name, (_Inert,), {"__module__": f"{module} (not loaded)"})


def _load(file: Any, **options: Any) -> Any:
    return _Unpickler(file, **options).load()


def read_checkpoint(path: Path | str) -> Mapping[str, Any]:
    """Read a file that ``torch.save`` wrote, with any objects beside its tensors.

    Unknown classes become inert stubs and none of their code runs: a checkpoint with pickled configuration objects
    opens without the code that wrote it, and a malicious one does no harm.

    Raises:
        CheckpointUnreadable: no such file, or it cannot be read.
    """
    path = Path(path)
    must_be_file(path, "a checkpoint that torch.save wrote", error=CheckpointUnreadable)
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
        raise CheckpointUnreadable(f"{path}: contains no dictionary of tensors.")
    return content
