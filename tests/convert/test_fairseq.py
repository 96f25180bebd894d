"""fairseq's checkpoints: recorded outputs of its code, and invalid files."""

import json
import pickle
from pathlib import Path

import pytest
import torch

from tests.convert.theirs import forget_hash
from vislang.cli import main
from vislang.convert import fairseq, fairseq_config
from vislang.convert.checkpoint import CheckpointUnreadable, read_checkpoint
from vislang.convert.keys import ConversionError
from vislang.models.data2vec.blocks import run_blocks
from vislang.models.loading import load

PARITY = Path(__file__).parents[1] / "parity"
CASES = sorted(folder.name for folder in PARITY.glob("data2vec*"))


def convert(case: str, out: Path, weights: Path | None = None, *more: str) -> int:
    folder = PARITY / case
    source = [str(weights or folder / "weights.pt"), "--config", str(folder / "config.json")]
    return main(["convert", "fairseq", *source, str(out), *more])


def names(recorded, prefix="") -> set[str]:
    found = set()
    for name, value in recorded.items():
        found |= names(value, f"{prefix}{name}/") if isinstance(value, dict) else {prefix + name}
    return found


def test_all_six_cases_are_here():
    assert len(CASES) == 6


@pytest.mark.parametrize("case", CASES)
def test_every_recorded_output_is_reproduced(case, tmp_path, capsys):
    assert convert(case, tmp_path / "out") == 0
    capsys.readouterr()
    assert main(["convert", "verify", str(tmp_path / "out"), str(PARITY / case / "reference.pt")]) == 0
    found = json.loads(capsys.readouterr().out)
    recorded = torch.load(PARITY / case / "reference.pt", weights_only=True)["outputs"]
    assert set(found) == names(recorded)
    assert max(found.values()) < 1e-5


@pytest.mark.parametrize("case", CASES)
def test_verification_notices_any_changed_weight(case, tmp_path, capsys):
    """Change one element of each tensor of student and teacher; tensors that nothing depends on are listed."""
    convert(case, tmp_path / "out")
    reference = str(PARITY / case / "reference.pt")
    forget_hash(tmp_path / "out")
    path = tmp_path / "out" / "model.safetensors"
    from safetensors.torch import load_file, save_file

    whole = load_file(path)
    generator = torch.Generator().manual_seed(0)
    chosen = [list(whole)[i] for i in torch.randperm(len(whole), generator=generator)[:6]]
    for name in chosen:
        changed = dict(whole)
        changed[name] = whole[name].clone()
        changed[name].view(-1)[whole[name].numel() // 2 :] += 0.05
        save_file(changed, path, metadata={"format": "pt"})
        assert main(["convert", "verify", str(tmp_path / "out"), reference]) == 1, f"{name} was changed"
    capsys.readouterr()


def test_a_checkpoint_wrapped_in_foreign_objects_opens(tmp_path, monkeypatch):
    """Released files keep their training configuration as pickled objects of classes that are not installed."""
    import sys
    import types

    module = types.ModuleType("omegaconf_of_old")
    module.Config = type("Config", (), {"__module__": "omegaconf_of_old"})
    monkeypatch.setitem(sys.modules, "omegaconf_of_old", module)
    config = module.Config()
    config.lr = 3
    weights = torch.load(PARITY / "data2vec_text" / "weights.pt", weights_only=True)
    torch.save({"cfg": config, "args": None, "model": weights}, tmp_path / "released.pt")
    monkeypatch.delitem(sys.modules, "omegaconf_of_old")
    assert convert("data2vec_text", tmp_path / "out", tmp_path / "released.pt") == 0
    model = load(tmp_path / "out")
    key = "encoder.sentence_encoder.layers.0.fc1.weight"
    assert torch.equal(model.student.blocks[0].widen.weight, weights[key])


class Hostile:
    def __init__(self, marker: Path):
        self.marker = marker

    def __reduce__(self):
        return (Path.touch, (self.marker,))


def test_a_hostile_checkpoint_runs_nothing(tmp_path):
    torch.save({"model": {"x": torch.zeros(1)}, "cfg": Hostile(tmp_path / "marker")}, tmp_path / "bad.pt")
    assert list(read_checkpoint(tmp_path / "bad.pt")) == ["model", "cfg"]
    assert not (tmp_path / "marker").exists()
    # A plain unpickler does create the marker.
    torch.load(tmp_path / "bad.pt", weights_only=False)
    assert (tmp_path / "marker").exists()


def test_files_of_the_time_before_zip_open_too(tmp_path):
    weights = torch.load(PARITY / "data2vec_text" / "weights.pt", weights_only=True)
    torch.save({"model": weights}, tmp_path / "old.pt", _use_new_zipfile_serialization=False)
    read = read_checkpoint(tmp_path / "old.pt")["model"]
    assert set(read) == set(weights)
    assert all(torch.equal(read[key], weights[key]) for key in weights if isinstance(weights[key], torch.Tensor))


@pytest.mark.parametrize("content", [b"", b"no checkpoint", pickle.dumps([1, 2])])
def test_a_file_that_is_not_a_checkpoint_is_an_error(tmp_path, content):
    (tmp_path / "x.pt").write_bytes(content)
    with pytest.raises(CheckpointUnreadable, match=r"x\.pt"):
        read_checkpoint(tmp_path / "x.pt")


def test_keys_that_are_missing_or_unexpected_are_listed(tmp_path, capsys):
    weights = torch.load(PARITY / "data2vec_text" / "weights.pt", weights_only=True)
    gone = "encoder.sentence_encoder.layers.1.fc1.weight"
    del weights[gone]
    weights["something.else"] = torch.zeros(2)
    torch.save(weights, tmp_path / "other.pt")
    assert convert("data2vec_text", tmp_path / "out", tmp_path / "other.pt") == 2
    message = capsys.readouterr().err
    assert f"missing {gone}" in message
    assert "unexpected something.else" in message
    assert not (tmp_path / "out").exists()
    assert convert("data2vec_text", tmp_path / "out", tmp_path / "other.pt", "--lenient") == 0
    assert (tmp_path / "out" / "config.json").exists()


def test_weights_of_another_size_are_errors(tmp_path, capsys):
    weights = torch.load(PARITY / "data2vec_text" / "weights.pt", weights_only=True)
    weights["encoder.sentence_encoder.layers.1.fc1.weight"] = torch.zeros(3, 32)
    torch.save(weights, tmp_path / "other.pt")
    assert convert("data2vec_text", tmp_path / "out", tmp_path / "other.pt") == 2
    assert "layers.1.fc1.weight is (3, 32), not (64, 32)" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"model": "roberta"}, "model 'roberta'"),
        ({"vocab_size": None}, "vocab_size is missing"),
        ({"transformer": None}, "transformer is missing"),
        ({"average_top_k_layers": 9}, "top_k is 9; the encoder has 3"),
    ],
)
def test_configurations_that_cannot_be_built_say_why(change, message):
    config = json.loads((PARITY / "data2vec_text" / "config.json").read_text())
    with pytest.raises(ValueError, match=message):
        fairseq_config.build(config | change)


def test_an_encoder_generates_no_text(tmp_path, pictures, capsys):
    convert("data2vec2_image", tmp_path / "out")
    assert main(["ask", str(tmp_path / "out"), str(pictures / "0.png"), "what?"]) == 2
    assert "a Data2Vec neither generates text nor has a task head" in capsys.readouterr().err
    assert main(["eval", str(tmp_path / "out"), "--data", str(pictures / "my.jsonl")]) == 2
    assert "a Data2Vec cannot answer it" in capsys.readouterr().err


def test_convolutions_are_read_without_running_them():
    config = json.loads((PARITY / "data2vec_audio" / "config.json").read_text())
    assert fairseq_config.build(config).student.front_end("speech").config.convolutions[0] == (16, 10, 5)
    with pytest.raises(ConversionError, match="is not a list of"):
        fairseq_config.build(config | {"conv_feature_layers": "__import__('os').getcwd()"})


@pytest.mark.parametrize("norm", ["batch_norm_target_layer", "instance_norm_target_layer"])
def test_norms_of_targets_over_time_count_padding_in_v1_text(norm, tmp_path):
    """As in the original, which normalises over whole rows."""
    folder = PARITY / "data2vec_text"
    config = json.loads((folder / "config.json").read_text()) | {"layer_norm_target_layer": False, norm: True}
    (tmp_path / "config.json").write_text(json.dumps(config))
    source = [str(folder / "weights.pt"), "--config", str(tmp_path / "config.json")]
    assert main(["convert", "fairseq", *source, str(tmp_path / "out")]) == 0
    model = load(tmp_path / "out")
    inputs = torch.load(folder / "reference.pt", weights_only=True)["inputs"]
    batch = fairseq.masked_batch(model, "text", inputs)
    assert batch.padding.any()
    with torch.no_grad():
        found = model.objective(batch).targets
        front_end = model.teacher.front_end("text")
        hidden = front_end(front_end.local_features(batch.values), batch.padding)
        _, results = run_blocks(model.teacher.blocks, hidden, model.objective_config.top_k)
    over = (1,) if norm.startswith("instance") else (0, 1)
    expected = 0
    for result in results:
        variance = result.var(over, unbiased=False, keepdim=True)
        expected = expected + (result - result.mean(over, keepdim=True)) / (variance + 1e-5).sqrt()
    torch.testing.assert_close(found, (expected / len(results))[batch.mask], atol=1e-4, rtol=1e-3)
