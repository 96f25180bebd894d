"""Tuned towers: nothing that was computed of the frozen ones is used, and what was tuned is saved and comes back."""

import json
import sys
from dataclasses import replace

import pytest
import safetensors.torch
import torch
import torch.nn.functional as F

import vislang
from tests import tiny
from tests.models.flamingo.test_collate import image
from tests.train.line import Silent
from tests.train.test_loop import drop_last
from vislang.capabilities import Decoding
from vislang.document import Document
from vislang.errors import UserError
from vislang.models.flamingo.collate import IGNORED
from vislang.models.flamingo.config import FlamingoConfig
from vislang.models.flamingo.model import Flamingo
from vislang.models.flamingo.recipe import FlamingoRecipe
from vislang.models.towers.packaged import EFFICIENTNET_LITE0, PACKAGED
from vislang.models.towers.tuning import LoraConfig, TuneConfig, merge_updates, tune, updates_of
from vislang.models.towers.vision import load_vision_tower
from vislang.recipe import RecipeError, read_recipe
from vislang.train.batches import Stream
from vislang.train.config import TrainConfig
from vislang.train.log import read_metrics
from vislang.train.loop import train

TUNED = [
    TuneConfig("lora", lora=LoraConfig(rank=3)),
    TuneConfig("full"),
    TuneConfig(vision_tower="full"),
    TuneConfig("full", "lora", LoraConfig(rank=2, targets=["q_proj", "fc2"])),
]
NAMES = ["language-lora", "language-full", "vision-full", "both"]


def recipe_of(towers, config: TuneConfig, **more) -> FlamingoRecipe:
    bridge = FlamingoConfig(**tiny.BRIDGE, scales=[1.0, 1.0])
    return FlamingoRecipe(*towers, bridge=bridge, tune=config, **more)


def build(towers, config: TuneConfig, **more) -> Flamingo:
    """A model whose gates are open, and whose low-rank updates are not zero as they are at first."""
    torch.manual_seed(1)
    model = recipe_of(towers, config, **more).build()
    generator = torch.Generator().manual_seed(2)
    with torch.no_grad():
        for block in model.bridge.gated_blocks.values():
            block.attention_gate.fill_(1.0)
            block.feed_forward_gate.fill_(1.0)
        for name, parameter in model.named_parameters():
            if "lora_B" in name:
                parameter.copy_(0.3 * torch.randn(parameter.shape, generator=generator))
    return model.eval()


def documents(pictures) -> list[Document]:
    """Questions that several images share, after some text, and a page that begins with its image."""
    shared = [Document(["what color is it? ", image(pictures, n), " Answer:"], "red blue") for n in range(3)]
    return [*shared, Document([image(pictures, 3), "a dog and"], "a cat")]


def training(model) -> set[str]:
    return {name for name, parameter in model.named_parameters() if parameter.requires_grad}


def plain_loss(model: Flamingo, batch) -> torch.Tensor:
    """The definition: every layer for every token, by the bridge alone."""
    batch = model.with_features(batch)
    labelled = batch.targets != IGNORED
    return F.cross_entropy(model.bridge(batch)[labelled].float(), batch.targets[labelled])


def calls_of(modules) -> list:
    """A list that grows with each call of one of these modules."""
    calls: list = []
    for module in modules:
        module.register_forward_hook(lambda *args: calls.append(args))
    return calls


def stepped(model: Flamingo, batch, rate: float = 0.5) -> None:
    """One step along the gradient."""
    model.zero_grad()
    model(batch)["text"].backward()
    with torch.no_grad():
        for parameter in model.parameters():
            if parameter.grad is not None:
                parameter -= rate * parameter.grad
    model.zero_grad()


@pytest.mark.parametrize("config", TUNED, ids=NAMES)
def test_loss_and_gradients_are_the_definition_s_also_after_a_step(towers, pictures, config):
    model = build(towers, config)
    texts = documents(pictures)
    # A frozen tower's features and texts are on disk and in memory from here on.
    frozen = build(towers, TuneConfig())
    frozen.prepare_documents(texts * 2)
    assert model.prepare_documents(texts * 2) == 0
    for _ in range(2):
        found = {}
        for way in (lambda batch: model(batch)["text"], lambda batch: plain_loss(model, batch)):
            model.zero_grad()
            loss = way(model.collate.documents(texts))
            loss.backward()
            gradients = {name: p.grad.clone() for name, p in model.named_parameters() if p.grad is not None}
            found[way] = loss.item(), gradients
        (loss, gradients), (wanted, by_definition) = found.values()
        assert loss == pytest.approx(wanted, abs=1e-5)
        assert gradients.keys() == by_definition.keys()
        for name, gradient in gradients.items():
            torch.testing.assert_close(gradient, by_definition[name], atol=1e-5, rtol=1e-3, msg=name)
        tower = "bridge.lm." if model.bridge.lm.trains else "vision."
        assert any(name.startswith(tower) and gradient.abs().max() > 0 for name, gradient in gradients.items())
        stepped(model, model.collate.documents(texts))
    assert loss != pytest.approx(frozen(frozen.collate.documents(texts))["text"].item(), abs=1e-2)


@pytest.mark.parametrize("config", TUNED, ids=NAMES)
def test_what_is_tuned_is_saved_and_comes_back(towers, pictures, tmp_path, config):
    model = build(towers, config)
    texts = documents(pictures)
    stepped(model, model.collate.documents(texts))
    model.save(tmp_path)
    saved = safetensors.torch.load_file(tmp_path / "model.safetensors")
    assert saved.keys() == model.trainable_state().keys()
    assert {name.removeprefix("bridge.") for name in training(model)} <= saved.keys()
    settings = json.loads((tmp_path / "config.json").read_text())
    assert settings["tune"]["language_model"] == config.language_model
    opened = vislang.load(tmp_path)
    prompts = [document.without_target() for document in texts]
    scores = [[score.log_likelihood for score in each.score(texts)] for each in (model, opened)]
    torch.testing.assert_close(torch.tensor(scores[1]), torch.tensor(scores[0]), atol=1e-4, rtol=0)
    assert opened.generate(prompts, 6) == model.generate(prompts, 6)
    # Saved again, it is the same model.
    opened.save(tmp_path / "again")
    again = safetensors.torch.load_file(tmp_path / "again" / "model.safetensors")
    assert all(torch.equal(again[name], saved[name]) for name in saved)
    assert again.keys() == saved.keys()


@pytest.mark.parametrize("config", TUNED, ids=NAMES)
def test_a_tuned_model_that_was_opened_recalls_what_is_its_own(towers, pictures, tmp_path, config):
    build(towers, config).save(tmp_path)
    texts = documents(pictures)
    frozen = build(towers, TuneConfig())
    frozen.prepare_documents(texts * 2)
    opened = vislang.load(tmp_path)
    calls = calls_of(updates_of(opened))
    fresh = opened.score(texts)
    assert not calls, "an update was not merged"
    assert not any(name.startswith(("bridge.lm.", "vision.")) for name in training(opened))
    known = 0 if config.vision_tower == "frozen" else 4
    assert opened.prepare_documents(texts * 2) == known
    assert opened.prepare_documents(texts * 2) == 0
    assert opened.runner.frozen_text._kept
    for before, after in zip(fresh, opened.score(texts), strict=True):
        assert after.log_likelihood == pytest.approx(before.log_likelihood, abs=1e-5)


def test_text_is_generated_as_by_the_definition(towers, pictures):
    model = build(towers, TUNED[0])
    (document,) = documents(pictures)[:1]
    prompt = document.without_target()
    ((written,),) = model.complete([prompt], Decoding(5))
    batch = model.with_features(model.collate.documents([prompt]))
    likelihood = 0.0
    for _ in range(5):
        with torch.no_grad():
            best = model.bridge(batch)[:, -1].log_softmax(dim=-1).max(dim=-1)
        likelihood += best.values.item()
        if best.indices.item() == model.tokenizer.eos_token_id:
            break
        ids = torch.cat([batch.input_ids, best.indices[:, None]], dim=1)
        times = F.pad(batch.media_time, (0, 1), value=1)
        batch = replace(
            batch, input_ids=ids, attention_mask=torch.ones_like(ids), media_time=times, targets=torch.zeros_like(ids)
        )
    assert written.log_likelihood == pytest.approx(likelihood, abs=1e-4)


def test_merged_updates_equal_updates_that_are_not(towers, pictures):
    model = build(towers, TuneConfig("lora", "lora", LoraConfig(rank=3)))
    texts = documents(pictures)
    plain = build(towers, TuneConfig())
    apart = [score.log_likelihood for score in model.score(texts)]
    calls = calls_of(updates_of(model))
    model.score(texts[:1])
    assert calls
    for tower in (model.bridge.lm, model.vision):
        merge_updates(tower)
    calls.clear()
    merged = [score.log_likelihood for score in model.score(texts)]
    torch.testing.assert_close(torch.tensor(merged), torch.tensor(apart), atol=1e-4, rtol=0)
    assert not calls
    different = torch.tensor([score.log_likelihood for score in plain.score(texts)]) - torch.tensor(apart)
    assert different.abs().min() > 1e-2


def test_a_run_resumes_bit_for_bit(towers, pictures, tmp_path):
    config = TuneConfig("lora", "full")
    examples = [tiny.caption(image(pictures, n), word) for n, word in enumerate(("red", "blue", "cat", "dog"))]
    settings = TrainConfig(
        steps=6, lr=0.01, warmup_steps=0, checkpoint_every=2, keep_checkpoints=9, lr_scale={"language_model": 0.5}
    )

    def run(folder, resume=False):
        torch.manual_seed(1)
        model = recipe_of(towers, config).build()
        before = {name: parameter.clone() for name, parameter in model.named_parameters()}
        train(model, [Stream("text", examples, 1.0, 3)], settings, folder, Silent(), resume=resume)
        moved = {name for name, p in model.named_parameters() if not torch.equal(p, before[name])}
        losses = [row["loss"] for row in read_metrics(folder / "metrics.jsonl")]
        return model, moved, losses

    whole, moved, losses = run(tmp_path / "whole")
    assert moved == training(whole)
    run(tmp_path / "cut")
    drop_last(tmp_path / "cut")
    resumed, _, again = run(tmp_path / "cut", resume=True)
    assert again == losses
    for name, tensor in whole.trainable_state().items():
        assert torch.equal(resumed.trainable_state()[name], tensor), name


def test_updates_of_a_model_in_8_bits_train_and_come_back(towers, pictures, tmp_path):
    model = build(towers, TuneConfig("lora", "lora"), quantize=True)
    updates = updates_of(model)
    assert updates
    assert {update.weight.dtype for update in updates} == {torch.float32}
    texts = documents(pictures)
    before = updates[0].weight.clone()
    stepped(model, model.collate.documents(texts))
    assert not torch.equal(updates[0].weight, before)
    model.save(tmp_path)
    opened = vislang.load(tmp_path)
    assert opened.quantized
    for ours, theirs in zip(opened.score(texts), model.score(texts), strict=True):
        assert ours.log_likelihood == pytest.approx(theirs.log_likelihood, abs=1e-5)


@pytest.mark.parametrize("how", ["lora", "full"])
def test_in_bfloat16_what_trains_is_kept_in_float32(towers, pictures, tmp_path, how):
    texts = documents(pictures)
    losses = []
    for dtype in ("float32", "bfloat16"):
        model = build(towers, TuneConfig(how), dtype=dtype)
        assert {p.dtype for p in model.parameters() if p.requires_grad} == {torch.float32}
        assert model.dtype == getattr(torch, dtype)
        loss = model(model.collate.documents(texts))["text"]
        loss.backward()
        losses.append(loss.item())
    assert losses[1] != losses[0]
    assert losses[1] == pytest.approx(losses[0], rel=0.02)
    model.save(tmp_path)
    opened = vislang.load(tmp_path)
    assert opened.dtype == torch.bfloat16
    found = [[score.log_likelihood for score in each.score(texts)] for each in (model, opened)]
    assert found[1] == pytest.approx(found[0], rel=0.02)
    assert len(opened.generate([document.without_target() for document in texts], 3)) == 4


def test_activations_of_tuned_towers_can_be_recomputed(towers, pictures):
    model = build(towers, TUNED[3]).double().train()
    batch = model.collate.documents(documents(pictures))
    batch.pixels = batch.pixels.double()
    gradients = []
    for _ in range(2):
        model.zero_grad()
        model(batch)["text"].backward()
        gradients.append({name: p.grad.clone() for name, p in model.named_parameters() if p.grad is not None})
        model.recompute_activations()
    assert gradients[0].keys() == gradients[1].keys()
    for name, gradient in gradients[0].items():
        torch.testing.assert_close(gradients[1][name], gradient, atol=1e-12, rtol=1e-9, msg=name)


def test_dropout_of_updates_acts_in_training_alone(towers, pictures):
    model = build(towers, TuneConfig("lora", "lora", LoraConfig(rank=3, dropout=0.5)))
    batch = model.collate.documents(documents(pictures))
    with torch.no_grad():
        found = [model(batch)["text"].item() for _ in range(2)]
        assert found[0] == found[1]
        model.train()
        assert len({model(batch)["text"].item() for _ in range(3)}) == 3
        dropouts = {n: m for n, m in model.named_modules() if isinstance(m, torch.nn.Dropout)}
        assert all(dropout.training == ("lora" in name) for name, dropout in dropouts.items())
        assert model.eval()(batch)["text"].item() == found[0]


def test_rates_decay_and_muon_of_a_tuned_tower(towers):
    model = build(towers, TuneConfig("full", "full"))
    groups = model.parameter_groups()
    assert set(groups) == {"gates", "language_model", "vision_tower", "other"}
    named = dict(groups["language_model"])
    embedding, head = "bridge.lm.lm.model.embed_tokens.weight", "bridge.lm.lm.lm_head.weight"
    decaying = {name for name, parameter in named.items() if model.decays(name, parameter)}
    assert head in decaying
    assert embedding not in decaying
    matrices = {name for name, parameter in named.items() if model.is_hidden_matrix(name, parameter)}
    assert decaying - matrices == {head}
    adapters = build(towers, TuneConfig("lora")).parameter_groups()["language_model"]
    assert all(".lora_" in name for name, _ in adapters)
    assert len(adapters) == 2 * 7 * 3


@pytest.mark.parametrize("family", ["gpt2", "opt", "gpt_neox", "mpt"])
def test_families_with_layers_of_other_kinds_take_updates(family):
    lm = tiny.language_model(family)
    ids = torch.randint(3, tiny.TYPES, (1, 6), generator=torch.Generator().manual_seed(3))
    with torch.no_grad():
        before = lm(ids).logits
        tune(lm, "lora", LoraConfig(rank=2), family, spared=[lm.get_output_embeddings()])
        torch.testing.assert_close(lm(ids).logits, before)
        for update in updates_of(lm)[1::2]:
            torch.nn.init.normal_(update.weight)
        changed = lm(ids).logits
        assert (changed - before).abs().max() > 1e-2
        merge_updates(lm)
        torch.testing.assert_close(lm(ids).logits, changed, atol=1e-4, rtol=1e-4)


def test_what_cannot_be_is_named(towers, tmp_path, monkeypatch):
    lora = TuneConfig("lora", lora=LoraConfig(targets=["q_proj", "query"]))
    with pytest.raises(UserError, match=r"has no linear layer query to update. It has down_proj, gate_proj, k_proj"):
        build(towers, lora)
    with pytest.raises(ValueError, match="quantize keeps weights in 8 bits, and tune: full trains them"):
        recipe_of(towers, TuneConfig("full"), quantize=True)
    for settings in ({"rank": 0}, {"alpha": 0.0}, {"dropout": 1.0}):
        with pytest.raises(ValueError, match=f"lora.{next(iter(settings))} is "):
            LoraConfig(**settings)
    recipe = tiny.write_recipe(tmp_path / "recipe.yaml", *towers)
    with pytest.raises(RecipeError, match=r"lora\.rank is -1"):
        read_recipe(recipe, ["--model.tune.lora.rank=-1"])
    found, _ = read_recipe(recipe, ["--model.tune.language_model=lora", "--model.tune.lora.rank=2"])
    assert found.model.tune == TuneConfig("lora", lora=LoraConfig(rank=2))
    monkeypatch.setitem(sys.modules, "peft", None)
    with pytest.raises(UserError, match=r"need peft. Run: pip install 'vislang\[tune\]'"):
        build(towers, TuneConfig("lora"))


@pytest.mark.skipif(PACKAGED[EFFICIENTNET_LITE0].find() is None, reason="the packaged tower is not installed")
def test_the_packaged_image_encoder_is_tuned_in_full():
    with pytest.raises(UserError, match=r"has no linear layers to update\. Tune it in full, or leave it frozen"):
        load_vision_tower(EFFICIENTNET_LITE0, 32, tuning="lora")
    tower = load_vision_tower(EFFICIENTNET_LITE0, 32, tuning="full").train()
    pixels = torch.randn(1, 3, 32, 32)
    statistics = {name: buffer.clone() for name, buffer in tower.named_buffers()}
    tower(pixels).square().sum().backward()
    gradients = {name: p.grad.clone() for name, p in tower.named_parameters() if p.grad is not None}
    assert {name for name, p in tower.named_parameters() if p.requires_grad} == gradients.keys()
    assert not any("_fc" in name for name in gradients)
    assert all(torch.equal(buffer, statistics[name]) for name, buffer in tower.named_buffers())
    tower.zero_grad()
    tower.recompute_activations()
    tower(pixels).square().sum().backward()
    for name, parameter in tower.named_parameters():
        if parameter.requires_grad:
            torch.testing.assert_close(parameter.grad, gradients[name], msg=name)
