"""Linear layers in 8 bits."""

import torch
from torch import nn
from transformers.pytorch_utils import Conv1D

from vislang.nn.quantized import Int8Linear, quantize_linears


def test_it_is_near_the_original_layer_and_exact_for_its_own_weights():
    torch.manual_seed(0)
    linear = nn.Linear(64, 48)
    small = Int8Linear(linear)
    whole = small.weight.float() * small.scale[:, None]
    assert (whole - linear.weight).abs().amax() <= small.scale.max() / 2 + 1e-7
    x = torch.randn(3, 5, 64, requires_grad=True)
    y = small(x)
    expected = torch.nn.functional.linear(x, whole, linear.bias)
    torch.testing.assert_close(y, expected, atol=1e-5, rtol=1e-5)
    (ours,) = torch.autograd.grad(y.square().sum(), x)
    (theirs,) = torch.autograd.grad(expected.square().sum(), x)
    torch.testing.assert_close(ours, theirs, atol=1e-4, rtol=1e-4)
    assert small.weight.dtype == torch.int8


def test_the_layers_of_gpt2_are_transposed():
    torch.manual_seed(0)
    conv = Conv1D(6, 4)
    x = torch.randn(3, 4)
    assert Int8Linear(conv).weight.shape == (6, 4)
    torch.testing.assert_close(Int8Linear(conv)(x), conv(x), atol=0.01, rtol=0.02)
    assert quantize_linears(torch.nn.Sequential(conv)) == 1


def test_rows_of_zeros_and_other_arithmetic():
    linear = nn.Linear(8, 4, bias=False)
    nn.init.zeros_(linear.weight)
    assert Int8Linear(linear)(torch.randn(2, 8)).abs().max() == 0
    with torch.autocast("cpu", torch.bfloat16):
        assert Int8Linear(nn.Linear(8, 4))(torch.randn(2, 8)).dtype == torch.bfloat16


def test_all_layers_except_the_excluded_ones_are_replaced():
    model = nn.Sequential(nn.Linear(4, 4), nn.Sequential(nn.ReLU(), nn.Linear(4, 4)), nn.Linear(4, 2))
    head = model[2]
    assert quantize_linears(model, lambda linear: linear is head) == 2
    assert isinstance(model[0], Int8Linear)
    assert isinstance(model[1][1], Int8Linear)
    assert model[2] is head
    assert model(torch.randn(3, 4)).shape == (3, 2)
