"""``vislang plan``: parameters by hand, what a batch holds, settings that fit or not and why, careless use."""

import json
import math
from dataclasses import replace
from pathlib import Path

import pytest
import torch

from vislang.cli import main
from vislang.commands.plan import Plan as PlanVerb
from vislang.console import console
from vislang.models.data2vec.presets import blanks
from vislang.models.flamingo.presets import PAPER, SEQUENCES, paper_batch
from vislang.models.flamingo.recipe import FlamingoRecipe
from vislang.nn.fake import FakeFloats
from vislang.recipe import PRESETS, read_recipe
from vislang.runs import loads
from vislang.runs.loads import LoadOfData, LoadOfPaper, by_paper
from vislang.runs.plan import Part, Plan, cost, parts_of
from vislang.train.footprint import Memory, footprint
from vislang.train.placement import Placement

# A preset between towers that are tiny, with as many gated blocks.
SMALL = (
    *("--model.bridge.gated_layers=[0,2]", "--model.bridge.scales=[1,1]", "--model.bridge.heads=2"),
    *("--model.bridge.head_width=8", "--model.bridge.resampler_width=32", "--model.bridge.resampler_depth=3"),
    *(
        "--train.batch_size=8",
        '--data=[{"sources": ["ltip"], "name": "ltip"}, {"sources": ["align"], "name": "align"}]',
    ),
)


@pytest.fixture(autouse=True)
def _one_step(monkeypatch):
    monkeypatch.setattr(loads, "STEPS", 1)


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


def test_every_flamingo_has_the_papers_counts_beside_it():
    assert {name for name in PRESETS if name.startswith("flamingo")} == set(PAPER)


@pytest.mark.parametrize(
    ("name", "modality", "blocks", "width", "decoder", "layers"),
    # Two of the base model's twelve blocks for images are not shared, and eight of the large model's for speech.
    [
        ("data2vec-base", "image", 12, 768, 768, 6),
        ("data2vec-large", "image", 24, 1024, 1024, 3),
        ("data2vec-text-base", "text", 12, 768, 768, 5),
        ("data2vec-text-large", "text", 24, 1024, 768, 5),
        ("data2vec-speech-base", "speech", 12, 768, 384, 4),
        ("data2vec-speech-large", "speech", 24, 1024, 768, 4),
    ],
)
def test_presets_of_data2vec_have_the_papers_shapes(name, modality, blocks, width, decoder, layers):
    recipe, _ = read_recipe(Path(name))
    made = recipe.model
    ((read, config),) = made.modalities.present().items()
    assert read == modality
    assert made.encoder.depth + config.prenet_depth == blocks
    assert made.encoder.width == made.encoder.mlp_width / 4 == width == made.encoder.heads * 64
    assert (config.decoder.width, config.decoder.layers) == (decoder, layers)
    if modality == "image":
        assert (config.size // config.patch) ** 2 == 196
    if modality == "speech":
        # 50 frames a second.
        assert math.prod(stride for _, _, stride in config.convolutions) == 320


@pytest.mark.parametrize(
    ("name", "copies", "scope", "layer_norms", "mean_norms"),
    [
        ("data2vec-base", 16, "all", ["instance"], ["layer"]),
        ("data2vec-large", 16, "all", ["instance"], ["layer"]),
        ("data2vec-text-base", 8, "encoder", ["instance"], []),
        ("data2vec-text-large", 8, "encoder", ["layer"], ["instance"]),
        ("data2vec-speech-base", 8, "context", ["instance"], []),
        ("data2vec-speech-large", 12, "context", ["instance"], []),
    ],
)
def test_presets_of_data2vec_have_the_papers_objective(name, copies, scope, layer_norms, mean_norms):
    made = read_recipe(Path(name))[0].model
    (modality,) = made.modalities.present()
    chosen = made._chosen([modality], made.encoder.depth)
    assert (chosen.copies, chosen.scope) == (copies, scope)
    assert (list(chosen.layer_norms), list(chosen.mean_norms)) == (layer_norms, mean_norms)
    assert chosen.class_loss == (0.01 if modality == "image" else 0)
    assert chosen.top_k <= made.encoder.depth


def test_a_preset_of_data2vec_is_planned_by_blank_images(capsys):
    """Cut to two blocks; the images, the masks and their sixteen copies stay."""
    small = ("--model.encoder.depth=1", "--model.modalities.image.prenet_depth=1", "--model.choices.top_k=1")
    found = plan(capsys, "data2vec-base", *small, "--train.batch_size=2", "--rate", 1)
    assert (found["step"]["examples"], found["step"]["images"]) == (2, 2)
    student = {part["name"]: part["trained"] for part in found["parts"]}["student"]
    block = 12 * 768**2 + 13 * 768
    patches = (3 * 16 * 16 + 1) * 768
    # A class token, and the norm of the sequence.
    assert student == 2 * block + patches + 3 * 768
    assert found["cost"]["steps"] == 375_300


def test_a_preset_of_text_is_planned_by_blank_texts(capsys):
    """Cut to one narrow block; the blank texts have 512 tokens."""
    found = plan(
        *(capsys, "data2vec-text-base", "--model.choices.top_k=1", "--train.batch_size=1", "--rate", 1),
        "--model.encoder={width: 96, depth: 1, heads: 2, mlp_width: 384}",
        "--model.modalities.text.decoder={width: 96, layers: 1, kernel: 3, groups: 1}",
        "--model.modalities.text.vocabulary_size=300",
    )
    assert (found["step"]["examples"], found["step"]["tokens"]) == (1, 512)
    student = {part["name"]: part["trained"] for part in found["parts"]}["student"]
    block = 12 * 96**2 + 13 * 96
    # Tokens, positions with those of padding, and the norm after them.
    assert student == pytest.approx(block + (300 + 512 + 2) * 96, abs=3 * 96)


def test_blank_recordings_can_be_read_and_are_as_long_as_those_of_librispeech():
    modalities = read_recipe(Path("data2vec-speech-large"))[0].model.modalities
    for example in blanks("libri-light", modalities, 2):
        (sound,) = example.prompt.media
        samples = sound.decode()
        assert len(samples) == 12.5 * 16_000
        assert samples.std() > 0.1


@pytest.fixture
def preset(towers):
    language, vision = towers
    return ["flamingo-3b", f"--model.language_model={language}", f"--model.vision_tower={vision}", *SMALL]


def test_what_is_counted_of_few_layers_is_extended_to_all(preset):
    """The whole model, three layers deep with two gated blocks, is small enough here to be counted as well."""
    recipe, _ = read_recipe(Path(preset[0]), preset[1:])
    with FakeFloats() as fakes:
        of_paper = LoadOfPaper(recipe, fakes)
        extended = of_paper.of(8).footprint
        with fakes.building():
            batch = paper_batch(of_paper.model, SEQUENCES["align"], 1)
        whole = footprint(of_paper.model, [[batch]], recipe.train)
    assert extended.operations == pytest.approx([whole.operations[0]] * 2)
    assert extended.peak.optimizer == whole.peak.optimizer
    assert whole.activations <= extended.activations <= 1.15 * whole.activations


def test_a_preset_is_planned_by_the_papers_sequences(preset, capsys):
    found = plan(capsys, *preset, "--devices", 8, "--memory", 1, "--rate", 100, "--price", 2)
    # Pairs of both sets have 64 tokens and an image; of each there are 8.
    assert found["step"] == {"examples": 16, "tokens": 16 * 64, "images": 16, "flops": found["step"]["flops"]}
    assert found["parts"][0]["paper"] == PAPER["flamingo-3b"]["language model"]
    assert [setting["parallel"] for setting in found["settings"]] == ["none", "ddp", "fsdp2"]
    assert found["chosen"] == "ddp"
    cost = found["cost"]
    assert cost["step_seconds"] == pytest.approx(found["step"]["flops"] / 8 / 1e14)
    assert cost["price"] == pytest.approx(2 * cost["device_hours"]) == pytest.approx(16 * cost["hours"])


def test_a_preset_is_trained_by_its_name(preset, pictures, tmp_path):
    changes = [change for change in preset[1:] if not change.startswith("--data")]
    options = ["--data", str(pictures / "my.jsonl"), "--train.steps=1", "--out", str(tmp_path / "run"), "--no-report"]
    assert main(["train", preset[0], *options, *changes, "--eval_limit=2"]) == 0
    assert (
        json.loads((tmp_path / "run" / "run.json").read_text())["recipe"]["model"]["init_args"]["cache_features"]
        is False
    )


def test_a_recipe_is_planned_by_batches_of_its_data(recipe, pictures, capsys):
    found = plan(capsys, recipe, "--data", pictures / "my.jsonl", "--memory", 1, "--rate", 1)
    read, _ = read_recipe(recipe)
    model = read.model.build()
    bridge = found["parts"][2:4]
    assert sum(part["trained"] for part in bridge) == found["trained"]
    assert found["trained"] == sum(p.numel() for p in model.parameters() if p.requires_grad)
    assert found["parameters"] == sum(p.numel() for p in model.parameters())
    assert found["step"]["images"] == found["step"]["examples"] == 4
    assert (found["dtype"], found["chosen"]) == ("float32", "none")
    assert found["settings"][1]["why"] == "needs several devices"
    assert not list(pictures.glob("runs"))


def test_settings_of_the_training_are_applied(recipe, pictures, capsys):
    data = ("--data", pictures / "my.jsonl", "--memory", 1, "--rate", 1)
    plain = plan(capsys, recipe, *data)
    changes = ("--train.accumulate=4", "--train.freeze=[resampler.*]", "--model.tune.language_model=lora")
    found = plan(capsys, recipe, *data, *changes, "--train.gradient_checkpointing=true")
    trained = {part["name"]: part["trained"] for part in found["parts"]}
    assert trained["resampler"] == 0
    assert 0 < trained["language model"] < found["parts"][0]["count"]
    memory, before = found["settings"][0]["memory"], plain["settings"][0]["memory"]
    assert memory["activations"] < before["activations"]


def test_a_large_batch_is_extrapolated(recipe, pictures, monkeypatch):
    read, _ = read_recipe(recipe, [f"--data={pictures / 'my.jsonl'}", "--train.batch_size=24"])
    with FakeFloats() as fakes:
        of_data = LoadOfData(read, fakes)
        whole = of_data.of(1)
        monkeypatch.setattr(loads, "MOST_EXAMPLES", 16)
        extrapolated = of_data.of(1)
    assert extrapolated.contents[0]["tokens"] == pytest.approx(whole.contents[0]["tokens"], rel=0.1)
    assert extrapolated.footprint.saved == pytest.approx(whole.footprint.saved, rel=0.15)
    assert extrapolated.footprint.operations == pytest.approx(whole.footprint.operations, rel=0.15)


def test_a_time_budget_or_a_slow_network_decides_the_steps_and_their_time():
    fitting = Placement("ddp", 4, Memory(weights=1), 0, int(8e9), True, "")
    found = Plan([], torch.float32, 100, 0.0, 8, {}, 4e12, [fitting])
    assert cost(found, 1e12).step_seconds == 1
    assert cost(found, 1e12, bandwidth=16e9).step_seconds == 1
    slow = cost(found, 1e12, price=3.0, bandwidth=4e9)
    assert (slow.step_seconds, slow.network_seconds, slow.compute_seconds) == (2, 2, 1)
    assert slow.device_hours == pytest.approx(4 * 100 * 2 / 3600) == pytest.approx(slow.price / 3)
    assert cost(replace(found, minutes=1.0), 1e12).steps == 60
    assert cost(replace(found, minutes=10.0), 1e12).steps == 100
    assert cost(replace(found, minutes=10.0, steps=0), 1e12).steps == 600


@pytest.mark.parametrize("width", [80, 120])
def test_the_output_fits_the_terminal(width, capsys, monkeypatch):
    monkeypatch.setattr(console, "width", width)
    small = Memory(weights=2**30, gradients=2**28, optimizer=2**31, activations=2**32)
    settings = [
        Placement(
            "none", 1, None, 0, 0, False, "weights and optimizer alone need 228.3 GiB per device; 28.8 can be used"
        ),
        Placement("fsdp2", 1536, small, 2**37, int(1e12), True, ""),
    ]
    parts = [Part("language model", 70_553_706_496, 0), Part("gated blocks", 8_355_446_808, 8_355_446_808)]
    found = Plan(parts, torch.bfloat16, 500_000, 0.0, 6144, {"tokens": 688_128, "images": 23_040}, 2.3e17, settings)
    verb = PlanVerb(Path("flamingo-80b"), devices=1536, memory=32, price=2)
    verb._show(found, cost(found, 1e14, 2.0), 32)
    shown = capsys.readouterr().out
    assert max(map(len, shown.splitlines())) <= width
    for words in (
        "1,536 devices of 32 GiB, computing in bfloat16",
        "frozen",
        "does not fit: weights and optimizer alone",
        "fits; take --train.parallel fsdp2. In host memory, each process keeps the whole model (128.0 GiB)",
        "an assumed 100 TFLOPS per device (set --rate)",
        "with less than 668 GB/s (--bandwidth)",
        "at 2.00 per hour",
        "15 days on 1,536 TPUv4",
    ):
        assert words in " ".join(shown.split())


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["flamingo-7b"], "of its repository; the presets are data2vec-base, data2vec-large, data2vec-speech-base, "),
        (["{recipe}", "--devices", "0"], "--devices is 0; it must be above 0."),
        (["{recipe}", "--memory", "-1"], "--memory is -1.0; it must be above 0."),
        (["{recipe}", "--rate", "nan"], "--rate is nan; it must be above 0."),
        (["{recipe}", "--price", "inf"], "--price is inf; it must be finite."),
        (
            ["{recipe}", "--data", "gimp-manual"],
            "not downloaded yet, and a plan reads a few batches. Run: vislang data ",
        ),
        (["{recipe}", "--train.optimiser", "adamw"], "no such setting of "),
        (["{data}"], "model is missing."),
        (["{recipe}", "--data", "nothing.jsonl"], "nothing.jsonl"),
        (["flamingo-3b", "--model.language_model", "no/where"], "language model 'no/where': not a local folder"),
    ],
)
def test_mistakes_get_one_sentence(words, message, recipe, pictures, capsys):
    data = pictures / "data.yaml"
    data.write_text("data: my.jsonl\n", encoding="utf-8")
    assert main(["plan", *(word.format(recipe=recipe, data=data) for word in words)]) == 2
    said = capsys.readouterr().err
    assert message in said
    assert said.count("\n") == 1
