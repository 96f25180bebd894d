"""ViLBERT's original weights: recorded outputs of the original code, key names of three code bases, invalid files."""

import json
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file

from tests.convert.test_fairseq import names
from tests.convert.theirs import forget_hash
from vislang.cli import main
from vislang.convert import vilbert
from vislang.convert.keys import ConversionError
from vislang.models.loading import load
from vislang.models.vilbert.heads import HeadConfig

PARITY = Path(__file__).parents[1] / "parity"
CASES = ("vilbert_pretraining", "vilbert_tasks", "vilbert_tasks_tokens")


def read(case: str) -> tuple[dict, dict]:
    """Configuration and weights."""
    config = json.loads((PARITY / case / "config.json").read_text())
    return config, torch.load(PARITY / case / "weights.pt", weights_only=True)


def convert(case: str, out: Path, weights: Path | None = None, *more: str) -> int:
    source = str(weights or PARITY / case / "weights.pt")
    return main(["convert", "vilbert", source, "--config", str(PARITY / case / "config.json"), str(out), *more])


@pytest.mark.parametrize("case", CASES)
def test_every_recorded_output_is_reproduced(case, tmp_path, capsys):
    assert convert(case, tmp_path / "out") == 0
    assert "ignored: unused bert.encoder.c_layer.0.biOutput.q_dense1.weight" in capsys.readouterr().out
    assert main(["convert", "verify", str(tmp_path / "out"), str(PARITY / case / "reference.pt")]) == 0
    found = json.loads(capsys.readouterr().out)
    reference = torch.load(PARITY / case / "reference.pt", weights_only=True)
    recorded = reference["outputs"] | {name: reference[name] for name in ("losses", "grad_norms") if name in reference}
    assert set(found) == names(recorded)
    assert max(found.values()) < 1e-5


@pytest.mark.parametrize("case", CASES)
def test_verification_notices_any_changed_weight(case, tmp_path, capsys):
    convert(case, tmp_path / "out")
    forget_hash(tmp_path / "out")
    path = tmp_path / "out" / "model.safetensors"
    whole = load_file(path)
    generator = torch.Generator().manual_seed(0)
    # Alignment is no output of the task model.
    read_by_nothing = ("pretraining.alignment",) if case != "vilbert_pretraining" else ()
    candidates = [name for name in whole if not name.startswith(read_by_nothing)]
    for index in torch.randperm(len(candidates), generator=generator)[:8]:
        name = candidates[index]
        changed = dict(whole)
        changed[name] = whole[name].clone()
        # The first elements: queries in fused layers, and positions that the recorded texts have.
        start = changed[name].view(-1)[: max(1, whole[name].numel() // 4)]
        start += torch.randn(len(start), generator=generator)
        save_file(changed, path, metadata={"format": "pt"})
        reference = str(PARITY / case / "reference.pt")
        assert main(["convert", "verify", str(tmp_path / "out"), reference]) == 1, f"{name} was changed"
    capsys.readouterr()


def _ddp(state):
    return {f"module.{key}": value for key, value in state.items()}


def _mmf(state):
    return {f"model.{key}": value for key, value in state.items()}


def _older_mmf(state):
    return {f"bert.{key}": value for key, value in state.items()}


def _tensorflow(state):
    renamed = {}
    for key, value in state.items():
        if "LayerNorm" in key:
            key = key.replace(".weight", ".gamma").replace(".bias", ".beta")
        renamed[key] = value
    return renamed


def _resumable(state):
    return {"model_state_dict": _ddp(state), "epoch_id": 3}


@pytest.mark.parametrize("dress", [_ddp, _mmf, _tensorflow, _resumable])
def test_wrapped_checkpoints_are_the_same_model(dress):
    config, weights = read("vilbert_tasks_tokens")
    plain = vilbert.canonical(weights)
    dressed = vilbert.canonical(dress(weights))
    assert dressed.keys() == plain.keys()
    model = vilbert.build(config, dressed)
    assert all("q_dense" in line for line in vilbert.load_weights(model, dressed))


def test_older_checkpoints_of_mmf_have_all_of_it_inside_of_a_bert():
    _, weights = read("vilbert_pretraining")
    plain = vilbert.canonical(weights)
    assert {"bert", "cls"} <= {key.split(".")[0] for key in plain}
    inside = {key: value for key, value in plain.items() if key.split(".")[0] in ("bert", "cls")}
    assert vilbert.canonical(_older_mmf(inside)).keys() == inside.keys()


def test_the_older_classifier_is_read_with_its_weights_multiplied_out():
    """vilbert_beta: two linear layers with ReLU between, each stored as length and direction."""
    config, weights = read("vilbert_pretraining")
    torch.manual_seed(0)
    theirs = torch.nn.Sequential(
        torch.nn.utils.parametrizations.weight_norm(torch.nn.Linear(40, 80), dim=None),
        torch.nn.ReLU(),
        torch.nn.Dropout(0.5),
        torch.nn.utils.parametrizations.weight_norm(torch.nn.Linear(80, 7), dim=None),
    ).eval()
    for number in (0, 3):
        parts = theirs[number].parametrizations.weight
        weights[f"vil_prediction.main.{number}.weight_g"] = 1.5 * parts.original0.data
        weights[f"vil_prediction.main.{number}.weight_v"] = parts.original1.data
        weights[f"vil_prediction.main.{number}.bias"] = theirs[number].bias.data
        parts.original0.data *= 1.5
    state = vilbert.canonical(weights)
    model = vilbert.build(config, state)
    vilbert.load_weights(model, state)
    assert model.head_configs == {"answers": HeadConfig("fused", 7, 80, "relu", False, 0.5)}
    fused = torch.randn(3, 40)
    torch.testing.assert_close(model.eval().heads["answers"](fused), theirs(fused))


def test_the_classifier_of_mmf_is_read():
    config, weights = read("vilbert_pretraining")
    head = torch.nn.ModuleDict({"dense": torch.nn.Linear(40, 40), "LayerNorm": torch.nn.LayerNorm(40, 1e-12)})
    weights |= {f"classifier.0.{name}": value for name, value in head.state_dict().items()}
    weights |= {f"classifier.1.{name}": value for name, value in torch.nn.Linear(40, 2).state_dict().items()}
    state = vilbert.canonical(_mmf(weights))
    model = vilbert.build(config, state)
    vilbert.load_weights(model, state)
    fused = torch.randn(3, 40)
    hidden = head["LayerNorm"](torch.nn.functional.gelu(head["dense"](fused)))
    found = model.eval().heads["classes"](fused)
    torch.testing.assert_close(
        found, torch.nn.functional.linear(hidden, state["classifier.1.weight"], state["classifier.1.bias"])
    )


def test_missing_and_unexpected_keys_are_errors_that_list_them(tmp_path, capsys):
    _, weights = read("vilbert_tasks")
    del weights["bert.t_pooler.dense.bias"]
    weights["bert.something.else"] = torch.zeros(2)
    torch.save(weights, tmp_path / "bad.bin")
    assert convert("vilbert_tasks", tmp_path / "out", tmp_path / "bad.bin") == 2
    message = " ".join(capsys.readouterr().err.split())
    assert "missing bert.t_pooler.dense.bias; unexpected bert.something.else" in message
    assert not (tmp_path / "out").exists()
    assert convert("vilbert_tasks", tmp_path / "out", tmp_path / "bad.bin", "--lenient") == 0
    assert load(tmp_path / "out").heads.keys() == load_heads()


def load_heads():
    config, weights = read("vilbert_tasks")
    return vilbert.build(config, vilbert.canonical(weights)).heads.keys()


def test_an_untied_decoder_is_noticed():
    config, weights = read("vilbert_pretraining")
    weights["cls.predictions.decoder.weight"] = weights["cls.predictions.decoder.weight"] + 1
    state = vilbert.canonical(weights)
    with pytest.raises(ConversionError, match="should equal the word embedding"):
        vilbert.load_weights(vilbert.build(config, state), state)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"hidden_act": "swish"}, "hidden_act 'swish'"),
        ({"fusion_method": "text"}, "fusion_method 'text'"),
        ({"t_biattention_id": [1]}, "must have the same number"),
        ({"vocab_size": None}, "vocab_size is missing"),
        ({"model": "xlnet"}, "is not a ViLBERT"),
        ({"hidden_size": "768"}, "hidden_size is '768'; it must be a whole number"),
        ({"num_hidden_layers": 2.5}, r"num_hidden_layers is 2\.5; it must be a whole number"),
        ({"hidden_dropout_prob": True}, "hidden_dropout_prob is True; it must be a number"),
        ({"dynamic_attention": 1}, "dynamic_attention is 1; it must be true or false"),
        ({"fusion_method": 3}, "fusion_method is 3; it must be text"),
        ({"t_biattention_id": 2}, "t_biattention_id is 2; it must be a list"),
        ({"v_biattention_id": ["0", 1]}, "v_biattention_id is .*; it must be a list of whole numbers"),
    ],
)
def test_configurations_that_cannot_be_read_are_named(change, message):
    config, weights = read("vilbert_pretraining")
    with pytest.raises(ConversionError, match=message):
        vilbert.build(config | change, vilbert.canonical(weights))


def test_whole_numbers_may_be_written_as_fractions():
    config, _ = read("vilbert_pretraining")
    width = config["hidden_size"]
    assert vilbert.streams_of(config | {"hidden_size": float(width)}).text.width == width


def test_another_size_of_weights_is_an_error():
    config, weights = read("vilbert_pretraining")
    state = vilbert.canonical(weights)
    with pytest.raises(ConversionError, match="the configuration describes another model"):
        vilbert.load_weights(vilbert.build(config | {"v_feature_size": 21}, state), state)


@pytest.mark.parametrize("other", ["data2vec_text", "openflamingo_opt"])
def test_a_recording_of_another_type_of_model_is_an_error(other, tmp_path, capsys):
    config, weights = read("vilbert_pretraining")
    state = vilbert.canonical(weights)
    model = vilbert.build(config, state)
    vilbert.load_weights(model, state)
    model.save(tmp_path / "out")
    assert main(["convert", "verify", str(tmp_path / "out"), str(PARITY / other / "reference.pt")]) == 2
    assert "recorded from another type of model" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("name", "damage"), [("image_feat", lambda x: x[..., :-1]), ("input_ids", lambda x: x + 10_000)]
)
def test_a_recording_of_another_shape_is_a_one_line_error(name, damage, tmp_path):
    """In a separate process, because shape annotations are checked in this one."""
    config, weights = read("vilbert_pretraining")
    state = vilbert.canonical(weights)
    model = vilbert.build(config, state)
    vilbert.load_weights(model, state)
    model.save(tmp_path / "out")
    recorded = torch.load(PARITY / "vilbert_pretraining" / "reference.pt", weights_only=True)
    recorded["inputs"][name] = damage(recorded["inputs"][name])
    torch.save(recorded, tmp_path / "reference.pt")
    command = [sys.executable, "-m", "vislang.cli", "convert", "verify", "out", "reference.pt"]
    done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True)
    assert done.returncode == 2
    assert done.stderr.startswith("vislang: reference.pt: out cannot read the recorded inputs (")
    assert "Traceback" not in done.stderr


@pytest.mark.parametrize(
    ("out", "message"),
    [
        ("taken", "taken is a file. Give the path of a folder"),
        ("taken/below/it", "taken is a file. Give the path of a folder"),
    ],
)
def test_a_folder_that_cannot_be_written_is_an_error_at_the_start(out, message, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "taken").write_text("mine")
    assert main(["convert", "vilbert", "none.bin", "--config", "none.json", out]) == 2
    assert message in capsys.readouterr().err
    assert (tmp_path / "taken").read_text() == "mine"
