"""One of two processes that update a sharded matrix; apart from the tests, so that it starts fast."""

from __future__ import annotations

from pathlib import Path

import torch
import torch.distributed as distributed
from torch import nn
from torch.distributed.device_mesh import init_device_mesh
from torch.distributed.tensor import Shard, distribute_tensor

from vislang.train.muon import Muon


def update(rank: int, folder: str) -> None:
    """Update a matrix whole and sharded, with the same gradients, and keep both results in ``folder``."""
    torch.set_num_threads(1)
    distributed.init_process_group("gloo", f"file://{folder}/meeting", rank=rank, world_size=2)
    mesh = init_device_mesh("cpu", (2,))
    generator = torch.Generator().manual_seed(0)
    matrix = torch.randn(5, 6, generator=generator)
    whole, sharded = nn.Parameter(matrix.clone()), nn.Parameter(distribute_tensor(matrix, mesh, [Shard(0)]))
    optimizers = [Muon([{"params": [parameter], "weight_decay": 0.3}], lr=0.05) for parameter in (whole, sharded)]
    for _ in range(3):
        whole.grad = torch.randn(5, 6, generator=generator)
        sharded.grad = distribute_tensor(whole.grad, mesh, [Shard(0)])
        for optimizer in optimizers:
            optimizer.step()
    found = {"whole": whole.detach(), "sharded": sharded.detach().full_tensor(), "own": sharded.detach().to_local()}
    torch.save(found, Path(folder) / f"{rank}.pt")
    distributed.destroy_process_group()
