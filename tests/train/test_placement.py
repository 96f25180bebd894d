"""The memory and the traffic of each parallel setting, by hand."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch

from tests import tiny
from vislang.train.config import TrainConfig
from vislang.train.footprint import Footprint, Memory
from vislang.train.placement import GATHERED_BLOCKS, GIB, REDUCED_BLOCKS, placements, sizes_of

CONFIG = TrainConfig(parallel="fsdp2")
LARGE = replace(CONFIG, shard_above=0)


@pytest.fixture
def model(towers):
    return tiny.flamingo(towers)


def step_of(model) -> Footprint:
    """A step by hand: everything float32, two moments, some activations."""
    trained = sum(p.nbytes for p in model.parameters() if p.requires_grad)
    weights = sum(tensor.nbytes for tensor in [*model.parameters(), *model.buffers()])
    peak = Memory(weights, 0, trained, 2 * trained, 1000)
    return Footprint([1e6], peak, 1200, 900, 0)


def of(model, config=CONFIG, devices=4, memory=GIB, passes=1) -> dict:
    step = step_of(model)
    whole = replace(step, peak=replace(step.peak, activations=4000))
    return {p.parallel: p for p in placements(model, config, step, lambda: whole, devices, memory, passes)}


def test_a_replica_has_everything_and_all_gradients(model):
    found, step = of(model)["ddp"], step_of(model)
    assert found.memory == replace(step.peak, activations=1200)
    # Twice around a ring of four devices.
    assert found.traffic == 2 * step.peak.gradients * 3 // 4
    assert of(model)["none"].memory.activations == 4000


def test_shards_of_what_trains_beside_whole_small_towers(model):
    found, sizes, step = of(model)["fsdp2"], sizes_of(model, CONFIG), step_of(model)
    trained = {name: p for name, p in model.named_parameters() if p.requires_grad}
    scalars = [p for p in trained.values() if p.ndim == 0]
    frozen = sum(p.nbytes for p in model.parameters() if not p.requires_grad)
    assert sizes.sharded == sum(p.nbytes for p in trained.values() if p.ndim) + _media_embedding(model)
    assert sizes.kept >= frozen - _media_embedding(model) + 4 * len(scalars)
    gated = next(iter(model.bridge.gated_blocks.values()))
    apart = sum(p.nbytes for p in gated.attention.to_keys_values.parameters())
    assert sizes.block == sum(p.nbytes for p in gated.parameters() if p.ndim) - apart
    assert found.memory.optimizer == step.peak.optimizer // 4
    assert found.memory.copies == sizes.root + GATHERED_BLOCKS * sizes.block
    assert found.memory.gradients == -(-sizes.trained // 4) + REDUCED_BLOCKS * sizes.gradient
    # A small model stays whole on the device beside its shards.
    assert found.host == 0
    assert sizes.rest > 0


def _media_embedding(model) -> int:
    """It is frozen, but of no tower."""
    return model.bridge.media_embedding.nbytes


def test_a_large_tower_is_sharded_and_whole_on_the_host(model):
    found, small = of(model, LARGE)["fsdp2"], of(model)["fsdp2"]
    step = step_of(model)
    assert found.host == step.peak.weights
    assert sizes_of(model, LARGE).rest == 0
    layers = sum(p.nbytes for p in model.bridge.lm.layers.parameters())
    assert sizes_of(model, LARGE).sharded == sizes_of(model, CONFIG).sharded + layers
    assert found.memory.weights < small.memory.weights


def test_gradients_stay_whole_between_passes_unless_they_are_large(model):
    trained = step_of(model).peak.gradients
    assert of(model, passes=3)["fsdp2"].memory.gradients == trained
    assert of(model, LARGE, passes=3)["fsdp2"].memory == of(model, LARGE)["fsdp2"].memory
    # Parameters are gathered twice in each pass; gradients are reduced in each pass, or once.
    sizes = sizes_of(model, CONFIG)
    assert of(model, passes=3)["fsdp2"].traffic == round((6 * sizes.gathered + trained) * 3 / 4)
    large = sizes_of(model, LARGE)
    assert of(model, LARGE, passes=3)["fsdp2"].traffic == round((6 * large.gathered + 3 * trained) * 3 / 4)


def test_the_reasons_why_nothing_fits(model):
    found = of(model, memory=step_of(model).peak.total / 2)
    assert found["none"].why.startswith("weights and optimizer alone need ")
    assert found["none"].memory is None
    assert " of it weights); " in found["ddp"].why
    assert not any(placement.fits for placement in found.values())
    alone = of(model, devices=1)
    assert alone["none"].fits
    assert alone["ddp"].why == alone["fsdp2"].why == "needs several devices"
    crowded = of(model, memory=1.05 * step_of(model).peak.total)
    assert not crowded["none"].fits


def test_blocks_are_gathered_in_the_type_of_the_computation(model, monkeypatch):
    exact = sizes_of(model, LARGE)
    monkeypatch.setattr(type(model), "dtype", torch.bfloat16)
    half = sizes_of(model, LARGE)
    assert half.gathered == exact.gathered // 2
    assert half.sharded == exact.sharded
