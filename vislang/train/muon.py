"""Muon, in the arithmetic that the device is fastest in, and for sharded parameters."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

from vislang.nn.precision import fastest_dtype


class Muon(torch.optim.Muon):
    """``torch.optim.Muon`` (Jordan et al. 2024), which orthogonalises the momentum of each matrix before it is applied.

    Two things differ from torch's. Its Newton-Schulz iteration always runs in bfloat16, which a processor without such
    instructions emulates at a small fraction of its speed (``benchmarks/optimisation.py``); here it runs in float32
    there. And the momentum of a sharded matrix is gathered first, so that each process orthogonalises the whole matrix
    and keeps its own part: the update is that of one process.

    The update has the size of AdamW's (``match_rms_adamw``; Liu et al. 2025, section 2.2), so that the same rate and
    the same weight decay serve both.

    Args:
        params: groups of matrices.
        lr: learning rate.
        momentum: of the average of gradients.
    """

    def __init__(self, params: Any, lr: float, momentum: float = 0.95):
        super().__init__(params, lr=lr, momentum=momentum, adjust_lr_fn="match_rms_adamw")

    @torch.no_grad()
    def step(self, closure: Callable[[], float] | None = None) -> None:  # type: ignore[override]
        """Update every matrix that has a gradient."""
        assert closure is None
        for group in self.param_groups:
            rate, momentum = group["lr"], group["momentum"]
            for parameter in group["params"]:
                gradient = parameter.grad
                if gradient is None:
                    continue
                state = self.state[parameter]
                if not state:
                    state["momentum_buffer"] = torch.zeros_like(gradient)
                average = state["momentum_buffer"].lerp_(gradient, 1 - momentum)
                update = _orthogonalised(gradient.lerp(average, momentum), group)
                parameter.mul_(1 - rate * group["weight_decay"])
                parameter.add_(update, alpha=-rate * 0.2 * max(parameter.shape) ** 0.5)


def _orthogonalised(matrix: Tensor, group: dict[str, Any]) -> Tensor:
    """See :func:`orthogonalised`; a sharded matrix is gathered, and the result sharded in the same way."""
    settings = group["ns_coefficients"], group["ns_steps"], group["eps"]
    if not hasattr(matrix, "full_tensor"):
        return orthogonalised(matrix, *settings)
    # Imported here, since it takes a second and most runs have no sharded tensor.
    from torch.distributed.tensor import DTensor, distribute_tensor

    assert isinstance(matrix, DTensor)
    whole = orthogonalised(matrix.full_tensor(), *settings)
    # Every process has the whole matrix and takes its own part of it: nothing is sent.
    return distribute_tensor(whole, matrix.device_mesh, matrix.placements, src_data_rank=None)


def orthogonalised(
    matrix: Tensor, coefficients: tuple[float, float, float], steps: int, eps: float, dtype: torch.dtype | None = None
) -> Tensor:
    """The matrix with all its singular values near 1, by a quintic Newton-Schulz iteration.

    Args:
        matrix: (rows, columns).
        coefficients: of the polynomial a x + b x^3 + c x^5 that each step applies to the singular values.
        steps: of the iteration.
        eps: least norm that the matrix is divided by.
        dtype: number type of the iteration; None takes the device's fastest.
    """
    a, b, c = coefficients
    x = matrix.to(dtype or fastest_dtype(matrix.device))
    tall = x.shape[0] > x.shape[1]
    x = x.t() if tall else x
    # So that no singular value is above 1.
    x = x / x.norm().clamp(min=eps)
    for _ in range(steps):
        gram = x @ x.t()
        x = torch.addmm(x, torch.addmm(gram, gram, gram, beta=b, alpha=c), x, beta=a)
    return x.t() if tall else x
