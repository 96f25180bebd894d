"""Checkpoints: all that a run needs to continue as if it had never stopped, written whole or not at all.

A checkpoint is a folder ``step-00000200``: tensors as torch's distributed checkpoint (DCP), each process writing what
is its own, and ``state.json`` with all other values, the names of the tensors and a SHA-256 of every file. A thread
writes it while training continues, under a name that starts with a dot; it takes its own name once it is complete. It
opens with any number of processes.
"""

from __future__ import annotations

import errno
import hashlib
import json
import os
import pickle
import shutil
import warnings
from collections.abc import Mapping
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
import torch.distributed.checkpoint as dcp
from torch import Tensor
from torch.distributed.checkpoint import FileSystemReader, FileSystemWriter
from torch.distributed.checkpoint.metadata import Metadata, TensorStorageMetadata
from torch.distributed.tensor import DTensor

from vislang.errors import UserError
from vislang.files import system_errors
from vislang.train.processes import Processes

# A run of one process saves as one process; DCP says so each time.
warnings.filterwarnings("ignore", "torch.distributed is disabled", UserWarning)

PREFIX = "step-"
UNFINISHED = ".unfinished-"
"""How the name of a checkpoint starts that is being written."""
REMOVED = ".removed-"
"""The same for one that is being removed."""
STATE = "state.json"
OLD_FILE = "state.pt"
"""The one file of a checkpoint of version 0.1.0."""
BEST = "best.json"
"""Names the checkpoint with the best evaluation."""


class CheckpointError(UserError):
    """No checkpoint to continue from, or not one of this run, or one that cannot be written."""


class DamagedCheckpoint(UserWarning):
    """A checkpoint cannot be read; the one before it is used."""


@dataclass(frozen=True)
class Saved:
    """A checkpoint that was found whole.

    Attributes:
        path: its folder.
        step: steps done.
        values: what was saved beside tensors.
        sizes: shape and number type of each tensor in it, by name.
        old: the tensors of a checkpoint of version 0.1.0, nested as that version had them.
    """

    path: Path
    step: int
    values: dict[str, Any]
    sizes: dict[str, tuple[torch.Size, torch.dtype]]
    old: dict[str, Any] | None = None

    def model_state(self) -> dict[str, Tensor]:
        """The model's tensors, whole, in the memory of the host."""
        if self.old is not None:
            return self.old["model"]
        names = [name for name in self.sizes if name.startswith("model/")]
        read = self.read({name: torch.empty(0) for name in names})
        return {name.removeprefix("model/"): tensor for name, tensor in read.items()}

    def read(self, into: Mapping[str, Tensor]) -> dict[str, Tensor]:
        """Tensors by name, each on the device and with the sharding of the one that is given.

        Every process has to call this with the same names.

        Args:
            into: which tensors; they are not changed. One of another shape is read as it was saved.
        """
        made = {}
        for name, like in into.items():
            size, dtype = self.sizes[name]
            fits = like.shape == size
            made[name] = torch.empty_like(like, dtype=dtype) if fits else like.new_empty(size, dtype=dtype)
        if made:
            dcp.load(dict(made), storage_reader=_SafeReader(self.path), no_dist=not torch.distributed.is_initialized())
        return made


class Checkpoints:
    """The checkpoints of a run. As a context it ends once all of them are written.

    Args:
        folder: where they lie, which all processes must see.
        processes: of the run.
        keep: how many of the latest stay, beside the best.
    """

    def __init__(self, folder: Path, processes: Processes | None = None, keep: int = 2):
        self.folder = folder
        self._processes = processes or Processes()
        self._keep = keep
        self._writer = ThreadPoolExecutor(1, "checkpoint")
        self._pending: Future | None = None

    def __enter__(self) -> Checkpoints:
        return self

    def __exit__(self, kind: type[BaseException] | None, *rest: Any) -> None:
        # Where another process has died, its part of a checkpoint would be waited for in vain.
        if kind is None or issubclass(kind, UserError):
            self.wait()

    def check(self, size: int) -> None:
        """Raise an error where a checkpoint of ``size`` bytes could not be written.

        What a killed run left of checkpoints that it was writing or removing is removed.

        Raises:
            CheckpointError: the folder cannot be written, or there is no room.
        """
        try:
            self.folder.mkdir(parents=True, exist_ok=True)
            if self._processes.is_first:
                for prefix in (UNFINISHED, REMOVED):
                    for left in self.folder.glob(f"{prefix}*"):
                        shutil.rmtree(left)
            probe = self.folder / f".probe-{self._processes.rank}"
            probe.write_bytes(b"")
            probe.unlink()
            free = shutil.disk_usage(self.folder).free
        except OSError as error:
            raise CheckpointError(f"{self.folder}: cannot be written to ({error.strerror}).") from None
        if free < size:
            raise CheckpointError(
                f"{self.folder}: a checkpoint takes {size / 2**20:,.0f} MiB, and {free / 2**20:,.0f} MiB are free. "
                "Free some space, or name a folder on another disk."
            )

    def save(self, step: int, tensors: Mapping[str, Tensor], values: dict[str, Any], best: Any = None) -> None:
        """Write the state after ``step`` steps; returns once it is copied, and a thread writes the copy.

        The one before it is waited for.

        Args:
            step: steps done.
            tensors: by name, sharded or whole; whole ones are the same in every process.
            values: JSON values, the same in every process.
            best: a JSON value that says why this is the best checkpoint so far; None where it is not.

        Raises:
            CheckpointError: the one before it could not be written.
        """
        self.wait()
        copied = {name: _on_host(tensor) for name, tensor in tensors.items()}
        self._pending = self._writer.submit(self._write, step, copied, values, best, self._processes.writers)

    def wait(self) -> None:
        """Wait until everything is written.

        Raises:
            CheckpointError: it could not be written.
        """
        pending, self._pending = self._pending, None
        if pending is None:
            return
        try:
            pending.result()
        except OSError as error:
            raise self._unwritten(error) from error
        except dcp.CheckpointException as error:
            causes = [cause for cause, _ in error.failures.values() if isinstance(cause, OSError)]
            if not causes:
                raise
            raise self._unwritten(causes[0]) from error

    def _unwritten(self, error: OSError) -> CheckpointError:
        whole = list_checkpoints(self.folder)
        last = f"The last whole one is {whole[-1].name}." if whole else "There is no whole one yet."
        full = " Free some space, then continue with --resume." if error.errno in (errno.ENOSPC, errno.EDQUOT) else ""
        return CheckpointError(
            f"{self.folder}: no checkpoint could be written ({error.strerror or error}). {last}{full}"
        )

    def _write(self, step: int, tensors: dict[str, Tensor], values: dict[str, Any], best: Any, group: Any) -> None:
        final = self.folder / f"{PREFIX}{step:08d}"
        unfinished = self.folder / f"{UNFINISHED}{step:08d}"
        first = self._processes.is_first
        if first:
            shutil.rmtree(unfinished, ignore_errors=True)
        try:
            dcp.save(
                tensors,
                storage_writer=_Writer(unfinished),
                process_group=group,
                no_dist=self._processes.count == 1,
            )
            if not first:
                return
            files = {path.name: _sha256(path) for path in sorted(unfinished.iterdir())}
            state = {"schema": 1, "step": step, **values, "tensors": sorted(tensors), "files": files}
            _write_synced(unfinished / STATE, json.dumps(state))
            shutil.rmtree(final, ignore_errors=True)
            os.replace(unfinished, final)
            if best is not None:
                _write_synced(self.folder / f".{BEST}", json.dumps({"checkpoint": final.name, **best}))
                os.replace(self.folder / f".{BEST}", self.folder / BEST)
            self._prune()
        except BaseException:
            if first:
                shutil.rmtree(unfinished, ignore_errors=True)
            raise

    def _prune(self) -> None:
        best = self.best()
        kept = {best["checkpoint"]} if best else set()
        for path in list_checkpoints(self.folder)[: -self._keep]:
            if path.name not in kept:
                # Killed in the middle of it, nothing is left that looks like a checkpoint.
                removed = self.folder / f"{REMOVED}{path.name}"
                os.replace(path, removed)
                shutil.rmtree(removed)

    def best(self) -> dict[str, Any] | None:
        """What was said of the best checkpoint, its name as ``checkpoint`` included; None where there is none."""
        try:
            return json.loads((self.folder / BEST).read_text(encoding="utf-8"))
        except FileNotFoundError:
            return None

    def latest(self) -> Saved | None:
        """The latest checkpoint that is whole, the same in every process; None where the run was stopped before one.

        Raises:
            CheckpointError: there are checkpoints, and all are damaged.
        """
        name = self._processes.from_first(self._latest_whole)
        return None if name is None else open_checkpoint(self.folder / name)

    def _latest_whole(self) -> str | None:
        found = list_checkpoints(self.folder)
        for path in reversed(found):
            try:
                _verify(path)
                return path.name
            except (OSError, ValueError, RuntimeError, KeyError, EOFError, pickle.UnpicklingError) as error:
                reason = (str(error).strip().splitlines() or [type(error).__name__])[0]
                warnings.warn(f"{path}: damaged, and passed over ({reason}).", DamagedCheckpoint, stacklevel=4)
        if found:
            raise CheckpointError(
                f"{self.folder}: all {len(found)} checkpoints in it are damaged. Start the run again."
            )
        return None


def list_checkpoints(folder: Path) -> list[Path]:
    """The complete checkpoints, oldest first."""
    return sorted(p for p in folder.glob(f"{PREFIX}*") if (p / STATE).is_file() or (p / OLD_FILE).is_file())


def _verify(path: Path) -> None:
    """Raise an error where a checkpoint is not what was written."""
    if (path / OLD_FILE).is_file():
        torch.load(path / OLD_FILE, weights_only=True)
        return
    state = json.loads((path / STATE).read_text(encoding="utf-8"))
    for name, digest in state["files"].items():
        if _sha256(path / name) != digest:
            raise ValueError(f"{name} is not what was written")
    # Those of the first process; others have generators of their own.
    missing = set(state["tensors"]) - set(_SafeReader(path).read_metadata().state_dict_metadata)
    if missing:
        raise ValueError(f"tensors are missing: {', '.join(sorted(missing)[:5])}")


def open_checkpoint(path: Path) -> Saved:
    """A complete checkpoint; what is damaged in it is found by :meth:`Checkpoints.latest`."""
    if (path / OLD_FILE).is_file():
        return _opened_old(path, torch.load(path / OLD_FILE, weights_only=True))
    state = json.loads((path / STATE).read_text(encoding="utf-8"))
    sizes = {}
    for name, about in _SafeReader(path).read_metadata().state_dict_metadata.items():
        assert isinstance(about, TensorStorageMetadata)
        sizes[name] = about.size, about.properties.dtype
    return Saved(path, state["step"], state, sizes)


def _opened_old(path: Path, state: dict[str, Any]) -> Saved:
    """A checkpoint of version 0.1.0 or of the first versions after it, which had one file."""
    if "extra" not in state:
        # Version 0.1.0 kept text as tensors of bytes.
        tensors, extra = dict(state["model"]), {}
        for name in ("tokenizer", "labels", "tasks"):
            if name in tensors and tensors[name].dtype == torch.uint8:
                text = bytes(tensors.pop(name).tolist()).decode()
                extra[name] = text if name == "tokenizer" else json.loads(text)
        if "updates" in tensors:
            extra["updates"] = int(tensors.pop("updates"))
        state = {**state, "model": tensors, "extra": extra}
    tensors = {name: state[name] for name in ("model", "optimizer", "random")}
    values = {name: value for name, value in state.items() if name not in tensors}
    return Saved(path, state["step"], values, {}, tensors)


def _on_host(tensor: Tensor) -> Tensor:
    """A copy in the memory of the host, sharded as the tensor is."""
    copied = tensor.detach().clone() if tensor.device.type == "cpu" else tensor.detach().cpu()
    assert isinstance(copied, DTensor) == isinstance(tensor, DTensor)
    return copied


def _sha256(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def _write_synced(path: Path, text: str) -> None:
    with path.open("w", encoding="utf-8") as file:
        file.write(text)
        file.flush()
        os.fsync(file.fileno())


_ALLOWED = {
    *(
        ("torch.distributed.checkpoint.metadata", name)
        for name in (
            "Metadata",
            "MetadataIndex",
            "TensorStorageMetadata",
            "TensorProperties",
            "ChunkStorageMetadata",
            "StorageMeta",
            "_MEM_FORMAT_ENCODING",
        )
    ),
    ("torch.distributed.checkpoint.filesystem", "_StorageInfo"),
    ("torch", "Size"),
    ("torch.serialization", "_get_layout"),
    ("collections", "OrderedDict"),
    *(("pathlib", name) for name in ("PosixPath", "PurePosixPath", "WindowsPath", "PureWindowsPath")),
}
"""What DCP's description of a checkpoint is made of."""


class _Writer(FileSystemWriter):
    """DCP's writer of files, with the system's own error where torch hides a full disk behind one of its own."""

    def write_data(self, *args: Any, **kwargs: Any) -> Any:
        with system_errors(Path(self.path)):
            return super().write_data(*args, **kwargs)


class _MetadataUnpickler(pickle.Unpickler):
    def find_class(self, module: str, name: str) -> Any:
        is_dtype = module == "torch" and isinstance(getattr(torch, name, None), torch.dtype)
        if (module, name) in _ALLOWED or is_dtype:
            return super().find_class(module, name)
        raise pickle.UnpicklingError(f"it wants {module}.{name}, which is no part of a checkpoint")


class _SafeReader(FileSystemReader):
    """DCP's reader of files, which runs nothing that stands in one: its description is a pickle."""

    def read_metadata(self, *args: Any, **kwargs: Any) -> Metadata:
        with (Path(self.path) / ".metadata").open("rb") as file:
            metadata = _MetadataUnpickler(file).load()
        others = [n for n, m in metadata.state_dict_metadata.items() if not isinstance(m, TensorStorageMetadata)]
        if others:
            raise pickle.UnpicklingError(f"{others[0]} is no tensor")
        if metadata.storage_meta is not None:
            metadata.storage_meta.load_id = self.load_id
        return metadata
