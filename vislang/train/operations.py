"""The number of floating-point operations of an operator; a multiply-add counts as two."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor
from torch.utils.flop_counter import flop_registry


def operations_of(operator: Any, arguments: Any, named: Any, result: Any) -> int:
    """Floating-point operations of a call: of matrix products, convolutions and attention; 0 for anything else."""
    formula = _FORMULAS.get(getattr(operator, "overloadpacket", operator))
    return 0 if formula is None else formula(*arguments, **named, out_val=result)


def _linear(x: Tensor, weight: Tensor, *rest: Any, **named: Any) -> int:
    return 2 * x.numel() * weight.shape[0]


def _attention(queries: Tensor, keys: Tensor, values: Tensor, *rest: Any, **named: Any) -> int:
    """Two matrix products a query head: scores, and the sum of values. Keys and values may have fewer heads."""
    return 2 * queries[..., 0].numel() * keys.shape[-2] * (queries.shape[-1] + values.shape[-1])


def _attention_backward(
    gradient: Tensor, queries: Tensor, keys: Tensor, values: Tensor, *rest: Any, **named: Any
) -> int:
    """Five matrix products a query head: the scores again, and the gradients of all three and of the scores."""
    return 2 * queries[..., 0].numel() * keys.shape[-2] * (3 * queries.shape[-1] + 2 * values.shape[-1])


_ATTENTION_KERNELS = ("efficient_attention", "flash_attention", "cudnn_attention", "flash_attention_for_cpu")

_FORMULAS: dict[Any, Callable[..., int]] = {
    **flop_registry,
    torch.ops.mkldnn._linear_pointwise: _linear,
    **{getattr(torch.ops.aten, f"_scaled_dot_product_{name}"): _attention for name in _ATTENTION_KERNELS},
    **{
        getattr(torch.ops.aten, f"_scaled_dot_product_{name}_backward"): _attention_backward
        for name in _ATTENTION_KERNELS
    },
}
"""torch's formulas, and ours where torch has none (kernels of CPUs) or refuses grouped queries (before 2.12)."""
