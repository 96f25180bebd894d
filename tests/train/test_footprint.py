"""What a step takes, counted on fake tensors, against torch's own counters on the real step: of every kind of model."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pytest
import soundfile
import torch
from torch.profiler import ProfilerActivity, profile
from torch.utils._pytree import tree_leaves
from torch.utils.flop_counter import FlopCounterMode, sdpa_backward_flop_count, sdpa_flop_count

from tests import tiny
from tests.models.test_dual_encoder import small as dual_encoder
from tests.models.test_pretraining import recipe as data2vec
from tests.models.test_vilbert_pretraining import COLOURS, pair_of, picture
from tests.models.test_vilbert_pretraining import small as vilbert
from vislang.document import Audio, Document
from vislang.example import Example, Label
from vislang.models.data2vec.finetuning import FineTuneRecipe, HeadConfig
from vislang.models.dual_encoder.model import DualEncoderRecipe
from vislang.models.regions.readers import RegionsConfig
from vislang.models.regions.sources import ClusteredRegions
from vislang.models.vilbert.pretraining import ViLBERTPretrainingRecipe
from vislang.models.vilbert.tasks import ViLBERTRecipe
from vislang.nn import linear
from vislang.nn.fake import FakeFloats
from vislang.train.config import TrainConfig
from vislang.train.footprint import StepCounter, footprint, tensors_of
from vislang.train.optimizer import Optimizer

COUNT = 8


@pytest.fixture
def images(tmp_path):
    return [picture(tmp_path / f"{n}.png", COLOURS[n % 4], n) for n in range(COUNT)]


def of_pictures(images, generation: str):
    model = data2vec(generation, "image").build()
    return model, [Example(str(n), Document([image])) for n, image in enumerate(images)]


def of_texts():
    model = data2vec("v2", "text").build()
    texts = [f"The fox number {n} jumps over the lazy dog " * (1 + n % 3) for n in range(COUNT)]
    examples = [Example(str(n), Document([text])) for n, text in enumerate(texts)]
    model.fit(examples)
    return model, examples


def of_sounds(folder):
    rng = np.random.default_rng(0)
    for n in range(COUNT):
        soundfile.write(folder / f"{n}.wav", 0.1 * rng.standard_normal(1600 + 160 * n), 16_000)
    examples = [Example(str(n), Document([Audio(folder / f"{n}.wav")])) for n in range(COUNT)]
    return data2vec("v2", "speech").build(), examples


def fine_tuned(images, folder):
    data2vec("v1", "image").build().save(folder / "pretrained")
    model = FineTuneRecipe(str(folder / "pretrained"), head=HeadConfig(kind="classification")).build()
    examples = [Example(str(n), Document([i]), Label(COLOURS[n % 4])) for n, i in enumerate(images)]
    model.fit(examples)
    return model, examples


def answering(images, towers):
    model = ViLBERTRecipe(vilbert(), RegionsConfig(tower=towers[1], image_size=0)).build()
    examples = [tiny.question(image, "what colour?", COLOURS[n % 4]) for n, image in enumerate(images)]
    model.fit(examples)
    return model, examples


def pairs_of(images):
    return [pair_of(image, f"a {COLOURS[n % 4]} shape", name=str(n)) for n, image in enumerate(images)]


def vilbert_pretraining(images, towers, folder):
    config = RegionsConfig(tower=towers[1], image_size=0)
    clusters = folder / "clusters.safetensors"
    ClusteredRegions.fit(config.open().source, [image.decode() for image in images], clusters=4).save(clusters)
    model = ViLBERTPretrainingRecipe(vilbert(), RegionsConfig(tower=towers[1], image_size=0, clusters=str(clusters))).build()
    model.fit(pairs_of(images))
    return model, pairs_of(images)


def contrasting(images, towers):
    """In chunks, which are computed again in the backward pass."""
    model = DualEncoderRecipe(dual_encoder(), RegionsConfig(tower=towers[1], image_size=0), chunk=4).build()
    model.fit(pairs_of(images))
    return model, pairs_of(images)


def bridge(images, towers):
    examples = [tiny.question(image, "what colour?", COLOURS[n % 4]) for n, image in enumerate(images)]
    return tiny.flamingo(towers), examples


KINDS: dict[str, Callable] = {
    "flamingo": lambda images, towers, folder: bridge(images, towers),
    "data2vec v1, images": lambda images, towers, folder: of_pictures(images, "v1"),
    "data2vec v2, images": lambda images, towers, folder: of_pictures(images, "v2"),
    "data2vec v2, text": lambda images, towers, folder: of_texts(),
    "data2vec v2, speech": lambda images, towers, folder: of_sounds(folder),
    "data2vec, fine-tuned": lambda images, towers, folder: fine_tuned(images, folder),
    "ViLBERT, answers": lambda images, towers, folder: answering(images, towers),
    "ViLBERT, pretraining": vilbert_pretraining,
    "dual encoder": lambda images, towers, folder: contrasting(images, towers),
}
CONFIG = TrainConfig()
ATTENTION = {
    torch.ops.aten._scaled_dot_product_flash_attention_for_cpu: lambda q, k, v, *_, **__: sdpa_flop_count(q, k, v),
    torch.ops.aten._scaled_dot_product_flash_attention_for_cpu_backward: (
        lambda gradient, q, k, v, *_, **__: sdpa_backward_flop_count(gradient, q, k, v)
    ),
}
"""torch's formulas for operators that its counter has them for on GPUs alone."""


def loss_of(model, batch):
    return torch.stack(list(model(batch).values())).sum()


def step(model, batch, optimizer):
    loss_of(model, batch).backward()
    torch.nn.utils.clip_grad_norm_(list(optimizer.named.values()), CONFIG.clip_norm)
    optimizer.step(1.0)
    model.after_step()


def allocated(run: Callable[[], None]) -> int:
    """The most bytes that torch's allocator has given out while something runs."""
    with profile(activities=[ProfilerActivity.CPU], profile_memory=True) as profiler:
        run()
    assert profiler.profiler is not None
    events = sorted(profiler.profiler.kineto_results.events(), key=lambda event: event.start_ns())
    return int(np.cumsum([event.nbytes() for event in events if event.name() == "[memory]"]).max())


@pytest.mark.parametrize("kind", KINDS)
def test_counts_without_contents_are_those_of_the_real_step(kind, images, towers, tmp_path, monkeypatch):
    torch.manual_seed(0)
    model, examples = KINDS[kind](images, towers, tmp_path)
    model.train()
    batch = model.as_prepared(model.collate(examples, 0))
    # oneDNN's products are an operator that torch's counter does not know.
    monkeypatch.setattr(linear, "_by_onednn", lambda x, weight: False)
    with FlopCounterMode(display=False, custom_mapping=ATTENTION) as counter:
        loss_of(model, batch).backward()
    monkeypatch.undo()
    optimizer = Optimizer(model, CONFIG)
    for parameter in optimizer.named.values():
        parameter.grad = torch.zeros_like(parameter)
    optimizer.step(0.0)
    optimizer.zero_grad()
    there = [*model.parameters(), *model.buffers(), *tree_leaves(optimizer.state()), *tensors_of(batch)]
    storages = {tensor.untyped_storage().data_ptr(): tensor.untyped_storage().nbytes() for tensor in there}
    peak = sum(storages.values()) + allocated(lambda: step(model, batch, optimizer))
    del optimizer
    model.zero_grad()
    with FakeFloats() as fakes:
        fakes.empty(model)
        found = footprint(model, [batch], CONFIG)
    assert sum(found.operations) == pytest.approx(counter.get_total_flops(), rel=0.05)
    assert found.peak.total == pytest.approx(peak, rel=0.15)
    assert found.peak.weights == sum(tensor.nbytes for tensor in {*model.parameters(), *model.buffers()})
    # Two moments a parameter, and a count of steps each.
    trained = [parameter for parameter in model.parameters() if parameter.requires_grad]
    assert found.peak.optimizer == sum(2 * parameter.nbytes + 4 for parameter in trained)


def test_streams_of_a_step_add_up_their_gradients(images, towers):
    model, examples = bridge(images, towers)
    batch = model.as_prepared(model.collate(examples, 0))
    with FakeFloats() as fakes:
        fakes.empty(model)
        once, twice = (footprint(model, [batch] * times, CONFIG) for times in (1, 2))
    assert twice.operations == [once.operations[0]] * 2
    trained = sum(p.nbytes for p in model.parameters() if p.requires_grad)
    # The second stream's gradients are added to the first one's, which are there from the beginning.
    assert once.peak.total < twice.peak.total <= once.peak.total + trained


def test_a_counter_forgets_what_is_freed_and_counts_a_view_once():
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


def test_gradients_and_copies_are_told_from_activations():
    layer = torch.nn.Linear(64, 32, bias=False)
    counter = StepCounter()
    counter.hold(layer.parameters(), "weights")
    with counter, torch.autocast("cpu", torch.bfloat16):
        result = layer(torch.zeros(8, 64))
        assert counter.held.weights == 64 * 32 * 4
        assert counter.held.copies == 64 * 32 * 2
    del result
