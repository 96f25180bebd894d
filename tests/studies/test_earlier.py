"""The comparison with earlier systems: equal conditions, choices on held-out examples, and its table."""

import json
from dataclasses import replace

import numpy as np
import pytest

from vislang.data.sources import load_source
from vislang.document import Document, Image
from vislang.example import Example, Text
from vislang.metrics.figure import figures_as_json, share
from vislang.recipe import read_recipe
from vislang.studies import earlier
from vislang.studies.arms import Arm
from vislang.studies.earlier import SETS, Budget, Compared, chance, choose, run, unseen
from vislang.studies.results import Results
from vislang.tasks.catalogue import open_task

RECIPE = """model:
  class_path: vislang.models.earlier.dfaf.DFAFRecipe
  init_args:
    network:
      text: {{vocabulary_size: 60, max_length: 16, width: 12}}
      recurrent_width: 16
      width: 16
      heads: 2
      mlp_width: 16
    regions: {{tower: {tower}, image_size: 0}}
data: {data}
hold_out: 0.25
train: {{batch_size: 8, checkpoint_every: 1000}}
"""


def test_every_arm_is_a_recipe_that_can_be_read_and_trains_as_long_as_the_others(tmp_path):
    budget = Budget(1.5, (1e-3,), tmp_path)
    arms = {arm.name: budget.arm(arm, 1e-3) for compared in SETS for arm in compared.arms}
    starts = {arm.name: arm for arm in budget.pretraining()}
    assert {arm.start for arm in arms.values()} - {None} == starts.keys()
    for compared in SETS:
        assert f"{compared.name}, {compared.system}" in arms
    for arm in [*arms.values(), *starts.values()]:
        recipe, _ = read_recipe(arm.recipe, [*arm.changes, "--train.seed=1", "--train.eval_every=0"])
        assert (recipe.train.minutes, recipe.train.steps) == (1.5, None)
        # Test examples are not read by a run.
        assert (recipe.evaluate, recipe.eval_data, recipe.hold_out) == ([], None, earlier.HELD_OUT)


def test_all_vilberts_of_a_set_have_the_shape_of_the_pretrained_one():
    shape = read_recipe(earlier.PRETRAINING[0].recipe, earlier.PRETRAINING[0].changes)[0].model.streams
    for compared in SETS:
        for arm in compared.arms:
            if arm.name.endswith("two streams"):
                streams = read_recipe(arm.recipe, arm.changes)[0].model.streams
                assert streams.text.width == shape.text.width == 128
                assert (streams.text, streams.vision.width) == (shape.text, shape.vision.width) or (
                    streams.text.dropout == 0.0
                )
                assert streams.co_attention_layers == shape.co_attention_layers


def test_the_deeper_vilberts_of_a_set_differ_in_their_co_attention_layers_only():
    for compared in SETS:
        by_name = {arm.name: read_recipe(arm.recipe, arm.changes)[0].model.streams for arm in compared.arms[1:]}
        (two,) = (streams for name, streams in by_name.items() if name.endswith("two streams"))
        deeper = [streams for name, streams in by_name.items() if name.endswith("co-attention layers")]
        assert [len(streams.co_attention_layers) for streams in deeper] == [4, 6, 8]
        for streams in deeper:
            assert replace(streams.vision, depth=2) == two.vision
            assert replace(streams.text, depth=4) == two.text


@pytest.fixture
def compared(towers, pictures, tmp_path) -> Compared:
    """Questions about pictures; every fourth is a test question."""
    (tmp_path / "tiny.yaml").write_text(RECIPE.format(tower=towers[1], data=pictures / "my.jsonl"))
    lines = (pictures / "my.jsonl").read_text().splitlines()
    (pictures / "test.jsonl").write_text("\n".join(lines[::4]) + "\n")
    (pictures / "my.jsonl").write_text("\n".join(line for n, line in enumerate(lines) if n % 4) + "\n")

    def examples(name):
        return lambda: (open_task(str(pictures / name)), load_source(str(pictures / name)))

    return Compared(
        "easy-vqa",
        "DFAF",
        ("accuracy",),
        (Arm("easy-vqa, DFAF", tmp_path / "tiny.yaml"),),
        examples("my.jsonl"),
        {"test": examples("test.jsonl")},
        lambda: load_source(str(pictures / "my.jsonl")),
        unseen,
        "the image",
    )


def test_a_set_is_trained_chosen_and_scored_once(compared, tmp_path, monkeypatch):
    monkeypatch.setattr(earlier, "PRETRAINING", ())
    budget = Budget(0.02, (1e-5, 1e-2), tmp_path / "runs")
    run([3], budget, tmp_path / "out", [compared])
    rows = json.loads((tmp_path / "out" / "results.json").read_text())["rows"]
    validated = {row["rate"]: row["figures"]["accuracy"]["value"] for row in rows if row["test"] == "validation"}
    assert validated.keys() == {1e-5, 1e-2}
    (tested,) = (row for row in rows if row["arm"] == "DFAF" and row["test"] == "test")
    assert tested["rate"] == max(validated, key=validated.get)
    assert tested["steps"] > 0
    assert tested["parameters"] > 1000
    arms = {row["arm"] for row in rows if row["test"] == "test"}
    assert {"DFAF", "DFAF, without the image", "most frequent answer", "chance"} <= arms
    table = (tmp_path / "out" / "table.md").read_text()
    assert table == earlier.markdown(rows)
    assert table.startswith("| easy-vqa, test | ")

    def never(*_):
        raise AssertionError("a finished measurement is repeated")

    monkeypatch.setattr(earlier, "trained", never)
    run([3], budget, tmp_path / "out", [compared])


def test_a_rate_is_chosen_by_the_first_seed(compared, tmp_path, monkeypatch):
    monkeypatch.setattr(earlier, "trained", lambda *_: pytest.fail("it is known"))
    results = Results(tmp_path)
    for rate, hits in ((1e-3, 5), (1e-2, 7), (1e-1, 6)):
        keys = {"set": "easy-vqa", "test": "validation", "arm": "DFAF", "seed": 0, "rate": rate}
        results.add({**keys, "figures": figures_as_json({"accuracy": share(hits, 10)})})
    budget = Budget(1.0, (1e-3, 1e-2, 1e-1), tmp_path)
    assert choose(compared, compared.arms[0], 0, budget, results) == 1e-2


def test_the_recalls_of_chance():
    pairs = [Example(str(n), Document([Image(bytes([n]))]), Text((f"a {n}", f"b {n}"))) for n in range(8)]
    found = chance(pairs)["chance"]
    # One image of 8 for each text. Of 16 texts two are right: both are missed by the first five with 11/16 x 10/15.
    assert found["recall_at_1_text_to_image"].value == pytest.approx(1 / 8)
    assert found["recall_at_1_image_to_text"].value == pytest.approx(2 / 16)
    assert found["recall_at_5_image_to_text"].value == pytest.approx(1 - 11 / 16 * 10 / 15)


def test_an_unseen_image_is_grey():
    example = Example("0", Document([Image(b"x"), "what is it?"]), None)
    image, text = unseen(example).prompt.parts
    assert text == "what is it?"
    assert np.asarray(image.decode()).std() == 0
