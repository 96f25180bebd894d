"""``vislang plan``: parameters by hand, what a batch holds, settings that fit or not and why, careless use."""

import json
from pathlib import Path

import pytest

from vislang.cli import main
from vislang.console import console
from vislang.models.flamingo.model import FlamingoRecipe
from vislang.models.flamingo.presets import PAPER, SEQUENCES, paper_batch
from vislang.nn.fake import FakeFloats
from vislang.recipe import PRESETS, read_recipe
from vislang.runs.loads import LoadOfPaper, by_paper
from vislang.runs.plan import parts_of
from vislang.train.footprint import footprint

# A preset between towers that are tiny, with as many gated blocks.
SMALL = (
    *("--model.bridge.gated_layers=[0,2]", "--model.bridge.scales=[1,1]", "--model.bridge.heads=2"),
    *("--model.bridge.head_width=8", "--model.bridge.resampler_width=32", "--model.bridge.resampler_depth=3"),
    *("--train.batch_size=8", '--data=[{"sources": ["ltip"], "name": "ltip"}, {"sources": ["align"], "name": "align"}]'),
)


def plan(capsys, *words: object, status: int = 0) -> dict:
    assert main(["plan", *map(str, words), "--json"]) == status
    found = json.loads(capsys.readouterr().out)
    assert found["schema"] == 1
    return found


def gated(width: int, inner: int, media: int = 1536) -> int:
    """Attention without biases, two norms, feed-forward of four widths, two gates."""
    return 2 * width * inner + 2 * media * inner + 8 * width**2 + 4 * width + 2


@pytest.mark.parametrize(
    ("name", "layers", "width", "heads", "blocks"),
    [
        ("flamingo-3b", 24, 2048, 16, 24),
        ("flamingo-9b", 40, 4096, 32, 10),
        ("flamingo-80b", 80, 8192, 64, 12),
    ],
)
def test_presets_are_built_without_memory_and_counted_as_by_hand(name, layers, width, heads, blocks):
    recipe, _ = read_recipe(Path(name))
    assert isinstance(recipe.model, FlamingoRecipe)
    assert by_paper(recipe)
    with FakeFloats() as fakes:
        model = recipe.model.outline(fakes, reads=False)
    parts = {part.name: part for part in parts_of(model)}
    assert (len(model.bridge.lm.layers), model.bridge.lm.width) == (layers, width)
    assert parts["gated blocks"].count == parts["gated blocks"].trained == blocks * gated(width, 128 * heads)
    # Six layers: attention with keys and values alike for media and latents, three norms, feed-forward. Features are
    # 1,152 wide, where the paper's are as wide as the latents.
    layer = 4 * 1536**2 + 2 * 1536 * 4 * 1536 + 3 * 2 * 1536
    assert parts["resampler"].count == 6 * layer + (64 + 8) * 1536 + 2 * 1536 + 1153 * 1536
    for frozen in ("language model", "vision encoder"):
        assert parts[frozen].trained == 0
        assert parts[frozen].count == pytest.approx(PAPER[name][frozen], rel=0.16)
    assert sum(part.count for part in parts.values()) == pytest.approx(PAPER[name]["total"], rel=0.15)


def test_every_preset_has_the_papers_counts_beside_it():
    assert set(PRESETS) == set(PAPER)


@pytest.fixture
def preset(towers):
    language, vision = towers
    return ["flamingo-3b", f"--model.language_model={language}", f"--model.vision_tower={vision}", *SMALL]


def test_what_is_counted_of_few_layers_is_extended_to_all(preset):
    """The whole model, three layers deep with two gated blocks, is small enough here to be counted as well."""
    recipe, _ = read_recipe(Path(preset[0]), preset[1:])
    with FakeFloats() as fakes:
        loads = LoadOfPaper(recipe, fakes)
        extended = loads.of([1, 1]).footprint
        with fakes.building():
            batch = paper_batch(loads.model, SEQUENCES["align"], 1)
        whole = footprint(loads.model, [batch], recipe.train)
    assert extended.operations == [whole.operations[0]] * 2
    assert extended.peak.optimizer == whole.peak.optimizer
    assert whole.activations <= extended.activations <= 1.15 * whole.activations


def test_a_preset_is_planned_by_the_papers_sequences(preset, capsys):
    found = plan(capsys, *preset, "--devices", 4, "--memory", 1, "--rate", 100, "--price", 2)
    # Pairs of both sets have 64 tokens and an image; of each there are 8.
    assert found["step"] == {"examples": 16, "tokens": 16 * 64, "images": 16, "flops": found["step"]["flops"]}
    assert found["parts"][0]["paper"] == PAPER["flamingo-3b"]["language model"]
    assert [setting["parallel"] for setting in found["settings"]] == ["none", "ddp", "fsdp2"]
    assert found["chosen"] == "ddp"
    cost = found["cost"]
    assert cost["step_seconds"] == pytest.approx(found["step"]["flops"] / 4 / 1e14)
    assert cost["price"] == pytest.approx(2 * cost["device_hours"]) == pytest.approx(8 * cost["hours"])


def test_a_recipe_is_planned_by_batches_of_its_data(recipe, pictures, capsys):
    found = plan(capsys, recipe, "--memory", 1, "--rate", 1)
    read, _ = read_recipe(recipe)
    model = read.model.build()
    bridge = found["parts"][2:4]
    assert sum(part["trained"] for part in bridge) == found["trained"]
    assert found["trained"] == sum(p.numel() for p in model.parameters() if p.requires_grad)
    assert found["parameters"] == sum(p.numel() for p in model.parameters())
    assert found["step"]["images"] == found["step"]["examples"] == 4
    assert (found["steps"], found["dtype"], found["chosen"]) == (12, "float32", "none")
    assert found["settings"][1]["why"] == "there is one device"
    assert not list(pictures.glob("runs"))


def test_a_device_that_is_too_small_is_told_apart(recipe, pictures, capsys):
    found = plan(capsys, recipe, "--devices", 2, "--memory", 0.0001, "--rate", 1, status=1)
    assert found["chosen"] is None
    none, ddp, fsdp2 = found["settings"]
    assert none["why"].startswith("weights and moments alone take")
    assert none["memory"] is None
    assert "a device needs" in ddp["why"]
    assert fsdp2["bytes"] < ddp["bytes"]


def test_the_table_is_read_at_one_glance(recipe, pictures, capsys, monkeypatch):
    monkeypatch.setattr(console, "width", 100)
    assert main(["plan", str(recipe), "--devices", "2", "--memory", "1", "--price", "3"]) == 0
    shown = capsys.readouterr().out
    assert max(map(len, shown.splitlines())) <= 100
    for words in ("gated blocks", "frozen", "GiB a device", "yes, take this", "give --rate"):
        assert words in shown


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["flamingo-7b"], "flamingo-7b: no such recipe. The ones that come with vislang are in recipes/; presets are "),
        (["{recipe}", "--devices", "0"], "--devices 0: must be above 0."),
        (["{recipe}", "--memory", "-1"], "--memory -1.0: must be above 0."),
        (["{recipe}", "--rate", "nan"], "--rate nan: must be above 0."),
        (["{recipe}", "--data", "gimp-manual"], "not here yet, and a plan reads a few batches. Run: vislang data fetch "),
        (["{recipe}", "--data", "nothing.jsonl"], "nothing.jsonl"),
        (["flamingo-3b", "--model.language_model", "no/where"], "language model 'no/where': found neither"),
    ],
)
def test_mistakes_get_one_sentence(words, message, recipe, pictures, capsys):
    assert main(["plan", *(word.format(recipe=recipe) for word in words)]) == 2
    said = capsys.readouterr().err
    assert message in said
    assert said.count("\n") == 1
