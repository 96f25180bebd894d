"""Probes: splits that keep groups together, choices made inside the training part, figures that a hand can check."""

import json

import numpy as np
import pyarrow.parquet
import pytest
import torch
from PIL import Image as Pillow
from vislang.evaluate.probing import majority, probe

from tests.models.test_pretraining import recipe
from vislang.cli import main
from vislang.document import Document
from vislang.evaluate.baselines import bag_of_words, log_mel, raw_features
from vislang.tasks.probes import Item, Probe


def task(count: int = 120, groups: int = 30, **more) -> Probe:
    items = [Item(Document([f"item {n}"]), f"label {n % 3}", f"group {n % groups}") for n in range(count)]
    return Probe("made up", items, **more)


def test_no_group_is_on_both_sides_and_all_items_are_tested_once():
    made = task()
    tested: list[int] = []
    for train, test in made.folds():
        group = {made.items[n].group for n in test}
        assert not group & {made.items[n].group for n in train}
        inner_train, inner_test = made.inner(train)
        assert sorted([*inner_train, *inner_test]) == sorted(train)
        assert not {made.items[n].group for n in inner_test} & {made.items[n].group for n in inner_train}
        tested += test.tolist()
    assert sorted(tested) == list(range(120))


def test_items_are_only_on_the_sides_that_they_may_be_on():
    items = [Item(Document(["x"]), "a", f"{n // 2}", n % 2 == 0, n % 2 == 1) for n in range(60)]
    for train, test in Probe("sides", items).folds():
        assert (train % 2 == 0).all()
        assert (test % 2 == 1).all()


def test_each_group_can_be_a_fold():
    folds = list(task(groups=6, by_group=True).folds())
    assert len(folds) == 6
    assert all(len(test) == 20 for _, test in folds)


@pytest.mark.parametrize("kind", ["linear", "knn"])
def test_a_probe_finds_what_is_there_and_nothing_where_nothing_is(kind):
    made = task(240, 60)
    chance = np.random.default_rng(0)
    labels = np.array([int(item.label[-1]) for item in made.items])
    noise = chance.standard_normal((240, 8)).astype(np.float32)
    signal = noise.copy()
    signal[:, :3] += 4 * np.eye(3)[labels]
    found = probe({"noise": noise, "signal": signal}, made, kind)
    assert found.accuracy.value > 0.95
    assert set(found.features) == {"signal"}, "the better features are chosen, inside the training part"
    nothing = probe({"noise": noise}, made, kind)
    assert nothing.accuracy.low < 1 / 3 < nothing.accuracy.high
    assert majority(made).accuracy.value < 0.5


def test_baselines_see_what_they_should():
    bag = bag_of_words(["a red fox", "the red dog", "dog"])
    assert bag.tolist() == [[0, 1], [1, 1], [1, 0]], "words of two texts at least: dog, red"
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
    chance = np.random.default_rng(0)
    rows = []
    for n in range(40):
        noise = chance.normal(0, 30, (16, 16, 3)) + ((200, 40, 40) if n % 2 else (40, 40, 200))
        Pillow.fromarray(noise.clip(0, 255).astype(np.uint8)).save(folder / f"{n:02}.png")
        rows.append({"image": f"{n:02}.png", "label": "red" if n % 2 else "blue"})
    (folder / "labels.jsonl").write_text("\n".join(map(json.dumps, rows)))
    return folder


def test_probe_on_a_users_file(model, labelled, capsys):
    assert main(["probe", str(model), "--task", str(labelled / "labels.jsonl"), "--baselines", "--json"]) == 0
    shown = json.loads(capsys.readouterr().out)
    assert shown["n"] == 40
    assert set(shown["rows"]) == {str(model), "pixels, 16 x 16", "most frequent label"}
    assert shown["rows"]["pixels, 16 x 16"]["linear"]["accuracy"] > 0.9
    assert main(["probe", str(model), "--task", str(labelled / "labels.jsonl")]) == 0
    assert "nearest" in capsys.readouterr().out
    assert main(["probe", str(model), "--task", "nothing"]) == 2
    assert "the probes are: emoji-groups" in capsys.readouterr().err


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
