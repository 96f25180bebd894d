"""Several processes of one command on this machine, as torchrun starts them on many."""

from __future__ import annotations

import logging
import os
import sys
import uuid
from collections.abc import Sequence

from torch.distributed.elastic.multiprocessing.api import SignalException
from torch.distributed.elastic.multiprocessing.errors import ChildFailedError
from torch.distributed.launcher.api import LaunchConfig, elastic_launch

INTERRUPTED, MISTAKE = 130, 2
"""Exit statuses of the command line."""


def launch(words: Sequence[str], count: int) -> int:
    """Run Python with these words in ``count`` processes, which find each other by the variables that torchrun sets.

    Where one of them fails, the others are ended. Ctrl-C and SIGTERM reach all of them, and they have 30 seconds to
    save.

    Args:
        words: the command line, such as ``-m vislang.cli train recipe.yaml``.
        count: of processes.

    Returns:
        The exit status: 0 done, 130 interrupted, 2 a user's mistake, 1 any other failure.
    """
    os.environ.setdefault("OMP_NUM_THREADS", str(max(1, (os.cpu_count() or 1) // count)))
    # torch warns in every process that DDP looks for unused parameters, which here is meant.
    os.environ.setdefault("TORCH_CPP_LOG_LEVEL", "ERROR")
    # Its messages are about processes; what happened in them they say themselves.
    for name in ("agent.server.api", "multiprocessing.api"):
        logging.getLogger(f"torch.distributed.elastic.{name}").setLevel(logging.CRITICAL)
    config = LaunchConfig(
        min_nodes=1,
        max_nodes=1,
        nproc_per_node=count,
        run_id=uuid.uuid4().hex,
        rdzv_backend="c10d",
        rdzv_endpoint="127.0.0.1:0",
        local_addr="127.0.0.1",
        max_restarts=0,
    )
    try:
        elastic_launch(config, sys.executable)(*words)
    except SignalException:
        return INTERRUPTED
    except ChildFailedError as error:
        rank, first = error.get_first_failure()
        if first.exitcode in (INTERRUPTED, MISTAKE):
            return first.exitcode
        print(f"vislang: process {rank} of {count} ended with status {first.exitcode}.", file=sys.stderr)
        return 1
    return 0
