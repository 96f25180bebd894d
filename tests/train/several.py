"""Several processes for a test: forked from one that has imported everything once."""

from __future__ import annotations

import multiprocessing
import os
import socket
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import torch
import torch.multiprocessing

from vislang.train.processes import Processes, joined


def start(count: int, work: Callable[..., Any], *arguments: Any) -> None:
    """Call ``work(rank, *arguments)`` in so many processes, and wait for them.

    Raises:
        ProcessRaisedException: one of them failed; the message has its traceback.
    """
    multiprocessing.set_forkserver_preload(["tests.train.cases"])
    torch.multiprocessing.start_processes(
        _work, (work, arguments), nprocs=count, start_method="forkserver", daemon=False
    )


def _work(rank: int, work: Callable[..., Any], arguments: tuple) -> None:
    torch.set_num_threads(1)
    work(rank, *arguments)


def free_port() -> int:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        return free.getsockname()[1]


@contextmanager
def together(rank: int, count: int, port: int) -> Iterator[Processes]:
    """Join the others, as a process that torchrun has started."""
    os.environ |= {"RANK": str(rank), "LOCAL_RANK": str(rank), "WORLD_SIZE": str(count)}
    os.environ |= {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(port)}
    with joined() as processes:
        yield processes
