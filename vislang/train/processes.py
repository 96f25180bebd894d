"""The processes that train one model together, and what they tell each other from host to host.

Gradients and parameters travel through :mod:`vislang.train.parallel`. Here are the few numbers that all processes must
agree on in each step, and the work that one process does while the others wait.
"""

from __future__ import annotations

import os
import pickle
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import timedelta
from typing import Any, TypeVar

import torch
from torch import Tensor
from torch import distributed as dist
from torch.distributed.rendezvous import rendezvous

from vislang.train.launcher_watch import end_if_launcher_has_ended, end_with_launcher

Result = TypeVar("Result")


class OtherProcessFailed(RuntimeError):
    """Another process failed, and says why itself."""


@dataclass
class Processes:
    """The processes of a run, as one of them sees them. The default is a process on its own.

    Attributes:
        rank: number of this process, from 0.
        count: of processes.
        local_rank: number of this process on its machine.
    """

    rank: int = 0
    count: int = 1
    local_rank: int = 0
    _store: Any = None
    _writers: Any = None
    _waits: int = field(default=0, repr=False)

    @property
    def is_first(self) -> bool:
        """Whether this is the process that writes files and prints."""
        return self.rank == 0

    @property
    def writers(self) -> Any:
        """A group of all processes for the thread that writes checkpoints, so that its messages never meet others."""
        if self.count > 1 and self._writers is None:
            self._writers = dist.new_group(backend="gloo")
        return self._writers

    def sum(self, values: Sequence[float]) -> list[float]:
        """The sum over processes of each of some numbers, in float64; no device is waited for."""
        if self.count == 1:
            return list(values)
        total = torch.tensor(values, dtype=torch.float64)
        dist.all_reduce(total)
        return total.tolist()

    def sum_tensor(self, tensor: Tensor) -> Tensor:
        """The sum over processes of a tensor on their devices, in place."""
        if self.count > 1:
            dist.all_reduce(tensor)
        return tensor

    def gather(self, value: Any) -> list[Any]:
        """A value of each process, in the order of ranks, on all of them."""
        if self.count == 1:
            return [value]
        values: list[Any] = [None] * self.count
        dist.all_gather_object(values, value)
        return values

    def from_first(self, compute: Callable[[], Result]) -> Result:
        """What ``compute`` gives on the first process, on all of them; the others wait for as long as it takes.

        Raises:
            OtherProcessFailed: on the others, where the first failed.
        """
        if self.count == 1:
            return compute()
        key = self._next_key()
        if self.is_first:
            try:
                result = compute()
            except BaseException:
                self._store.set(key, pickle.dumps((False, None)))
                raise
            self._store.set(key, pickle.dumps((True, result)))
            return result
        self._wait_for(key)
        done, received = pickle.loads(self._store.get(key))
        if not done:
            raise OtherProcessFailed("the first process failed.")
        return received

    @contextmanager
    def first_of_machine_first(self) -> Iterator[None]:
        """Run a block on the first process of each machine, and then on the others, which find what it left on disk."""
        if self.count == 1:
            yield
            return
        # Ranks of a machine are neighbours, so that its first one has this rank.
        key = f"{self._next_key()}/{self.rank - self.local_rank}"
        if self.local_rank:
            self._wait_for(key)
            yield
            return
        try:
            yield
        finally:
            self._store.set(key, b"done")

    def claim(self, what: str) -> bool:
        """Whether this process is the first to ask for something, such as to print what all have to say."""
        if self.count == 1:
            return True
        try:
            return self._store.add(what, 1) == 1
        except dist.DistError:
            # The process that holds the store has gone.
            return False

    def _next_key(self) -> str:
        self._waits += 1
        return f"wait/{self._waits}"

    def _wait_for(self, key: str) -> None:
        # A collective would give up after its timeout; an evaluation may take longer.
        while not self._store.check([key]):
            time.sleep(0.02)


def started_by_launcher() -> bool:
    """Whether this process is one of several that torchrun, Slurm's script or ``--devices`` started."""
    return int(os.environ.get("WORLD_SIZE", "1")) > 1


def restarts() -> int:
    """How often torchrun has started this run again after a failure."""
    return int(os.environ.get("TORCHELASTIC_RESTART_COUNT", "0"))


@contextmanager
def joined(timeout_minutes: float = 30) -> Iterator[Processes]:
    """Meet the other processes of the run, by the variables that torchrun sets; alone without them.

    Tensors of processors travel by gloo, those of GPUs by NCCL.

    Args:
        timeout_minutes: after which a process that waits for the others in vain fails.

    Raises:
        OtherProcessFailed: another process failed before this one did.
    """
    if not started_by_launcher() or dist.is_initialized():
        yield current()
        return
    end_with_launcher()
    rank, count = int(os.environ["RANK"]), int(os.environ["WORLD_SIZE"])
    local_rank = int(os.environ.get("LOCAL_RANK", rank))
    if torch.cuda.is_available():
        torch.cuda.set_device(local_rank % torch.cuda.device_count())
    store, rank, count = next(rendezvous("env://", rank, count))
    backend = "cpu:gloo,cuda:nccl" if torch.cuda.is_available() else "gloo"
    dist.init_process_group(
        backend,
        store=dist.PrefixStore("torch", store),
        rank=rank,
        world_size=count,
        timeout=timedelta(minutes=timeout_minutes),
    )
    processes = Processes(rank, count, local_rank, dist.PrefixStore(f"vislang/{restarts()}", store))
    _JOINED.append(processes)
    try:
        yield processes
        # Nobody leaves while another still needs the store that the first one may hold.
        dist.barrier()
    except Exception as error:
        end_if_launcher_has_ended()
        # The process that fails first says why. That the others then fail too says nothing more.
        if isinstance(error, OtherProcessFailed) or not processes.claim("failure"):
            raise OtherProcessFailed(str(error)) from error
        raise
    finally:
        _JOINED.remove(processes)
        dist.destroy_process_group()


_JOINED: list[Processes] = []


def current() -> Processes:
    """The processes that this one has joined; itself alone where it has joined none."""
    return _JOINED[-1] if _JOINED else Processes()
