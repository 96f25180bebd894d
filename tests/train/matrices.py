"""A matrix that Muon updates in one of several processes, whole and sharded."""

from __future__ import annotations

from pathlib import Path

import torch
from torch import distributed, nn
from torch.distributed.device_mesh import init_device_mesh
from torch.distributed.tensor import Shard, distribute_tensor

from vislang.train.muon import Muon


def update(rank: int, folder: Path) -> None:
    """Update the same matrix whole and sharded, by the same gradients, and write both results into ``folder``."""
    mesh = init_device_mesh("cpu", (distributed.get_world_size(),))
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
    torch.save(found, folder / f"muon-{rank}.pt")
