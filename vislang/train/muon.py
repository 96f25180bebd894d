"""Muon in the fastest number type of the device, also for sharded parameters."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor
from torch.distributed.tensor import DTensor, distribute_tensor

from vislang.nn.precision import fastest_dtype
from vislang.train.parallel import local


class Muon(torch.optim.Muon):
    """``torch.optim.Muon`` (Jordan et al. 2024): the update of a matrix is its orthogonalised momentum.

    There are two differences. The Newton-Schulz iteration runs in float32 on processors without bfloat16 instructions,
    where torch's emulated bfloat16 is several times slower (``benchmarks/optimisation.py``). And the momentum of a
    sharded matrix is gathered, so that every process orthogonalises the whole matrix and keeps its shard: the update is
    the same as in one process.

    The update has the size of AdamW's (``match_rms_adamw``; Liu et al. 2025, section 2.2), so learning rate and weight
    decay of AdamW can be reused.

    Args:
        params: groups of matrices.
        lr: learning rate.
        momentum: of the average of gradients.

    Attributes:
        found_inf: a scalar on the device; the step changes nothing unless it is 0. None always updates.
    """

    found_inf: Tensor | None = None

    def __init__(self, params: Any, lr: float, momentum: float = 0.95):
        super().__init__(params, lr=lr, momentum=momentum, adjust_lr_fn="match_rms_adamw")

    @torch.no_grad()
    def step(self, closure: Callable[[], float] | None = None) -> None:  # type: ignore[override]
        """Update every matrix that has a gradient."""
        assert closure is None
        for group in self.param_groups:
            for parameter in group["params"]:
                if parameter.grad is not None:
                    self._update(parameter, group)

    def _update(self, parameter: Tensor, group: dict[str, Any]) -> None:
        rate, momentum, decay = group["lr"], group["momentum"], 1 - group["lr"] * group["weight_decay"]
        assert parameter.grad is not None
        state = self.state[parameter]
        if not state:
            state["momentum_buffer"] = torch.zeros_like(parameter.grad)
        gradient, average, own = local(parameter.grad), local(state["momentum_buffer"]), local(parameter)
        if self.found_inf is not None:
            skip = self.found_inf != 0
            # Moving the average towards itself leaves it unchanged.
            gradient = torch.where(skip, average, gradient)
            decay = torch.where(skip, 1.0, decay)
        average.lerp_(gradient, 1 - momentum)
        update = _orthogonalised(gradient.lerp(average, momentum), parameter, group)
        if self.found_inf is not None:
            update = torch.where(skip, 0.0, update)
        own.mul_(decay)
        own.add_(update, alpha=-rate * 0.2 * max(parameter.shape) ** 0.5)


def _orthogonalised(update: Tensor, parameter: Tensor, group: dict[str, Any]) -> Tensor:
    """See :func:`orthogonalised`; for a sharded matrix, argument and result are this process's shard."""
    settings = group["ns_coefficients"], group["ns_steps"], group["eps"]
    if not isinstance(parameter, DTensor):
        return orthogonalised(update, *settings)
    mesh, placements = parameter.device_mesh, parameter.placements
    sharded = DTensor.from_local(update, mesh, placements, shape=parameter.shape, stride=parameter.stride())
    whole = orthogonalised(sharded.full_tensor(), *settings)
    # Every process has the whole matrix and takes its shard; nothing is sent.
    return distribute_tensor(whole, mesh, placements, src_data_rank=None).to_local()


def orthogonalised(
    matrix: Tensor, coefficients: tuple[float, float, float], steps: int, eps: float, dtype: torch.dtype | None = None
) -> Tensor:
    """The matrix with all singular values moved near 1, by a quintic Newton-Schulz iteration.

    Args:
        matrix: (rows, columns).
        coefficients: a, b, c of the polynomial a x + b x^3 + c x^5 that each step applies to the singular values.
        steps: number of iterations.
        eps: lower bound of the norm by which the matrix is divided first.
        dtype: number type of the iteration; None takes the fastest of the device.
    """
    a, b, c = coefficients
    x = matrix.to(dtype or fastest_dtype(matrix.device))
    tall = x.shape[0] > x.shape[1]
    x = x.t() if tall else x
    # Now no singular value is above 1.
    x = x / x.norm().clamp(min=eps)
    for _ in range(steps):
        gram = x @ x.t()
        x = torch.addmm(x, torch.addmm(gram, gram, gram, beta=b, alpha=c), x, beta=a)
    return x.t() if tall else x
