"""Muon beside torch's, and gradient checkpointing beside keeping all activations.

The matrices are those of a gated block of flamingo-easyvqa.yaml (SmolLM2-135M, latents of width 256). The recomputed
blocks are the twelve of a ViT-S, over 8 images of 196 patches.

    python benchmarks/optimisation.py [--quick] [--json FILE]
"""

from __future__ import annotations

from collections.abc import Callable

import torch
from compare import Row, arguments, compare, report
from torch import Tensor, nn
from torch.autograd.graph import saved_tensors_hooks

from vislang.models.flamingo.gated_block import GatedCrossAttentionBlock
from vislang.nn.transformer import EncoderBlock
from vislang.train.muon import Muon


def muon(rounds: int) -> Row:
    """A step of both on the same matrices."""
    steps: list[Callable[[], object]] = []
    for made in (Muon, torch.optim.Muon):
        torch.manual_seed(0)
        block = GatedCrossAttentionBlock(576, 256)
        matrices = [module.weight for module in block.modules() if isinstance(module, nn.Linear)]
        for matrix in matrices:
            matrix.grad = torch.randn_like(matrix)
        steps.append(made(matrices, lr=1e-3).step)
    return compare("Muon on a gated block to torch.optim.Muon", *steps, at_most=1.1, rounds=rounds, warmup=1)


def kept(run: Callable[[], Tensor], parameters: list[nn.Parameter]) -> int:
    """Bytes of distinct tensors, parameters left out, that a forward pass keeps for its backward pass."""
    own = {parameter.untyped_storage().data_ptr() for parameter in parameters}
    storages: dict[int, torch.UntypedStorage] = {}

    def pack(tensor: Tensor) -> Tensor:
        storage = tensor.untyped_storage()
        if storage.data_ptr() not in own:
            storages[storage.data_ptr()] = storage
        return tensor

    with saved_tensors_hooks(pack, lambda tensor: tensor):
        run()
    return sum(storage.nbytes() for storage in storages.values())


def recomputing(rounds: int) -> list[Row]:
    """Memory and time of a forward and backward pass."""
    torch.manual_seed(0)
    blocks = nn.ModuleList(EncoderBlock(384, 6, 1536, norm_first=True) for _ in range(12))
    x = torch.randn(8, 197, 384)

    def forward(recompute: bool) -> Tensor:
        hidden = x
        for block in blocks:
            assert isinstance(block, EncoderBlock)
            block.recompute = recompute
            hidden, _ = block(hidden)
        return hidden.sum()

    parameters = list(blocks.parameters())
    share = kept(lambda: forward(True), parameters) / kept(lambda: forward(False), parameters)
    return [
        Row("activations kept, 12 blocks recomputed", share, "of all", "<= 0.1", share <= 0.1, 0.0, 0.0, 1),
        compare(
            "12 blocks recomputed to 12 blocks kept",
            lambda: forward(True).backward(),
            lambda: forward(False).backward(),
            at_most=1.4,
            rounds=rounds,
            warmup=1,
        ),
    ]


def main() -> None:
    """Print the table."""
    options = arguments(__doc__ or "")
    torch.set_num_threads(2)
    rounds = 2 if options.quick else 7
    report([muon(rounds), *recomputing(rounds)], options.json)


if __name__ == "__main__":
    main()
