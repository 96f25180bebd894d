"""Probes: choices within the training part, and figures checked by hand; the verbs probe and embed."""

import json

import numpy as np
import pyarrow.parquet
import pytest
import torch
from PIL import Image as Pillow

from tests.models.test_pretraining import recipe
from vislang.cli import main
from vislang.document import Document
from vislang.errors import UserError
from vislang.evaluate.baselines import bag_of_words, log_mel, raw_features
from vislang.evaluate.probe import both_probes, classify_embeddings, majority, probe
from vislang.example import Example, Label
from vislang.tasks.probes import ProbeTask


def task(count: int, groups: int) -> ProbeTask:
    items = [
        Example(f"{n}", Document([f"item {n}"]), Label(f"label {n % 3}"), group=f"group {n % groups}")
        for n in range(count)
    ]
    return ProbeTask("made up", "", items)


@pytest.mark.parametrize("kind", ["linear", "knn"])
def test_a_probe_finds_what_is_there_and_nothing_where_nothing_is(kind):
    made = task(240, 60)
    rng = np.random.default_rng(0)
    labels = np.array([int(label[-1]) for label in made.targets])
    noise = rng.standard_normal((240, 8)).astype(np.float32)
    signal = noise.copy()
    signal[:, :3] += 4 * np.eye(3)[labels]
    found = probe({"noise": noise, "signal": signal}, made, kind)
    assert found.accuracy.value > 0.95
    assert set(found.features) == {"signal"}, "the better features are chosen, inside the training part"
    nothing = probe({"noise": noise}, made, kind)
    assert nothing.accuracy.low < 1 / 3 < nothing.accuracy.high
    assert majority(made).accuracy.value < 0.5


def test_both_probes_are_named():
    made = task(60, 30)
    features = {"one-hot": np.eye(3, dtype=np.float32)[[int(label[-1]) for label in made.targets]]}
    found = both_probes(features, made)
    assert list(found) == ["linear", "neighbours"]
    assert all(each.accuracy.value == 1 for each in found.values())


class OneHot:
    """A model whose vectors are the number in the text."""

    def embed(self, documents, batch_size=64, *, progress=None):
        numbers = [int(str(document.parts[0]).split()[-1]) % 3 for document in documents]
        return torch.eye(3)[numbers]


def test_labels_follow_from_embeddings_and_the_support():
    made = task(60, 30)
    predictions = classify_embeddings(OneHot(), made, made.items[:30], made.items[30:])
    assert [p.answer for p in predictions] == made.targets[30:]
    assert sum(predictions[0].scores) == pytest.approx(1)
    with pytest.raises(UserError, match="two or more labels"):
        classify_embeddings(OneHot(), made, made.items[:1], made.items[30:])


def test_two_examples_are_enough_for_a_classifier_on_embeddings():
    made = task(60, 30)
    pair = [made.items[0], next(item for item in made.items if item.target != made.items[0].target)]
    predictions = classify_embeddings(OneHot(), made, pair, pair)
    assert [p.answer for p in predictions] == [item.target.name for item in pair]


def test_baselines_see_what_they_should():
    bag = bag_of_words(["a red fox", "the red dog", "dog"])
    assert bag.tolist() == [[0, 1], [1, 1], [1, 0]], "words of two texts at least: dog, red"
    assert bag_of_words(["a fox", "!"]).tolist() == [[0], [0]]
    tone = np.sin(2 * np.pi * 1000 * np.arange(16_000) / 16_000)
    quiet = 0.001 * np.random.default_rng(0).standard_normal(16_000)
    spectrum = log_mel(np.concatenate([quiet, tone + quiet]).astype(np.float32))
    assert spectrum.shape == (198, 40)
    rise = spectrum[150] - spectrum[50]
    assert 10 <= rise.argmax() <= 16, "1,000 Hz lies in the thirteenth or fourteenth of 40 bands up to 8 kHz"
    assert raw_features([Document(["one fox"]), Document(["two fox"])])["bag of words"].shape == (2, 1)


@pytest.fixture
def model(tmp_path):
    torch.manual_seed(0)
    built = recipe("v2", "image").build()
    built.save(tmp_path / "model")
    return tmp_path / "model"


@pytest.fixture
def labelled(tmp_path):
    folder = tmp_path / "pictures"
    folder.mkdir()
    rng = np.random.default_rng(0)
    rows = []
    for n in range(40):
        noise = rng.normal(0, 30, (16, 16, 3)) + ((200, 40, 40) if n % 2 else (40, 40, 200))
        Pillow.fromarray(noise.clip(0, 255).astype(np.uint8)).save(folder / f"{n:02}.png")
        rows.append({"image": f"{n:02}.png", "label": "red" if n % 2 else "blue"})
    (folder / "labels.jsonl").write_text("\n".join(map(json.dumps, rows)))
    return folder


def test_probe_on_a_users_file(model, labelled, capsys):
    assert main(["probe", str(model), "--task", str(labelled / "labels.jsonl"), "--baselines", "--json"]) == 0
    shown = json.loads(capsys.readouterr().out)
    assert shown["n"] == 40
    assert set(shown["rows"]) == {str(model), "pixels, 16 x 16", "most frequent label"}
    assert shown["rows"]["pixels, 16 x 16"]["linear"]["figures"]["accuracy"]["value"] > 0.9
    assert main(["probe", str(model), "--task", str(labelled / "labels.jsonl")]) == 0
    assert "nearest" in capsys.readouterr().out
    assert main(["probe", str(model), "--task", "nothing"]) == 2
    error = capsys.readouterr().err
    assert "no task 'nothing'" in error
    assert "emoji-name-groups" in error


def test_embed_writes_a_table(model, labelled, tmp_path, capsys):
    out = tmp_path / "vectors.parquet"
    assert main(["embed", str(model), str(labelled), "-o", str(out)]) == 0
    table = pyarrow.parquet.read_table(out)
    assert table.column_names == ["name", "vector"]
    assert table["name"][0].as_py().endswith("00.png")
    vectors = np.stack(table["vector"].to_numpy(zero_copy_only=False))
    assert vectors.shape == (40, 16)
    assert main(["embed", str(model), str(labelled / "03.png"), "-o", str(out), "--batch-size", "1"]) == 0
    alone = np.stack(pyarrow.parquet.read_table(out)["vector"].to_numpy(zero_copy_only=False))
    assert np.allclose(alone[0], vectors[3], atol=1e-5)
    (labelled / "broken.png").write_bytes(b"no picture")
    assert main(["embed", str(model), str(labelled), "-o", str(tmp_path / "none.parquet")]) == 2
    assert "broken.png" in capsys.readouterr().err
    assert not (tmp_path / "none.parquet").exists()
    assert (
        main(["embed", str(model), str(labelled), "-o", str(tmp_path / "no" / "x.parquet"), "--skip-bad-records"]) == 2
    )
    assert "there is no folder" in capsys.readouterr().err
