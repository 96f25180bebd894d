"""Fine-tuning: each kind of head learns its task and labels unseen examples."""

import numpy as np
import pytest
import soundfile
import torch
from PIL import Image as Pillow

from tests.models.test_pretraining import recipe
from vislang.document import Audio, Document, Image
from vislang.errors import UserError
from vislang.example import Example, Label, Text, Value
from vislang.metrics.sequences import transcripts
from vislang.models.data2vec.finetuning import NO_TAG, FineTuneRecipe, HeadConfig, label
from vislang.models.loading import load
from vislang.train.batches import Stream
from vislang.train.config import TrainConfig
from vislang.train.loop import train
from vislang.train.optimizer import Optimizer

COLOURS = {"red": (200, 30, 30), "blue": (30, 30, 200), "green": (30, 200, 30)}
WORDS = "fox dog jumps over lazy the quick brown"


@pytest.fixture(scope="module")
def pretrained(tmp_path_factory):
    """An untrained data2vec model of all three modalities; the tests are about the heads."""
    torch.manual_seed(0)
    model = recipe("v1", "text", "image", "speech").build()
    model.fit([Example("words", Document([WORDS]))])
    folder = tmp_path_factory.mktemp("pretrained")
    model.save(folder / "model")
    return folder / "model"


@pytest.fixture(scope="module")
def sets(tmp_path_factory) -> dict[str, list[Example]]:
    """Pictures by colour, texts by what they name, tones by their height."""
    folder = tmp_path_factory.mktemp("labelled")
    rng = np.random.default_rng(1)
    made: dict[str, list[Example]] = {"pictures": [], "numbers": [], "texts": [], "tags": [], "tones": []}
    for n in range(96):
        name = list(COLOURS)[n % 3]
        noise = rng.normal(0, 20, (32, 32, 3)) + COLOURS[name]
        Pillow.fromarray(noise.clip(0, 255).astype(np.uint8)).save(folder / f"{n}.png")
        picture = Document([Image(folder / f"{n}.png")])
        made["pictures"].append(Example(str(n), picture, Label(name)))
        made["numbers"].append(Example(str(n), picture, Value(float(COLOURS[name][0]))))
        picked = rng.choice(WORDS.split(), 5)
        text = " ".join(picked) + (" fox" if n % 2 else " dog")
        made["texts"].append(Example(str(n), Document([text]), Label(f"is {n % 2}")))
        tags = " ".join("ANIMAL" if w in ("fox", "dog") else "OTHER" for w in picked)
        made["tags"].append(Example(str(n), Document([" ".join(picked)]), Label(tags)))
        spoken = "".join(rng.choice(["a", "b", "c"], 2, replace=False))
        time = np.arange(1600) / 16_000
        voices = {
            "a": rng.normal(0, 0.5, 1600),
            "b": np.sin(2 * np.pi * 200 * time),
            "c": np.sin(2 * np.pi * 3000 * time),
        }
        wave = [voices[symbol] for symbol in spoken]
        gap = np.zeros(400)
        sound = np.concatenate([gap, wave[0], gap, wave[1], gap])
        soundfile.write(folder / f"{n}.wav", 0.3 * sound + rng.normal(0, 0.01, len(sound)), 16_000)
        made["tones"].append(Example(str(n), Document([Audio(folder / f"{n}.wav")]), Text((spoken,))))
    return made


class Silent:
    def step(self, step, row):
        pass

    def evaluated(self, step, row):
        pass


@pytest.mark.parametrize(
    ("data", "modality", "kind", "steps", "reached"),
    [
        ("pictures", "image", "classification", 60, 0.9),
        ("numbers", "image", "regression", 100, 0.9),
        ("texts", "text", "classification", 150, 0.8),
        ("tags", "text", "tagging", 120, 0.9),
        ("tones", "speech", "ctc", 300, 0.3),
    ],
)
def test_each_head_learns(pretrained, sets, tmp_path, data, modality, kind, steps, reached):
    torch.manual_seed(0)
    model = FineTuneRecipe(str(pretrained), modality, HeadConfig(kind, dropout=0.0)).build()
    learned, held_out = sets[data][:72], sets[data][72:]
    model.fit(learned)
    config = TrainConfig(steps=steps, batch_size=12, lr=5e-3, weight_decay=0.0, checkpoint_every=1000)
    train(model, [Stream("labels", learned, 1.0, 12)], config, tmp_path / "run", Silent())
    found = model.decide(held_out, batch_size=5)
    assert [prediction.id for prediction in found] == [example.id for example in held_out]
    answers = [prediction.answer for prediction in found]
    if kind == "regression":
        truth = [example.target.number for example in held_out]
        assert np.corrcoef(answers, truth)[0, 1] > reached
    elif kind == "ctc":
        truth = [example.target.references[0] for example in held_out]
        assert transcripts(answers, truth)["character_error_rate"].value < reached
    else:
        right = [answer == label(example) for answer, example in zip(answers, held_out, strict=True)]
        assert np.mean(right) > reached
    if kind == "classification":
        assert found[0].candidates == tuple(model.labels)
        assert sum(found[0].scores) == pytest.approx(1, abs=1e-5)
    model.save(tmp_path / "model")
    opened = load(tmp_path / "model")
    assert [prediction.answer for prediction in opened.decide(held_out)] == pytest.approx(answers)
    assert opened.embed([example.prompt for example in held_out[:3]]).shape == (3, 16)


def test_it_says_what_it_decides(pretrained, sets):
    model = FineTuneRecipe(str(pretrained), "image", HeadConfig()).build()
    model.fit(sets["pictures"])
    assert model.heads == {"classification": "label"}
    assert model.head_for("label") == "classification"
    assert model.why_undecided("label", ["red", "blue"]) is None
    assert model.why_undecided("label", ["red", "pink"]) == "was not trained on the label 'pink'"
    assert "no head for targets of the kind box" in model.why_undecided("box")
    with pytest.raises(UserError, match=r"kind value: this model has classification \(label\)"):
        model.head_for("value")
    tagger = FineTuneRecipe(str(pretrained), "text", HeadConfig("tagging")).build()
    assert tagger.head_for("text") == tagger.head_for("label") == "tagging"


def test_the_matrices_of_a_head_decay(pretrained, sets):
    model = FineTuneRecipe(str(pretrained), "image", HeadConfig(norm=True, inner=8)).build()
    model.fit(sets["pictures"])
    config = TrainConfig(weight_decay=0.5, lr_scale={"head": 3.0})
    groups = Optimizer(model, config).param_groups
    decay = {id(p): group["weight_decay"] for group in groups for p in group["params"]}
    assert decay[id(model.head.output.weight)] == decay[id(model.head.inner.weight)] == 0.5
    assert decay[id(model.head.output.bias)] == decay[id(model.head.norm.weight)] == 0.0


def test_frozen_trains_the_head_alone(pretrained):
    model = FineTuneRecipe(str(pretrained), "image", HeadConfig(), frozen=True).build()
    with pytest.raises(UserError, match="all examples have the same label"):
        model.fit([Example("1", Document(["x"]), Label("a"))])
    assert {name for name, group in model.parameter_groups().items() if group} == set()
    model._set_labels(["a", "b"])
    assert [name for name, _ in model.parameter_groups()["head"]] == ["head.output.weight", "head.output.bias"]


def test_tags_are_at_first_tokens_and_long_texts_are_cut(pretrained):
    model = FineTuneRecipe(str(pretrained), "text", HeadConfig("tagging")).build()
    example = Example("1", Document(["fox jumps over unheardof"]), Text(("N V P X",)), source="line 1")
    model.fit([example])
    batch = model.collate([example])
    tagged = batch.targets[0] != NO_TAG
    first = [model.inputs.text.tokenizer.decode([i]) for i in batch.whole.values[0][tagged].tolist()]
    assert first[0].startswith("f")
    assert all(token.startswith(" ") for token in first[1:])
    with pytest.raises(UserError, match=r"line 2: 1 tags for 2 words"):
        model.collate([Example("2", Document(["fox jumps"]), Text(("N",)), source="line 2")])


@pytest.mark.parametrize(
    ("kind", "target", "message"),
    [
        ("classification", Label("green"), "'green' is not in the training data"),
        ("classification", None, "has no label"),
        ("classification", Value(1.0), "of the kind value; this head needs a label"),
        ("regression", Label("many"), "'many' is not a number"),
    ],
)
def test_labels_that_do_not_fit(pretrained, sets, kind, target, message):
    model = FineTuneRecipe(str(pretrained), "image", HeadConfig(kind)).build()
    picture = sets["pictures"][0].prompt
    model.fit([Example("1", picture, Label("1")), Example("2", picture, Label("2"))])
    with pytest.raises(UserError, match=f"a record: .*{message}"):
        model.collate([Example("3", picture, target, source="a record")])


def test_one_value_gives_no_scale(pretrained, sets):
    model = FineTuneRecipe(str(pretrained), "image", HeadConfig("regression")).build()
    picture = sets["pictures"][0].prompt
    with pytest.raises(UserError, match=r"all examples have the same value \(2.5\); two or more are needed"):
        model.fit([Example("1", picture, Value(2.5))])


@pytest.mark.parametrize(
    ("changed", "message"),
    [
        ({"start_from": ""}, "give the folder"),
        ({"modality": None}, "reads text and image and speech"),
        ({"head": HeadConfig("ctc")}, "ctc is for speech"),
    ],
)
def test_recipes_that_do_not_fit(pretrained, changed, message):
    settings = {"start_from": str(pretrained), "modality": "image", **changed}
    with pytest.raises(UserError, match=message):
        FineTuneRecipe(**settings).build()
