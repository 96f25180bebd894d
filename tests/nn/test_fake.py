"""Fake tensors: what depends on integers goes on as usual, and what floats hold is never computed."""

import math

import pytest
import torch
from torch import nn
from torch._subclasses.fake_tensor import DataDependentOutputException, FakeTensor

from vislang.nn.fake import FakeFloats


def test_decisions_go_by_integers_that_are_real():
    layer = nn.Linear(8, 6)
    labels = torch.tensor([[1, -100, 2], [-100, -100, 3]])
    with FakeFloats() as fakes:
        fakes.empty(layer)
        hidden = layer(torch.zeros(2, 3, 8))
        chosen = hidden[labels != -100]
        loss = nn.functional.cross_entropy(chosen, labels[labels != -100])
        loss.backward()
        written = torch.zeros_like(hidden)
        written[labels == 2] = 1.0
        assert int((labels != -100).sum()) == 3
        assert math.isnan(loss.item())
    assert isinstance(loss, FakeTensor)
    assert chosen.shape == (3, 6)
    assert layer.weight.grad.shape == (6, 8)


def test_what_is_shared_stays_shared_and_frozen_stays_frozen():
    model = nn.ModuleDict({"embedding": nn.Embedding(10, 4), "head": nn.Linear(4, 10, bias=False)})
    model.head.weight = model.embedding.weight
    model.register_buffer("mean", torch.zeros(3))
    model.register_buffer("ids", torch.tensor([3, 1]))
    model.head.requires_grad_(False)
    with FakeFloats() as fakes:
        fakes.empty(model)
    assert model.head.weight is model.embedding.weight
    assert isinstance(model.head.weight, nn.Parameter)
    assert isinstance(model.mean, FakeTensor)
    assert not model.head.weight.requires_grad
    assert model.ids.tolist() == [3, 1]


def test_a_model_larger_than_any_memory_is_built_in_none():
    with FakeFloats() as fakes:
        with fakes.building():
            layer = nn.Linear(2**22, 2**22)
            indices = torch.arange(4)
            ones = torch.full((3,), 1)
        assert torch.zeros(2).tolist() == [0, 0]
        assert layer(torch.zeros(1, 2**22)).shape == (1, 2**22)
    assert layer.weight.nbytes == 2**46
    assert (indices.tolist(), ones.tolist()) == ([0, 1, 2, 3], [1, 1, 1])


def test_outside_of_the_mode_real_tensors_are_as_ever():
    with FakeFloats():
        product = torch.ones(2, 2) @ torch.ones(2, 2)
    assert product.tolist() == [[2, 2], [2, 2]]
    with FakeFloats() as fakes, fakes.building():
        made = torch.zeros(2)
    with pytest.raises(DataDependentOutputException):
        made.tolist()
