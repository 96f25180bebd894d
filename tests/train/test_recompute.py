"""Gradient checkpointing: the same losses and gradients in float64, and fewer bytes kept for the backward pass."""

import pytest
import torch
from torch.autograd.graph import saved_tensors_hooks

from tests import tiny
from tests.models import test_data2vec as data2vec
from tests.models import test_vilbert as vilbert
from vislang.document import Document, Image
from vislang.models.base import TrainableModel
from vislang.models.dual_encoder.encoders import DualEncoder, DualEncoderConfig
from vislang.models.flamingo.collate import CollateConfig
from vislang.models.flamingo.model import Flamingo
from vislang.models.towers.causal_lm import CausalLM, positions_of
from vislang.models.vilbert.config import TextStreamConfig, VisionStreamConfig


class Kept:
    """Bytes of the distinct tensors that autograd keeps, but for parameters."""

    def __init__(self, module):
        self._parameters = {p.untyped_storage().data_ptr() for p in module.parameters()}
        self._storages: dict[int, torch.UntypedStorage] = {}
        self.hooks = saved_tensors_hooks(self._pack, lambda tensor: tensor)

    def _pack(self, tensor):
        storage = tensor.untyped_storage()
        if storage.data_ptr() not in self._parameters:
            self._storages[storage.data_ptr()] = storage
        return tensor

    @property
    def bytes(self) -> int:
        return sum(storage.nbytes() for storage in self._storages.values())


def results(module, loss):
    """The loss, the gradient of each parameter, and the bytes that the forward pass kept."""
    module.zero_grad()
    kept = Kept(module)
    torch.manual_seed(0)
    with kept.hooks:
        value = loss(module)
    value.backward()
    gradients = {name: p.grad.clone() for name, p in module.named_parameters() if p.grad is not None}
    return value.item(), gradients, kept.bytes


def must_agree(module, loss, most: float, recompute=TrainableModel.recompute_activations):
    """What is recomputed equals what is kept; ``most`` is the share of the bytes that may be left."""
    module = module.double().train()
    value, gradients, before = results(module, loss)
    recompute(module)
    again, same, after = results(module, loss)
    assert again == pytest.approx(value, abs=1e-12)
    assert same.keys() == gradients.keys()
    assert any(gradient.abs().max() > 0 for gradient in gradients.values())
    for name, gradient in gradients.items():
        torch.testing.assert_close(same[name], gradient, atol=1e-12, rtol=1e-9, msg=name)
    assert after < most * before, f"{after} bytes of {before}"


@pytest.mark.parametrize("generation", ["v1", "v2"])
def test_data2vec(generation):
    model = data2vec.model(generation)
    for block in model.student.blocks:
        # Dropout is drawn twice alike.
        block.dropout.p, block.activation_dropout.p = 0.3, 0.3
    batch = data2vec.batch("image", generation)
    batch = batch._replace(values=batch.values.double())
    must_agree(model, lambda module: module(batch)["regression"], 0.8)


@pytest.mark.parametrize("more", [{}, {"dynamic_attention": True}], ids=["plain", "dynamic"])
def test_vilbert(more):
    model = vilbert.model(**more)
    torch.manual_seed(3)
    (ids, segments), (features, boxes) = vilbert.inputs()

    def loss(module):
        text = module.streams.read_text(ids, segments)
        encoded = module.streams(text, module.streams.read_regions(features.double(), boxes.double()))
        return encoded.text.square().sum() + encoded.vision.square().sum() + encoded.pooled_text.sum()

    must_agree(model, loss, 0.6)


def test_dual_encoder():
    text = TextStreamConfig(vocabulary_size=50, width=16, depth=2, heads=2, mlp_width=32)
    vision = VisionStreamConfig(feature_width=10, width=16, depth=2, heads=2, mlp_width=32)
    model = DualEncoder(DualEncoderConfig(text, vision, width=8))
    torch.manual_seed(3)
    (ids, segments), (features, boxes) = vilbert.inputs()

    def loss(module):
        images, texts = module((features.double(), boxes.double(), None), (ids, segments, None))
        return (images @ texts.t()).square().sum()

    must_agree(model, loss, 0.6)


@pytest.mark.parametrize("pack", [0, 64], ids=["prefixes", "packed"])
def test_flamingo_with_recalled_texts(towers, pictures, pack):
    """The language model's upper layers read the keys and values of a prefix from a cache."""
    model = tiny.flamingo(towers, collate=CollateConfig(pack=pack))
    texts = ["what color is it and what", "a cat", "is it a dog?"]
    documents = [Document([t, Image(pictures / f"{n}.png"), " Answer:"], "red blue") for n, t in enumerate(texts)]
    batch = model.with_features(model.collate.documents(documents))
    assert pack or batch.prefix > 0
    batch.features = batch.features.double()
    must_agree(model, lambda module: module(batch)["text"], 0.7, Flamingo.recompute_activations)
    alone = model.generate(documents, 5)
    model.bridge.lm.recompute = False
    assert model.generate(documents, 5) == alone


@pytest.mark.parametrize("family", [*tiny.FAMILIES, *tiny.TUPLES, *tiny.WINDOWED])
def test_every_family_of_language_models(family):
    lm = CausalLM(tiny.language_model(family))
    lm.lm.requires_grad_(True)
    ids = torch.randint(3, tiny.TYPES, (2, 7), generator=torch.Generator().manual_seed(4))
    mask = torch.ones_like(ids)

    def loss(module):
        hidden = module(module.embed(ids), mask, positions_of(mask))
        return module.logits(hidden).square().mean()

    must_agree(lm, loss, 0.8, lambda module: setattr(module, "recompute", True))
