"""The number of floating-point operations of an operator; a multiply-add counts as two."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor
from torch.utils.flop_counter import flop_registry, sdpa_backward_flop_count, sdpa_flop_count


def operations_of(operator: Any, arguments: Any, named: Any, result: Any) -> int:
    """Floating-point operations of a call: of matrix products, convolutions and attention; 0 for anything else."""
    formula = _FORMULAS.get(getattr(operator, "overloadpacket", operator))
    return 0 if formula is None else formula(*arguments, **named, out_val=result)


def _linear(x: Tensor, weight: Tensor, *rest: Any, **named: Any) -> int:
    return 2 * x.numel() * weight.shape[0]


def _attention(queries: Tensor, keys: Tensor, values: Tensor, *rest: Any, **named: Any) -> int:
    return sdpa_flop_count(queries.shape, keys.shape, values.shape)


def _attention_backward(
    gradient: Tensor, queries: Tensor, keys: Tensor, values: Tensor, *rest: Any, **named: Any
) -> int:
    return sdpa_backward_flop_count(gradient.shape, queries.shape, keys.shape, values.shape)


_FORMULAS: dict[Any, Callable[..., int]] = {
    **flop_registry,
    torch.ops.mkldnn._linear_pointwise: _linear,
    torch.ops.aten._scaled_dot_product_flash_attention_for_cpu: _attention,
    torch.ops.aten._scaled_dot_product_flash_attention_for_cpu_backward: _attention_backward,
}
"""torch's formulas, and those of kernels that only CPUs have."""
