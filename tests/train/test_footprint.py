"""What a step needs, counted on fake tensors, against torch's own counters on the real step; for all models."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pytest
import torch
from torch.profiler import ProfilerActivity, profile
from torch.utils._pytree import tree_leaves
from torch.utils.flop_counter import FlopCounterMode, sdpa_backward_flop_count, sdpa_flop_count

from tests.train import cases
from vislang.nn import linear
from vislang.nn.fake import FakeFloats
from vislang.train.config import TrainConfig
from vislang.train.footprint import StepCounter, footprint, tensors_of
from vislang.train.optimizer import Optimizer
from vislang.train.parallel import Engine
from vislang.train.processes import current

ATTENTION = {
    torch.ops.aten._scaled_dot_product_flash_attention_for_cpu: lambda q, k, v, *_, **__: sdpa_flop_count(q, k, v),
    torch.ops.aten._scaled_dot_product_flash_attention_for_cpu_backward: (
        lambda gradient, q, k, v, *_, **__: sdpa_backward_flop_count(gradient, q, k, v)
    ),
}
"""torch's formulas for operators that its counter has only for GPUs."""


@pytest.fixture(scope="module")
def files(tmp_path_factory):
    folder = tmp_path_factory.mktemp("files")
    cases.write_files(folder)
    return folder


def case_of(name: str, folder) -> tuple:
    """A case's model, the whole batch of each stream of a step, and its settings."""
    torch.manual_seed(0)
    case = cases.CASES[name](folder)
    settings = {key: value for key, value in case.config.items() if key != "minutes"}
    config = TrainConfig(**{**settings, "device": "cpu", "lr_scale": {}})
    if config.gradient_checkpointing:
        case.model.recompute_activations()
    case.model.train()
    batches = [case.model.as_prepared(case.model.collate(stream.examples, 0)) for stream in case.streams]
    return case.model, batches, config


def gradients(engine: Engine, batches) -> None:
    for batch in batches:
        engine.backward(torch.stack(list(engine.losses(batch).values())).sum())


def allocated(run: Callable[[], None]) -> int:
    """The largest number of bytes that torch's allocator has given out while ``run`` runs."""
    with profile(activities=[ProfilerActivity.CPU], profile_memory=True) as profiler:
        run()
    assert profiler.profiler is not None
    events = sorted(profiler.profiler.kineto_results.events(), key=lambda event: event.start_ns())
    return int(np.cumsum([event.nbytes() for event in events if event.name() == "[memory]"]).max())


@pytest.mark.parametrize("name", cases.CASES)
def test_counts_on_fake_tensors_are_those_of_the_real_step(name, files, monkeypatch):
    model, batches, config = case_of(name, files)
    engine = Engine(model, current())
    # torch's counter does not know the operator of oneDNN's products.
    monkeypatch.setattr(linear, "_by_onednn", lambda x, weight: False)
    with FlopCounterMode(display=False, custom_mapping=ATTENTION) as counter:
        gradients(engine, batches)
    monkeypatch.undo()
    updates = Optimizer(model, config)
    updates.step(0.0)
    updates.zero_grad()

    def step() -> None:
        gradients(engine, batches)
        engine.clip(config.clip_norm)
        updates.step(1.0)
        model.after_step()

    there = [*model.parameters(), *model.buffers(), *tree_leaves(updates.state())]
    there += [tensor for batch in batches for tensor in tensors_of(batch)]
    storages = {tensor.untyped_storage().data_ptr(): tensor.untyped_storage().nbytes() for tensor in there}
    peak = sum(storages.values()) + allocated(step)
    moments = sum(tensor.nbytes for tensor in tree_leaves(updates.state()))
    model.zero_grad()
    with FakeFloats() as fakes:
        fakes.empty(model)
        found = footprint(model, [[batch] for batch in batches], config)
    assert sum(found.operations) == pytest.approx(counter.get_total_flops(), rel=0.05)
    assert found.peak.total == pytest.approx(peak, rel=0.15)
    assert found.peak.weights == sum(tensor.nbytes for tensor in {*model.parameters(), *model.buffers()})
    assert found.peak.optimizer == moments


def test_adamw_has_two_moments_of_each_parameter_and_muon_one_of_each_matrix(files):
    state = {}
    for optimizer in ("adamw", "muon"):
        model, batches, _ = case_of("flamingo", files)
        config = TrainConfig(optimizer=optimizer)
        with FakeFloats() as fakes:
            fakes.empty(model)
            state[optimizer] = footprint(model, [[batch] for batch in batches], config).peak.optimizer
    trained = {name: p for name, p in model.named_parameters() if p.requires_grad}
    by_muon = {name: p for name, p in trained.items() if model.is_hidden_matrix(name, p)}
    # And a count of steps for each parameter of AdamW.
    assert state["adamw"] == sum(2 * p.nbytes + 4 for p in trained.values())
    assert state["muon"] == state["adamw"] - sum(p.nbytes + 4 for p in by_muon.values())
    assert by_muon


def test_recomputed_activations_are_not_kept_and_are_computed_again(files):
    found = []
    for recomputes in (False, True):
        model, batches, config = case_of("data2vec_v1", files)
        if recomputes:
            model.recompute_activations()
        with FakeFloats() as fakes:
            fakes.empty(model)
            found.append(footprint(model, [[batch] for batch in batches], config))
    kept, recomputed = found
    assert recomputed.saved < 0.7 * kept.saved
    assert recomputed.peak.total < kept.peak.total
    assert 1.1 * sum(kept.operations) < sum(recomputed.operations) < 1.5 * sum(kept.operations)


def test_micro_batches_share_the_activations_and_add_up_their_gradients(files):
    model, batches, config = case_of("flamingo", files)
    with FakeFloats() as fakes:
        fakes.empty(model)
        once, twice = (footprint(model, [batches[:1] * times], config) for times in (1, 2))
    assert twice.operations == [2 * once.operations[0]]
    assert twice.saved <= 1.01 * once.saved
    # The gradients of the second one are added to those of the first one, which are there from the beginning.
    trained = sum(p.nbytes for p in model.parameters() if p.requires_grad)
    assert once.peak.total < twice.peak.total <= once.peak.total + 1.01 * trained


def test_a_counter_subtracts_freed_memory_and_counts_views_once():
    counter = StepCounter()
    with counter:
        kept = torch.zeros(1000)
        view = kept.view(10, 100)[:5]
        temporary = torch.ones(3000)
        del temporary
    assert counter.held.activations == kept.nbytes
    assert counter.peak.activations == 16_000
    counter.hold([view], "gradients")
    assert (counter.held.activations, counter.held.gradients) == (0, 4000)
    del kept, view
    assert counter.held.total == 0


def test_copies_of_weights_are_no_activations():
    layer = torch.nn.Linear(64, 32, bias=False)
    counter = StepCounter()
    counter.hold(layer.parameters(), "weights")
    with counter, torch.autocast("cpu", torch.bfloat16):
        result = layer(torch.zeros(8, 64))
        assert counter.held.weights == 64 * 32 * 4
        assert counter.held.copies == 64 * 32 * 2
    del result
