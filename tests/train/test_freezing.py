"""Freezing by name: what stays as it was bit for bit, what is saved nevertheless, and patterns that match nothing."""

import json

import pytest
import torch

import vislang
from tests import tiny
from tests.train.line import Line, Silent, run
from vislang.document import Document, Image
from vislang.errors import UserError
from vislang.models.flamingo.config import FlamingoConfig
from vislang.models.flamingo.recipe import FlamingoRecipe
from vislang.recipe import read_recipe
from vislang.runs.run import run_recipe
from vislang.train.batches import Stream
from vislang.train.config import TrainConfig
from vislang.train.freezing import freeze, trained_and_frozen
from vislang.train.loop import train


def training(model) -> set[str]:
    return {name for name, parameter in model.named_parameters() if parameter.requires_grad}


@pytest.mark.parametrize(
    ("pattern", "left"),
    [
        ("inner.*", {"head.weight", "head.bias"}),
        ("*.bias", {"inner.weight", "head.weight"}),
        ("bias", {"inner.weight", "head.weight"}),
        ("head.[bw]*", {"inner.weight", "inner.bias"}),
    ],
)
def test_a_pattern_matches_a_name_or_its_end(pattern, left):
    model = Line()
    freeze(model, [pattern])
    freeze(model, [pattern])
    assert training(model) == left


def test_patterns_that_match_nothing_or_leave_nothing_are_errors():
    model = Line()
    for pattern in ("inner", "nner.weight", "resampler.*"):
        with pytest.raises(UserError, match=r"matches no parameter\. The parameters that train are in inner\.weight"):
            freeze(model, [pattern])
    assert len(training(model)) == 4
    with pytest.raises(UserError, match=r"train\.freeze: head\.\*, inner\.\* leaves nothing to train"):
        freeze(model, ["head.*", "inner.*"])


def test_what_is_frozen_does_not_move_and_what_is_not_does(tmp_path):
    torch.manual_seed(0)
    before = Line().state_dict()
    model, _ = run(tmp_path / "run", 5, freeze=["inner.*"])
    after = model.state_dict()
    assert {name for name in before if torch.equal(before[name], after[name])} == {"inner.weight", "inner.bias"}


def test_a_run_that_resumes_freezes_the_same(tmp_path):
    whole, losses = run(tmp_path / "whole", 8, freeze=["inner.*"])
    run(tmp_path / "cut", 4, freeze=["inner.*"])
    with pytest.warns(UserWarning, match="extended from 4 to 8"):
        resumed, again = run(tmp_path / "cut", 8, resume=True, freeze=["inner.*"])
    # The cosine of the first four steps was another.
    assert len(again) == len(losses)
    assert torch.equal(resumed.inner.weight, whole.inner.weight)
    with pytest.raises(UserError, match=r"freeze was \['inner\.\*'\], is \[\]"):
        run(tmp_path / "cut", 12, resume=True)


def test_a_frozen_resampler_is_saved_with_the_bridge(towers, pictures, tmp_path):
    model = FlamingoRecipe(*towers, bridge=FlamingoConfig(**tiny.BRIDGE)).build()
    examples = [tiny.caption(Image(pictures / f"{n}.png"), "red") for n in range(4)]
    before = {name: tensor.clone() for name, tensor in model.trainable_state().items()}
    config = TrainConfig(steps=3, lr=0.05, warmup_steps=0, lr_scale={"gates": 10}, freeze=["resampler.*"])
    train(model, [Stream("text", examples, 1.0, 4)], config, tmp_path / "run", Silent())
    after = model.trainable_state()
    assert after.keys() == before.keys()
    frozen = {name for name in before if torch.equal(before[name], after[name])}
    assert frozen == {name for name in before if name.startswith("resampler.")}
    model.save(tmp_path / "model")
    opened = vislang.load(tmp_path / "model")
    document = Document(["a", Image(pictures / "0.png")], target="b")
    assert opened.score([document]) == model.eval().score([document])


def test_a_run_says_and_records_what_trains(recipe, pictures, tmp_path, capsys, monkeypatch):
    monkeypatch.setattr("vislang.runs.run.draw_report", lambda *arguments: None)
    found = read_recipe(recipe, ["--train.steps=1", '--train.freeze=["resampler.*"]'])
    run_recipe(*found, tmp_path / "run")
    recorded = json.loads((tmp_path / "run" / "run.json").read_text())["parameters"]
    model = vislang.load(tmp_path / "run" / "model")
    gated = sum(parameter.numel() for parameter in model.bridge.gated_blocks.parameters())
    assert recorded["trained"] == {"bridge.gated_blocks": gated}
    assert recorded["frozen"]["bridge.resampler"] == sum(p.numel() for p in model.bridge.resampler.parameters())
    assert recorded["frozen"].keys() == {"bridge.media_embedding", "bridge.lm", "bridge.resampler", "vision.network"}
    said = " ".join(capsys.readouterr().out.split())
    assert f"{gated:,} parameters train ({gated:,} of bridge.gated_blocks), " in said
    with pytest.raises(UserError, match=r"train\.freeze: 'resampling\.\*' matches no parameter"):
        run_recipe(*read_recipe(recipe, ['--train.freeze=["resampling.*"]']), tmp_path / "other", dry_run=True)


def test_counts_are_by_part():
    model = Line()
    model.inner.bias.requires_grad_(False)
    assert trained_and_frozen(model) == {
        "trained": {"inner.weight": 12, "head.weight": 4, "head.bias": 1},
        "frozen": {"inner.bias": 4},
    }
