"""The bridge on every family of language models."""

import hashlib

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from transformers import AutoModelForCausalLM

from tests import tiny
from vislang.capabilities import Decoding
from vislang.errors import UserError
from vislang.models.flamingo.collate import IGNORED, Batch
from vislang.models.flamingo.config import FlamingoConfig
from vislang.models.flamingo.decoding import generate
from vislang.models.flamingo.media import media_mask
from vislang.models.flamingo.prefill import Runner
from vislang.models.towers.causal_lm import CausalLM, positions_of


@pytest.fixture(params=sorted(tiny.FAMILIES))
def lm(request):
    return tiny.language_model(request.param)


def own_logits(lm, bridge, batch):
    return lm(
        inputs_embeds=bridge.embed(batch.input_ids),
        attention_mask=batch.attention_mask,
        position_ids=positions_of(batch.attention_mask),
    ).logits


def write(bridge, batch, count, *ends):
    runner = bridge if isinstance(bridge, Runner) else Runner(bridge)
    return [text.tokens for (text,) in generate(runner, runner.prefill(batch), Decoding(count), frozenset(ends))]


@torch.no_grad()
def test_with_shut_gates_logits_are_the_language_models_own_bit_for_bit(lm):
    bridge = tiny.bridge(lm)
    batch = tiny.batch(bridge.media_token)
    assert torch.equal(bridge(batch), own_logits(lm, bridge, batch))


@torch.no_grad()
def test_with_open_gates_media_change_the_text_after_them_and_nothing_before(lm):
    bridge = tiny.bridge(lm, opened=True)
    batch = tiny.batch(bridge.media_token)
    bridged, own = bridge(batch), own_logits(lm, bridge, batch)
    before = batch.attention_mask.bool() & (batch.media_time == 0)
    assert torch.equal(bridged[before], own[before])
    assert (bridged[:2, batch.prefix :] - own[:2, batch.prefix :]).abs().amax(-1).min() > 0
    batch.features = batch.features.flip(0)
    assert not torch.equal(bridge(batch)[:2], bridged[:2])
    assert torch.equal(bridge(batch)[2], bridged[2]), "a row whose medium was taken away looked at another's"


def test_the_language_model_is_never_changed(lm):
    def state():
        digest = hashlib.sha256()
        for name, value in lm.state_dict().items():
            digest.update(name.encode() + value.numpy().tobytes())
        hooks = [(len(m._forward_hooks), len(m._forward_pre_hooks)) for m in lm.modules()]
        return digest.hexdigest(), [id(m) for m in lm.modules()], [type(m) for m in lm.modules()], hooks

    before = state()
    bridge = tiny.bridge(lm, opened=True)
    batch = tiny.batch(bridge.media_token)
    bridge(batch)
    Runner(bridge).losses(batch)["text"].backward()
    write(bridge, batch, 3)
    bridge.attention_maps(batch)
    assert state() == before
    assert all(p.grad is None for p in lm.parameters())
    assert all(p.grad is not None for name, p in bridge.named_parameters() if p.requires_grad)


@torch.no_grad()
@pytest.mark.parametrize("prefix", [0, 5])
def test_what_is_recalled_equals_what_is_run_through(lm, prefix):
    bridge = tiny.bridge(lm, opened=True)
    batch = tiny.batch(bridge.media_token, prefix)
    labelled = batch.targets != IGNORED
    through = bridge(batch).log_softmax(-1)[labelled].gather(1, batch.targets[labelled][:, None])[:, 0]
    runner = Runner(bridge)
    fresh, rows = runner.token_log_likelihoods(batch)
    torch.testing.assert_close(fresh, through, atol=1e-5, rtol=0)
    assert rows.tolist() == labelled.nonzero()[:, 0].tolist()
    runner.keep_texts(batch, to_continue=False)
    recalled, _ = runner.token_log_likelihoods(batch)
    torch.testing.assert_close(recalled, through, atol=1e-5, rtol=0)


@torch.no_grad()
@pytest.mark.parametrize("prefix", [0, 5])
def test_a_text_that_begins_with_a_kept_prompt_is_computed_from_there_on(lm, prefix, monkeypatch):
    bridge = tiny.bridge(lm, opened=True)
    batch = tiny.batch(bridge.media_token, prefix)
    labelled = batch.targets != IGNORED
    through = bridge(batch).log_softmax(-1)[labelled].gather(1, batch.targets[labelled][:, None])[:, 0]
    runner = Runner(bridge)
    # Prompts of the first and the last text; the one between them has none.
    prompts, mask = batch.input_ids[::2, :-2], batch.attention_mask[::2, :-2]
    runner.frozen_text.keep(bridge.embed(prompts), prompts, mask, prefix, to_continue=True)
    computed = []
    run = CausalLM.forward

    def counted(self, embeddings, *rest, **named):
        computed.append(tuple(embeddings.shape[:2]))
        return run(self, embeddings, *rest, **named)

    with monkeypatch.context() as patched:
        patched.setattr(CausalLM, "forward", counted)
        runner.keep_texts(batch, to_continue=False)
    assert computed[:2] == [(2, 2), (1, prefix + 4)]
    monkeypatch.setattr(runner.frozen_text, "_states_of", None)
    recalled, _ = runner.token_log_likelihoods(batch)
    torch.testing.assert_close(recalled, through, atol=1e-5, rtol=0)


@pytest.mark.parametrize("settings", [{"gate_every": 0}, {"latents": 0}, {"heads": 0}, {"frames": -1}])
def test_invalid_shapes_are_errors(settings):
    ((name, value),) = settings.items()
    with pytest.raises(ValueError, match=f"bridge.{name} is {value}"):
        FlamingoConfig(**settings)


def test_a_scale_is_wanted_for_each_gate():
    with pytest.raises(UserError, match="scales has 1 values for 2 gated layers"):
        tiny.bridge(tiny.language_model("llama"), scales=[1.0])


def test_gradients_of_the_shortcut_are_those_of_the_definition(lm):
    bridge = tiny.bridge(lm, opened=True)
    batch = tiny.batch(bridge.media_token)
    trained = [p for p in bridge.parameters() if p.requires_grad]
    short = torch.autograd.grad(Runner(bridge).losses(batch)["text"], trained)
    labelled = batch.targets != IGNORED
    whole_loss = torch.nn.functional.cross_entropy(bridge(batch)[labelled], batch.targets[labelled])
    for ours, theirs in zip(short, torch.autograd.grad(whole_loss, trained), strict=True):
        torch.testing.assert_close(ours, theirs, atol=1e-5, rtol=1e-4)


@torch.no_grad()
@pytest.mark.parametrize("kept", [False, True])
def test_generating_a_batch_equals_each_text_run_through_alone(lm, kept):
    bridge = tiny.bridge(lm, opened=True)
    runner = Runner(bridge)
    batch = tiny.batch(bridge.media_token)
    if kept:
        runner.keep_texts(batch, to_continue=True)
    written = write(runner, batch, 5)
    for row, real in enumerate(batch.attention_mask.bool()):
        ids, time = batch.input_ids[row, real][None], batch.media_time[row, real][None]
        alone = []
        for _ in range(5):
            ignored = torch.full_like(ids, IGNORED)
            one = Batch(
                ids, torch.ones_like(ids), time, ignored, batch.media_index[row : row + 1], 0, features=batch.features
            )
            alone.append(int(bridge(one)[0, -1].argmax()))
            ids = torch.cat([ids, torch.tensor([[alone[-1]]])], dim=1)
            time = torch.cat([time, time[:, -1:]], dim=1)
        assert written[row] == alone


@torch.no_grad()
@pytest.mark.parametrize("family", sorted(tiny.TUPLES))
def test_layers_that_give_tuples_are_skipped_as_well(family):
    """The layers of some families return a tuple whose first item is the hidden states."""
    bridge = tiny.bridge(AutoModelForCausalLM.from_config(tiny.TUPLES[family]).eval(), opened=True)
    batch = tiny.batch(bridge.media_token)
    labelled = batch.targets != IGNORED
    through = bridge(batch).log_softmax(-1)[labelled].gather(1, batch.targets[labelled][:, None])[:, 0]
    torch.testing.assert_close(Runner(bridge).token_log_likelihoods(batch)[0], through, atol=1e-5, rtol=0)
    assert [len(row) for row in write(bridge, batch, 3)] == [3, 3, 3]


@torch.no_grad()
def test_generation_stops_at_the_end_token():
    bridge = tiny.bridge(tiny.language_model("llama"), opened=True)
    batch = tiny.batch(bridge.media_token)
    free = write(bridge, batch, 5)
    stopped = write(bridge, batch, 5, free[0][2])
    for without, row in zip(free, stopped, strict=True):
        end = without.index(free[0][2]) if free[0][2] in without else 5
        assert row == without[:end]


@torch.no_grad()
def test_attention_maps_are_shares_and_blind_where_nothing_is():
    bridge = tiny.bridge(tiny.language_model("llama"), opened=True)
    maps = bridge.attention_maps(tiny.batch(bridge.media_token))
    torch.testing.assert_close(maps[:2, 5:].sum((-1, -2)), torch.ones(2, 4))
    assert maps[:, :5].abs().max() == 0
    assert maps[2].abs().max() == 0


def test_a_trained_media_token_gets_a_gradient():
    bridge = tiny.bridge(tiny.language_model("gpt2"), opened=True, train_added_tokens=True)
    Runner(bridge).losses(tiny.batch(bridge.media_token))["text"].backward()
    assert bridge.media_embedding.grad.abs().max() > 0


@torch.no_grad()
def test_gates_on_all_text_reach_text_before_the_first_medium():
    lm = tiny.language_model("llama")
    bridge = tiny.bridge(lm, opened=True, gate_all_text=True)
    batch = tiny.batch(bridge.media_token)
    assert not torch.equal(bridge(batch)[0, :5], own_logits(lm, bridge, batch)[0, :5])


@pytest.mark.parametrize("layers", [[], [4], [-1], [1, 1]])
def test_gated_layers_that_do_not_exist_are_errors(layers):
    with pytest.raises(UserError, match="gated_layers"):
        tiny.bridge(tiny.language_model("llama"), gated_layers=layers)


def test_default_gated_layers_are_evenly_spaced():
    assert tiny.bridge(tiny.language_model("llama"), gated_layers=None, gate_every=2).gated_layers == [1, 3]


def test_a_memory_budget_is_kept():
    runner = Runner(tiny.bridge(tiny.language_model("llama")))
    runner.frozen_text._budget = 1
    batch = tiny.batch(runner.bridge.media_token)
    runner.keep_texts(batch, to_continue=True)
    assert runner.frozen_text._kept == {}
    assert len(write(runner, batch, 2)) == 3


def test_prompts_leave_half_of_the_memory_budget_to_other_texts():
    runner = Runner(tiny.bridge(tiny.language_model("llama")))
    batch = tiny.batch(runner.bridge.media_token)
    runner.keep_texts(batch, to_continue=True)
    prompts = runner.frozen_text._held
    runner = Runner(runner.bridge)
    runner.frozen_text._budget = prompts
    runner.keep_texts(batch, to_continue=True)
    assert len(runner.frozen_text._kept) == 1
    runner.keep_texts(batch, to_continue=False)
    assert len(runner.frozen_text._kept) == 3


def naive_latest(media_time: list[int], media_count: int, latents: int) -> list[list[bool]]:
    """The mask from its definition: a token attends to medium m, counted from 1, after exactly m media."""
    return [[time == medium for medium in range(1, media_count + 1) for _ in range(latents)] for time in media_time]


@given(st.lists(st.integers(0, 4), min_size=1, max_size=8), st.integers(1, 4), st.integers(1, 3))
def test_each_token_sees_its_latest_medium_only(media_time, media_count, latents):
    mask = media_mask(torch.tensor([media_time]), media_count, latents)
    assert mask[0].tolist() == naive_latest(media_time, media_count, latents)


def test_all_media_of_the_own_text_up_to_the_latest():
    mask = media_mask(torch.tensor([[0, 1, 2, 3, 3]]), 3, 1, True, torch.tensor([[0, 0, 0, 1, 2]]))
    assert mask[0].int().tolist() == [[0, 0, 0], [1, 0, 0], [1, 1, 0], [0, 1, 1], [0, 0, 1]]


@torch.no_grad()
@pytest.mark.parametrize("kind", ["transformer", "mlp"])
def test_a_plain_resampler_keeps_every_position_and_only_a_transformer_mixes_them(kind):
    resampler = tiny.bridge(tiny.language_model("llama"), resampler=kind).resampler
    features = torch.randn(2, 1, 9, 20)
    before = resampler(features)
    assert before.shape == (2, 9, 16)
    features[:, :, -1] += 1.0
    after = resampler(features)
    assert not torch.equal(before[:, -1], after[:, -1])
    assert torch.equal(before[:, :-1], after[:, :-1]) == (kind == "mlp")
    with pytest.raises(UserError, match="reads only images"):
        resampler(features.expand(2, 3, 9, 20))
    with pytest.raises(UserError, match=f"resampler is {kind}, which reads only images"):
        FlamingoConfig(resampler=kind, frames=4)


@torch.no_grad()
@pytest.mark.parametrize("kind", ["transformer", "mlp"])
def test_a_bridge_with_a_plain_resampler_shows_what_it_attends_to(kind):
    bridge = tiny.bridge(tiny.language_model("llama"), opened=True, resampler=kind)
    maps = bridge.attention_maps(tiny.batch(bridge.media_token))
    # Each latent is a position, so the shares of all positions add up to 1, as with latents.
    torch.testing.assert_close(maps[0, -1].sum(), torch.tensor(1.0), atol=1e-4, rtol=1e-4)


@torch.no_grad()
def test_gates_start_as_far_open_as_they_should():
    bridge = tiny.bridge(tiny.language_model("llama"), initial_gate=0.9)
    assert all(gate.item() == pytest.approx(0.9) for gate in bridge.gates().values())
    with pytest.raises(UserError, match=r"initial_gate is 1.0; it must be at least 0 and below 1"):
        FlamingoConfig(initial_gate=1.0)
