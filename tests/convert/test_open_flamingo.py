"""OpenFlamingo's checkpoints: the recorded case, other language models, tied heads, and mismatches."""

import json
from pathlib import Path

import pytest
import torch
from transformers import AutoModelForCausalLM

import vislang
from tests import tiny
from tests.models.flamingo.test_prefill import as_the_original, writes_media  # noqa: F401
from vislang.capabilities import Decoding
from vislang.cli import main
from vislang.convert import open_flamingo
from vislang.models.flamingo.config import FlamingoConfig
from vislang.models.flamingo.converted import ConvertedFlamingo
from vislang.models.flamingo.decoding import generate
from vislang.models.flamingo.prefill import Runner
from vislang.models.towers.causal_lm import CausalLMWithRows

PARITY = Path(__file__).parents[1] / "parity"
CASE = PARITY / "openflamingo_opt"


def convert(out, weights=CASE / "weights.pt", config=CASE / "config.json", lm=CASE / "lm", *more) -> int:
    arguments = ["convert", "open-flamingo", str(weights), "--config", str(config), "--language-model", str(lm)]
    return main([*arguments, str(out), *more])


@pytest.mark.parametrize("name", ["openflamingo_opt", "openflamingo_llama"])
def test_a_recorded_case_agrees(name, tmp_path, capsys):
    case = PARITY / name
    assert convert(tmp_path / "out", case / "weights.pt", case / "config.json", case / "lm") == 0
    capsys.readouterr()
    assert main(["convert", "verify", str(tmp_path / "out"), str(case / "reference.pt")]) == 0
    found = json.loads(capsys.readouterr().out)
    assert set(found) == {"resampled", "logits", "loss", "greedy"}
    assert max(found.values()) < 1e-5


def test_a_recording_is_reproduced_with_its_whole_batch(writes_media):  # noqa: F811
    """In the original, when one row generates a media token, all other rows attend to no media."""
    bridge, batch = writes_media
    expected, _ = as_the_original(bridge, batch, 10)
    runner = Runner(bridge)
    assert torch.equal(open_flamingo._greedy(runner, batch, 10), expected)
    each_alone = generate(runner, runner.prefill(batch), Decoding(10), frozenset())
    assert bridge.media_token in expected[0]
    assert [text.tokens for (text,) in each_alone] != expected.tolist()


def changed(tmp_path, key, change=lambda tensor: tensor + 0.05 * torch.randn_like(tensor)):
    state = torch.load(CASE / "weights.pt", weights_only=True)
    state[key] = change(state[key])
    torch.save(state, tmp_path / "weights.pt")
    return tmp_path / "weights.pt"


@pytest.mark.parametrize(
    "key",
    [
        "perceiver.latents",
        "perceiver.layers.5.0.to_kv.weight",
        "perceiver.layers.2.1.3.weight",
        "lang_encoder.model.decoder.layers.3.gated_cross_attn_layer.attn_gate",
        "lang_encoder.model.decoder.layers.1.gated_cross_attn_layer.ff.1.weight",
        "lang_encoder.model.decoder.embed_tokens.weight",
    ],
)
def test_a_weight_that_is_changed_shows(tmp_path, key, capsys):
    if "embed" in key:

        def change(tensor):
            tensor = tensor.clone()
            tensor[3:5] += 0.5  # the end of a chunk, and the media token
            return tensor

        weights = changed(tmp_path, key, change)
    else:
        weights = changed(tmp_path, key)
    assert convert(tmp_path / "out", weights) == 0
    capsys.readouterr()
    assert main(["convert", "verify", str(tmp_path / "out"), str(CASE / "reference.pt")]) == 1


def test_second_names_and_wrappers_of_released_files(tmp_path, capsys):
    state = torch.load(CASE / "weights.pt", weights_only=True)
    wrapped = {f"module.{key}": value for key, value in state.items()}
    wrapped["module.lang_encoder.gated_cross_attn_layers.1.attn_gate"] = torch.zeros(1)
    torch.save({"model_state_dict": wrapped, "epoch": 3}, tmp_path / "weights.pt")
    assert convert(tmp_path / "out", tmp_path / "weights.pt") == 0
    capsys.readouterr()
    assert main(["convert", "verify", str(tmp_path / "out"), str(CASE / "reference.pt")]) == 0


def test_missing_and_unexpected_keys_are_listed(tmp_path, capsys):
    state = torch.load(CASE / "weights.pt", weights_only=True)
    del state["perceiver.norm.bias"]
    state["perceiver.extra"] = torch.zeros(2)
    torch.save(state, tmp_path / "weights.pt")
    assert convert(tmp_path / "out", tmp_path / "weights.pt") == 2
    error = capsys.readouterr().err
    assert "missing perceiver.norm.bias; unexpected perceiver.extra" in error
    assert not (tmp_path / "out").exists()
    assert main(
        ["convert", "open-flamingo", str(tmp_path / "weights.pt"), "--config", str(CASE / "config.json"),
         "--language-model", str(CASE / "lm"), str(tmp_path / "out"), "--lenient"]
    ) == 0  # fmt: skip


def test_a_checkpoint_for_another_language_model_is_an_error(tmp_path, capsys):
    other = AutoModelForCausalLM.from_pretrained(CASE / "lm")
    with torch.no_grad():
        other.get_input_embeddings().weight.add_(0.1)
    other.save_pretrained(tmp_path / "lm")
    # The same width and number of tokens, but more embeddings differ than can be added tokens.
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(open_flamingo, "MAX_CHANGED", 10)
        assert convert(tmp_path / "out", lm=tmp_path / "lm") == 2
    assert "it was trained with another language model" in capsys.readouterr().err
    assert convert(tmp_path / "out", lm=tmp_path / "nothing") == 2
    assert "language model" in capsys.readouterr().err


def test_a_folder_whose_language_model_was_exchanged_is_an_error(tmp_path, capsys):
    import shutil

    shutil.copytree(CASE / "lm", tmp_path / "lm")
    assert convert(tmp_path / "out", lm=tmp_path / "lm") == 0
    tiny.language_model("llama").save_pretrained(tmp_path / "lm")
    assert main(["convert", "verify", str(tmp_path / "out"), str(CASE / "reference.pt")]) == 2
    assert "and the bridge was converted with" in capsys.readouterr().err


@pytest.mark.parametrize("family", ["opt", "gpt2", "gpt_neox", "qwen2"])
def test_rows_that_were_added_or_trained(family):
    """A replaced embedding is used at the input and, in a tied head, for the logit of its token."""
    lm = tiny.language_model(family)
    size, width = lm.get_input_embeddings().weight.shape
    rows = torch.randn(2, width)
    extended = CausalLMWithRows(lm, torch.tensor([5, size]), rows)
    assert extended.vocabulary_size == size + 1
    ids = torch.tensor([[4, 5, size, 6]])
    embedded = extended.embed(ids)[0]
    torch.testing.assert_close(embedded[1:3], rows)
    torch.testing.assert_close(embedded[[0, 3]], lm.get_input_embeddings().weight[[4, 6]])
    mask = torch.ones_like(ids)
    hidden = extended(extended.embed(ids), mask, torch.arange(4)[None])
    logits, plain = extended.logits(hidden), lm.get_output_embeddings()
    if lm.config.tie_word_embeddings:
        assert logits.shape[-1] == size + 1
        if hidden.shape[-1] == width:
            torch.testing.assert_close(logits[..., [5, size]], hidden @ rows.t(), atol=1e-5, rtol=1e-5)
    else:
        assert logits.shape[-1] == size
    kept = [token for token in range(size) if token != 5]
    assert plain.weight.shape[0] == size
    own = super(CausalLMWithRows, extended).logits(hidden)
    torch.testing.assert_close(logits[..., kept], own[..., kept])


@pytest.fixture
def checkpoint(towers, tmp_path):
    """A checkpoint in the original's format with random weights for the tests' towers and two added tokens."""
    language = AutoModelForCausalLM.from_pretrained(towers[0])
    size = language.vocab_size
    torch.manual_seed(5)
    rows = torch.cat([language.get_input_embeddings().weight.detach(), torch.randn(2, language.config.hidden_size)])
    config = FlamingoConfig(
        gated_layers=[1], latents=4, resampler_depth=2, scales=[1.0], gate_all_text=True, media_token=size + 1
    )
    model = ConvertedFlamingo(config, towers[0], 16, torch.arange(size, size + 2), rows[-2:], {"path": "model.layers"})
    with torch.no_grad():
        for block in model.bridge.gated_blocks.values():
            block.attention_gate.fill_(1.0)
            block.feed_forward_gate.fill_(1.0)
    state = {key: slot.of(model.bridge.state_dict()) for key, slot in open_flamingo.keys(model)}
    state["lang_encoder.model.embed_tokens.weight"] = rows
    torch.save(state, tmp_path / "checkpoint.pt")
    (tmp_path / "config.json").write_text(json.dumps({"media_token_id": size + 1, "eoc_token_id": size}))
    return model, tmp_path / "checkpoint.pt", tmp_path / "config.json"


def test_with_its_vision_tower_a_converted_model_is_asked(towers, pictures, checkpoint, tmp_path, capsys):
    built, weights, config = checkpoint
    out = tmp_path / "out"
    assert convert(out, weights, config, towers[0], "--vision-tower", towers[1]) == 0
    opened = vislang.load(out)
    assert opened.prompts.render(tiny.caption(vislang.Image(b"x"), "")).parts[1] == "Output:"
    assert opened.collate.chunk_token == built.bridge.media_token - 1
    shot = ["--shot", str(pictures / "1.png"), "blue"]
    assert main(["ask", str(out), str(pictures / "0.png"), "what color?", *shot]) == 0
    assert capsys.readouterr().out.strip()
    # The bridge and the added embeddings are the checkpoint's.
    image = vislang.Image(pictures / "0.png")
    asked = tiny.question(image, "what color?")
    batch = opened.with_features(opened.collate.documents([opened.prompts.render(asked, [tiny.caption(image, "red")])]))
    assert {built.bridge.media_token, built.bridge.media_token - 1} <= set(batch.input_ids[0].tolist())
    with torch.no_grad():
        torch.testing.assert_close(opened.bridge(batch), built.bridge(batch), atol=1e-5, rtol=0)


def test_another_vision_tower_is_an_error(towers, checkpoint, tmp_path, capsys):
    _, weights, config = checkpoint
    other = tiny.language_model("llama")
    other.save_pretrained(tmp_path / "other")
    assert convert(tmp_path / "out", weights, config, towers[0], "--vision-tower", str(tmp_path / "other")) == 2
    assert "vision tower" in capsys.readouterr().err
