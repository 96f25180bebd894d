"""Models and checkpoints saved by version 0.1.0 still open, and give the same outputs.

``tests/saved`` holds a tiny random model of each kind, the towers and images that they were made with, runs that were
killed after step 4 of 8, and ``expected.json``: the outputs of each model, and the losses of the whole runs. The files
in that folder are never regenerated.
"""

import json
import shutil
from pathlib import Path

import pytest
import torch

import vislang
from tests import tiny
from vislang.cli import main
from vislang.document import Document, Image
from vislang.example import Example
from vislang.models.flamingo.recipe import FlamingoRecipe
from vislang.models.loading import current_path
from vislang.models.regions.readers import RegionsConfig
from vislang.recipe import recipe_of
from vislang.train.checkpoint import Checkpoints
from vislang.train.log import read_metrics
from vislang.train.optimizer import Optimizer
from vislang.train.parallel import Engine
from vislang.train.processes import Processes
from vislang.train.state import restore

SAVED = Path(__file__).parent.parent / "saved"
EXPECTED = json.loads((SAVED / "expected.json").read_text())
IMAGES = [Image(SAVED / "pictures" / f"{number}.png") for number in range(8)]
TOWERS = {"language_model": str(SAVED / "towers" / "language"), "vision_tower": str(SAVED / "towers" / "vision")}


def regions(**more) -> RegionsConfig:
    return RegionsConfig(tower=TOWERS["vision_tower"], image_size=0, **more)


def agrees(found, name: str, key: str) -> None:
    expected = torch.tensor(EXPECTED[name][key])
    torch.testing.assert_close(torch.as_tensor(found, dtype=expected.dtype), expected, rtol=1e-3, atol=1e-4)


def test_flamingo():
    model = vislang.load(SAVED / "flamingo", **TOWERS)
    colours = ["red", "blue", "green"]
    prompts = [Document([image, "Question: what color? Answer:"]) for image in IMAGES[:3]]
    targets = [Document(prompt.parts, target=colour) for prompt, colour in zip(prompts, colours, strict=True)]
    agrees([score.log_likelihood for score in model.score(targets)], "flamingo", "scores")
    assert model.generate(prompts, 4) == EXPECTED["flamingo"]["texts"]


def test_converted_open_flamingo():
    model = vislang.load(SAVED / "open-flamingo", language_model=TOWERS["language_model"])
    batch = tiny.batch(3)
    batch.features = torch.randn(2, 1, 9, 16, generator=torch.Generator().manual_seed(0))
    batch.input_ids.clamp_(max=90)
    with torch.no_grad():
        agrees(model(batch)[:, -1, :5], "open-flamingo", "logits")


@pytest.mark.parametrize("name", ["data2vec-v1", "data2vec-v2"])
def test_data2vec(name):
    model = vislang.load(SAVED / name)
    agrees(model.embed([Document(["the lazy fox"])])[0], name, "text")
    agrees(model.embed([Document([IMAGES[0]])])[0], name, "image")


def test_finetuned_data2vec():
    model = vislang.load(SAVED / "data2vec-finetuned")
    examples = [Example(str(number), Document([image])) for number, image in enumerate(IMAGES)]
    answers = [prediction.answer for prediction in model.decide(examples)]
    assert answers == EXPECTED["data2vec-finetuned"]["labels"]


def test_vilbert_without_inputs():
    model = vislang.load(SAVED / "vilbert")
    total = sum(float(parameter.double().sum()) for parameter in model.parameters())
    assert total == pytest.approx(EXPECTED["vilbert"]["sum"], rel=1e-6)


def test_pretrained_vilbert():
    clustered = regions(clusters=str(SAVED / "clusters.safetensors"))
    model = vislang.load(SAVED / "vilbert-pretrained", regions=clustered)
    agrees(model.match_all(IMAGES[:3], ["a red shape", "a blue shape"]), "vilbert-pretrained", "match")


@pytest.mark.parametrize(
    ("head", "letter", "text"),
    [
        ("answers", "a", "what colour?"),
        ("place", "p", "the shape"),
        ("value", "v", "how far right?"),
        ("pair", "l", "of one colour"),
    ],
)
def test_vilbert_with_tasks(head, letter, text):
    model = vislang.load(SAVED / "vilbert-tasks", regions=regions())
    for number, image in enumerate(IMAGES):
        media = [image, IMAGES[(number + 1) % len(IMAGES)]] if head == "pair" else [image]
        (prediction,) = model.decide([Example(str(number), Document([*media, text]))], head)
        expected = EXPECTED["vilbert-tasks"][f"{letter}{number}"]
        answer = list(vars(prediction.answer).values()) if head == "place" else prediction.answer
        assert answer == (pytest.approx(expected["best"], abs=1e-3) if head != "answers" else expected["best"])
        assert list(prediction.scores) == pytest.approx(expected["probabilities"], abs=1e-4)


def test_vilbert_with_a_task_of_choices():
    model = vislang.load(SAVED / "vilbert-tasks", regions=regions())
    choices = (Document(["red"]), Document(["blue"]))
    (prediction,) = model.decide([Example("0", Document([IMAGES[0], "it is"]), None, choices)])
    assert list(prediction.scores) == pytest.approx(EXPECTED["vilbert-tasks"]["c0"]["probabilities"], abs=1e-4)


def test_every_kind_of_saved_model_is_opened_here():
    """A class that moves needs a saved model of its old name in this folder."""
    named = {json.loads(path.read_text())["model"] for path in SAVED.glob("*/config.json")}
    assert len(named) == 8
    assert all(current_path(name) != name for name in named)
    source = Path(__file__).read_text(encoding="utf-8")
    assert [path.parent.name for path in SAVED.glob("*/config.json") if f'"{path.parent.name}"' not in source] == []


@pytest.mark.parametrize("package", ["flamingo", "flamingo.model"])
def test_recipes_of_a_flamingo_keep_opening(package):
    """The first version had one file; later ones had the recipe in the file of the model."""
    assert current_path(f"vislang.models.{package}.FlamingoRecipe") == f"{FlamingoRecipe.__module__}.FlamingoRecipe"


def test_dual_encoder():
    model = vislang.load(SAVED / "dual-encoder", regions=regions())
    agrees(model.match_all(IMAGES[:3], ["a red shape", "a blue shape"]), "dual-encoder", "match")


@pytest.mark.parametrize("name", ["flamingo", "vilbert", "data2vec"])
def test_a_run_that_was_killed_is_resumed(name, tmp_path, monkeypatch):
    for part in ("stopped", "towers", "pictures"):
        shutil.copytree(SAVED / part, tmp_path / part)
    monkeypatch.chdir(tmp_path / "stopped")
    assert main(["train", f"{name}.yaml", "--resume", name]) == 0
    found = {str(row["step"]): row["loss"] for row in read_metrics(Path(name) / "metrics.jsonl") if "loss" in row}
    expected = EXPECTED[f"run {name}"]
    assert found.keys() == expected.keys()
    if name == "data2vec":
        # Since then masks are drawn for each example on its own: what follows the checkpoint sees others.
        expected = {step: loss for step, loss in expected.items() if int(step) <= 4}
        found = {step: found[step] for step in expected}
    assert found == pytest.approx(expected, rel=1e-3)


def test_model_and_moments_of_an_old_checkpoint_are_read(tmp_path):
    """Every tensor of the file; a step of data2vec after it cannot be compared, see above."""
    written = torch.load(SAVED / "stopped/data2vec/checkpoints/step-00000004/state.pt", weights_only=True)
    recipe, _ = recipe_of(json.loads((SAVED / "stopped/data2vec/run.json").read_text())["recipe"])
    model = recipe.model.build()
    saved = Checkpoints(SAVED / "stopped" / "data2vec" / "checkpoints").latest()
    model.load_extra_state(saved.values["extra"])
    optimizer = Optimizer(model, recipe.train)
    restore(saved, Engine(model, Processes()), optimizer, torch.device("cpu"), recipe.train)
    assert (saved.step, model.model.updates) == (4, 4)
    for tensor_name, tensor in model.trainable_state().items():
        assert torch.equal(tensor, written["model"][tensor_name]), tensor_name
    sums = sorted(float(moments["exp_avg"].sum()) for moments in optimizer.state().values())
    assert sums == sorted(float(moments["exp_avg"].sum()) for moments in written["optimizer"]["state"].values())
    assert torch.equal(torch.get_rng_state(), written["random"]["torch"])
