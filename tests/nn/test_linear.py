"""The faster product gives the same numbers, forward and backward."""

import pytest
import torch
import torch.nn.functional as F
from torch import nn

from vislang.nn.linear import Linear, with_fast_linears
from vislang.nn.transformer import DropPath


@pytest.mark.parametrize("shape", [(7,), (70, 7), (4, 33, 7), (2, 3, 7)])
@pytest.mark.parametrize("bias", [True, False])
@pytest.mark.parametrize("expanded", [True, False])
def test_values_and_gradients_are_those_of_torch(shape, bias, expanded):
    torch.manual_seed(0)
    ours = Linear(7, 5, bias)
    x = torch.randn(shape, requires_grad=True)
    found = ours(x)
    wanted = F.linear(x, ours.weight, ours.bias)
    assert torch.allclose(found, wanted, atol=1e-6)
    gradient = torch.ones(()).expand(wanted.shape) if expanded else torch.randn_like(wanted)
    leaves = [x, *ours.parameters()]
    others = torch.autograd.grad(wanted, leaves, gradient)
    for mine, other in zip(torch.autograd.grad(found, leaves, gradient), others, strict=True):
        assert torch.allclose(mine, other, atol=1e-5)


def test_strided_inputs_and_frozen_weights():
    torch.manual_seed(0)
    ours = Linear(7, 5).requires_grad_(False)
    x = torch.randn(7, 80, requires_grad=True)
    (found,) = torch.autograd.grad(ours(x.t()).square().sum(), x)
    (wanted,) = torch.autograd.grad(F.linear(x.t(), ours.weight, ours.bias).square().sum(), x)
    assert torch.allclose(found, wanted, atol=1e-5)


def test_autocast_and_other_formats_are_torchs():
    layer = Linear(8, 8)
    x = torch.randn(100, 8)
    with torch.autocast("cpu", torch.bfloat16):
        assert torch.equal(layer(x), F.linear(x, layer.weight, layer.bias))
        assert layer(x).dtype == torch.bfloat16
    assert torch.equal(layer.double()(x.double()), F.linear(x.double(), layer.weight, layer.bias))
    assert isinstance(layer, nn.Linear)


def test_positions_of_a_sample_are_dropped_together():
    torch.manual_seed(0)
    samples = torch.arange(40).repeat_interleave(3)
    kept = DropPath(0.5).train()(torch.ones(120, 4), samples).view(40, 12)
    assert set(kept.unique().tolist()) == {0.0, 2.0}
    assert bool((kept == kept[:, :1]).all())


def test_a_twin_shares_everything_and_changes_nothing():
    model = nn.Sequential(nn.Linear(600, 500), nn.ReLU(), nn.Sequential(nn.Linear(500, 4, bias=False)))
    types = [type(module) for module in model.modules()]
    twin = with_fast_linears(model)
    assert [type(module) for module in model.modules()] == types
    assert type(twin[0]) is type(twin[2][0]) is Linear
    assert all(ours is theirs for ours, theirs in zip(twin.parameters(), model.parameters(), strict=True))
    x = torch.randn(2, 3, 600, requires_grad=True)
    torch.testing.assert_close(twin(x), model(x), atol=1e-5, rtol=1e-5)
    ours, theirs = (torch.autograd.grad(m(x).square().sum(), (x, *model.parameters())) for m in (twin, model))
    for one, other in zip(ours, theirs, strict=True):
        torch.testing.assert_close(one, other, atol=1e-3, rtol=1e-4)
    with torch.no_grad():
        model[0].weight.zero_()
        assert twin[0](x).std(dim=1).max() < 1e-6
        model.double()
        assert twin(x.double()).dtype == torch.float64


def test_a_frozen_maps_input_is_not_kept():
    frozen = with_fast_linears(nn.Sequential(nn.Linear(600, 500).requires_grad_(False)))
    x = torch.randn(2, 3, 600, requires_grad=True)
    product = frozen(x * 2)
    function = product.grad_fn.next_functions[0][0]
    assert [saved is None for saved in function.saved_tensors] == [True, False]
    product.sum().backward()
    torch.testing.assert_close(x.grad, 2 * frozen[0].weight.sum(dim=0).expand_as(x), atol=1e-4, rtol=1e-4)


def test_while_torch_compiles_the_product_is_torchs(monkeypatch):
    monkeypatch.setattr(torch.compiler, "is_compiling", lambda: True)
    monkeypatch.setattr("vislang.nn.linear._multiply", None)
    layer = Linear(512, 16)
    x = torch.randn(70, 512)
    assert torch.equal(layer(x), F.linear(x, layer.weight, layer.bias))
    layer(x).sum().backward()
