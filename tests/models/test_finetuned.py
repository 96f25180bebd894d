"""Fine-tuning: each kind of head learns what is there to be learned, and labels what it has not seen."""

import json

import numpy as np
import pytest
import soundfile
import torch
from PIL import Image as Pillow

from tests.models.test_pretraining import recipe
from vislang.cli import main
from vislang.document import Document
from vislang.errors import UserError
from vislang.models.data2vec.finetuning import NO_TAG, FineTuneRecipe, HeadConfig
from vislang.models.loading import load
from vislang.tasks.labels import score_labels

COLOURS = {"red": (200, 30, 30), "blue": (30, 30, 200), "green": (30, 200, 30)}
WORDS = "fox dog jumps over lazy the quick brown"


@pytest.fixture(scope="module")
def pretrained(tmp_path_factory):
    """An untrained data2vec model of all three modalities: what is tested here is what comes on top."""
    torch.manual_seed(0)
    model = recipe("v1", "text", "image", "speech").build()
    model.fit([Document([WORDS])])
    folder = tmp_path_factory.mktemp("pretrained")
    model.save(folder / "model")
    return folder / "model"


@pytest.fixture(scope="module")
def files(tmp_path_factory):
    """Pictures by colour, texts by what they name, tones by their height, each as a JSON Lines file."""
    folder = tmp_path_factory.mktemp("labelled")
    chance = np.random.default_rng(1)
    records = {"pictures": [], "numbers": [], "texts": [], "tags": [], "tones": []}
    for n in range(96):
        name = list(COLOURS)[n % 3]
        noise = chance.normal(0, 20, (32, 32, 3)) + COLOURS[name]
        Pillow.fromarray(noise.clip(0, 255).astype(np.uint8)).save(folder / f"{n}.png")
        records["pictures"].append({"image": f"{n}.png", "label": name})
        records["numbers"].append({"image": f"{n}.png", "label": str(COLOURS[name][0])})
        picked = chance.choice(WORDS.split(), 5)
        records["texts"].append({"text": " ".join(picked) + (" fox" if n % 2 else " dog"), "label": f"is {n % 2}"})
        records["tags"].append(
            {"text": " ".join(picked), "label": " ".join("ANIMAL" if w in ("fox", "dog") else "OTHER" for w in picked)}
        )
        said = "".join(chance.choice(["a", "b", "c"], 2, replace=False))
        time = np.arange(1600) / 16_000
        voices = {
            "a": chance.normal(0, 0.5, 1600),
            "b": np.sin(2 * np.pi * 200 * time),
            "c": np.sin(2 * np.pi * 3000 * time),
        }
        wave = [voices[symbol] for symbol in said]
        gap = np.zeros(400)
        sound = np.concatenate([gap, wave[0], gap, wave[1], gap])
        # A little noise, or recordings of the same would be the same file, and stay on one side of the split.
        soundfile.write(folder / f"{n}.wav", 0.3 * sound + chance.normal(0, 0.01, len(sound)), 16_000)
        records["tones"].append({"audio": f"{n}.wav", "text": said})
    for name, rows in records.items():
        (folder / f"{name}.jsonl").write_text("\n".join(map(json.dumps, rows)))
    return folder


RECIPE = """
model:
  class_path: vislang.models.data2vec.finetuning.FineTuneRecipe
  init_args:
    start_from: {start}
    modality: {modality}
    head: {{kind: {kind}, dropout: 0.0}}
data: {data}
hold_out: 0.25
train: {{steps: {steps}, batch_size: 12, lr: 5.0e-3, checkpoint_every: 1000, log_every: 1000, weight_decay: 0.0}}
"""


@pytest.mark.parametrize(
    ("data", "modality", "kind", "steps", "reached"),
    [
        ("pictures", "image", "classification", 60, lambda m: m["accuracy"] > 0.9 > m["majority_accuracy"]),
        ("numbers", "image", "regression", 100, lambda m: m["pearson_r"] > 0.9),
        ("texts", "text", "classification", 150, lambda m: m["accuracy"] > 0.8),
        ("tags", "text", "tagging", 120, lambda m: m["accuracy"] > 0.95 > m["majority_accuracy"]),
        ("tones", "speech", "ctc", 300, lambda m: m["character_error_rate"] < 0.3),
    ],
)
def test_each_head_learns(pretrained, files, tmp_path, data, modality, kind, steps, reached):
    path = tmp_path / "recipe.yaml"
    path.write_text(
        RECIPE.format(start=pretrained, modality=modality, kind=kind, data=files / f"{data}.jsonl", steps=steps)
    )
    assert main(["train", str(path), "--out", str(tmp_path / "run")]) == 0
    metrics = json.loads((tmp_path / "run" / "metrics.json").read_text())
    assert reached(metrics), metrics
    model = load(tmp_path / "run" / "model")
    first = json.loads((files / f"{data}.jsonl").read_text().splitlines()[0])
    part = first.get("text") if modality == "text" else None
    if part is not None:
        (label,) = model.label([Document([part])])
        assert len(label.split()) == (len(part.split()) if kind == "tagging" else 2)


def test_frozen_trains_the_head_alone(pretrained):
    model = FineTuneRecipe(str(pretrained), "image", HeadConfig(), frozen=True).build()
    with pytest.raises(UserError, match="one label only"):
        model.fit([Document(["x"], target="a")])
    assert {name for name, group in model.parameter_groups().items() if group} == set()
    model._set_labels(["a", "b"])
    assert [name for name, _ in model.parameter_groups()["head"]] == ["head.output.weight", "head.output.bias"]


def test_tags_stand_at_first_tokens_and_long_texts_are_cut(pretrained):
    model = FineTuneRecipe(str(pretrained), "text", HeadConfig("tagging")).build()
    lesson = Document(["fox jumps over unheardof"], target="N V P X", name="line 1")
    model.fit([lesson])
    batch = model.collate([lesson])
    tagged = batch.targets[0] != NO_TAG
    first = [model.inputs.text.tokenizer.decode([i]) for i in batch.whole.values[0][tagged].tolist()]
    assert first[0].startswith("f")
    assert all(token.startswith(" ") for token in first[1:])
    with pytest.raises(UserError, match=r"line 2: 1 tags for 2 words"):
        model.collate([Document(["fox jumps"], target="N", name="line 2")])


@pytest.mark.parametrize(
    ("kind", "target", "message"),
    [
        ("classification", "green", "'green' does not occur"),
        ("classification", None, "has no label"),
        ("regression", "many", "'many' is no number"),
    ],
)
def test_labels_that_do_not_fit(pretrained, files, kind, target, message):
    from vislang.document import Image

    model = FineTuneRecipe(str(pretrained), "image", HeadConfig(kind)).build()
    picture = Image(files / "0.png")
    model.fit([Document([picture], target="1"), Document([picture], target="2")])
    with pytest.raises(UserError, match=f"a record: .*{message}"):
        model.collate([Document([picture], target=target, name="a record")])


@pytest.mark.parametrize(
    ("changed", "message"),
    [
        ({"start_from": ""}, "name the folder"),
        ({"modality": None}, "reads text and image and speech"),
        ({"head": HeadConfig("ctc")}, "ctc is for speech"),
    ],
)
def test_recipes_that_do_not_fit(pretrained, changed, message):
    settings = {"start_from": str(pretrained), "modality": "image", **changed}
    with pytest.raises(UserError, match=message):
        FineTuneRecipe(**settings).build()


def test_figures_of_labels():
    assert score_labels("ctc", ["a cat sat", "yes"], ["a cat sat down", "yes"], [])["word_error_rate"] == 1 / 5
    assert score_labels("tagging", ["N V", "N"], ["N N", "N"], ["N V"])["accuracy"] == 2 / 3
    found = score_labels("regression", ["1", "2", "3"], ["2", "4", "6"], ["4"])
    assert found["pearson_r"] == pytest.approx(1)
    assert found["root_mean_squared_error"] == pytest.approx((14 / 3) ** 0.5)
    assert score_labels("classification", ["a", "b"], ["a", "a"], ["a"])["majority_accuracy"] == 1
