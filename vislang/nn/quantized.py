"""Linear layers of frozen models in 8 bits: a quarter of float32's memory."""

from __future__ import annotations

from collections.abc import Callable

import torch
import torch.nn.functional as F
from jaxtyping import Float, Int8
from torch import Tensor, nn
from transformers.pytorch_utils import Conv1D


class _Dequantized(torch.autograd.Function):
    """The layer with its weights dequantized only while they are used, forward and backward."""

    @staticmethod
    def forward(context, x: Tensor, weight: Tensor, scale: Tensor) -> Tensor:
        context.save_for_backward(weight, scale)
        return F.linear(x, weight.to(x.dtype)) * scale.to(x.dtype)

    @staticmethod
    def backward(context, gradient: Tensor) -> tuple[Tensor, None, None]:
        weight, scale = context.saved_tensors
        return (gradient * scale.to(gradient.dtype)) @ weight.to(gradient.dtype), None, None


class Int8Linear(nn.Module):
    """A frozen linear layer whose rows are integers from -127 to 127 times a factor.

    Its input gets gradients, its weights do not.

    Args:
        linear: the layer to quantize; GPT-2's ``Conv1D`` is a linear layer with a transposed matrix.
    """

    weight: Int8[Tensor, "width_out width_in"]
    scale: Float[Tensor, "..."]

    def __init__(self, linear: nn.Linear | Conv1D):
        super().__init__()
        whole = linear.weight.detach()
        if isinstance(linear, Conv1D):
            whole = whole.t()
        scale = whole.abs().amax(dim=1).float().clamp(min=1e-12) / 127
        self.register_buffer("weight", (whole.float() / scale[:, None]).round().to(torch.int8))
        self.register_buffer("scale", scale)
        self.bias = linear.bias

    def forward(self, x: Float[Tensor, "*batch width_in"]) -> Float[Tensor, "*batch width_out"]:
        """Apply the layer to each position."""
        if torch.is_autocast_enabled(x.device.type):
            x = x.to(torch.get_autocast_dtype(x.device.type))
        mapped = _Dequantized.apply(x, self.weight, self.scale)
        return mapped if self.bias is None else mapped + self.bias.to(mapped.dtype)


def quantize_linears(model: nn.Module, spared: Callable[[nn.Module], bool] = lambda _: False) -> int:
    """Replace a model's linear layers by 8-bit layers, except those that are ``spared``; returns the number."""
    count = 0
    for module in list(model.modules()):
        for name, child in list(module.named_children()):
            if type(child) in (nn.Linear, Conv1D) and not spared(child):
                setattr(module, name, Int8Linear(child))
                count += 1
    return count
