"""ViLBERT's studies: arms that are trained once, figures by kind of expression, and the baseline of words."""

import numpy as np
import pytest

from vislang.boxes import Box
from vislang.document import Document, Image
from vislang.example import Example, Prediction, Text
from vislang.metrics.figure import figures_as_json, share
from vislang.studies import arms, grounding, retrieval, tower
from vislang.studies.arms import Arm
from vislang.tasks.task import ReadTask


def test_an_arm_is_trained_once_from_the_arm_that_it_starts_with(monkeypatch, tmp_path):
    ran = []

    def run(recipe, values, folder, resume, report):
        ran.append((folder.name, recipe, resume))
        folder.mkdir(parents=True, exist_ok=True)
        (folder / "metrics.json").write_text("{}")
        return object()

    monkeypatch.setattr(arms, "run_recipe", run)
    monkeypatch.setattr(arms, "read_recipe", lambda path, changes: (changes, {}))
    first, second = (
        Arm("plain, first", tmp_path / "a.yaml"),
        Arm("second", tmp_path / "b.yaml", ("--x=1",), "plain, first"),
    )
    # An interrupted run is resumed.
    (tmp_path / "runs" / "plain-first-3").mkdir(parents=True)
    (tmp_path / "runs" / "plain-first-3" / "run.json").write_text("{}")
    folder = arms.trained(second, [first, second], 3, tmp_path / "runs")
    assert folder == tmp_path / "runs" / "second-3"
    assert [(name, resume) for name, _, resume in ran] == [("plain-first-3", True), ("second-3", False)]
    start = tmp_path / "runs" / "plain-first-3" / "model"
    assert ran[1][1] == ["--x=1", "--train.seed=3", "--train.eval_every=0", f"--model.start_from={start}"]
    arms.trained(second, [first, second], 3, tmp_path / "runs")
    assert len(ran) == 2


def test_an_interrupted_arm_stops_the_study(monkeypatch, tmp_path):
    monkeypatch.setattr(arms, "run_recipe", lambda *_, **__: None)
    monkeypatch.setattr(arms, "read_recipe", lambda path, changes: (changes, {}))
    arm = Arm("one", tmp_path / "a.yaml")
    with pytest.raises(KeyboardInterrupt):
        arms.trained(arm, [arm], 0, tmp_path)


def test_every_arm_of_the_studies_is_a_recipe_that_can_be_read():
    from vislang.recipe import read_recipe
    from vislang.studies import in_context, mixing

    for study in (grounding, in_context, mixing, retrieval):
        for arm in study.ARMS:
            read_recipe(arm.recipe, [*arm.changes, "--train.seed=1"])


def expression(kind, number):
    prompt = Document([Image(b"x"), "the left one"], name=f"{kind} {number}")
    return Example(f"{kind} {number}", prompt, Box(0.0, 0.0, 10.0, 10.0))


def test_expressions_are_counted_by_kind():
    examples = [expression("name", 0), expression("name", 1), expression("place", 2)]
    boxes = ((0.0, 0.0, 9.0, 10.0), (20.0, 0.0, 30.0, 10.0), (0.0, 0.0, 10.0, 10.0))
    predictions = [Prediction(example.id, Box(*box)) for example, box in zip(examples, boxes, strict=True)]
    task = ReadTask("scenes", "", "box", {"image", "text"}, {}, "test")
    found = grounding.by_kind(task, examples, predictions)
    assert {kind: (figure.value, figure.n) for kind, figure in found.items()} == {
        "all": (pytest.approx(2 / 3), 3),
        "name": (0.5, 2),
        "position": (1.0, 1),
    }
    rows = [
        {"test": "t", "arm": arm, "seed": seed, "kind": kind, "figures": figures_as_json({"accuracy": share(n, 10)})}
        for arm, seed, kind, n in (("a", 0, "all", 4), ("a", 1, "all", 6), ("b", 0, "all", 1))
    ]
    table = grounding.markdown(rows).splitlines()
    assert table[0] == "| t | all (10) |"
    assert table[2].startswith("| a | 50.0 (")
    assert "seeds 40.0 to 60.0" in table[2]


def test_without_its_text_every_expression_reads_the_same():
    one, other = (grounding.without_text(expression(kind, 0)) for kind in ("name", "colour"))
    assert one.prompt.parts == other.prompt.parts
    assert [type(part) for part in one.prompt.parts] == [Image, str]
    assert one.target == Box(0.0, 0.0, 10.0, 10.0)


def test_words_predicted_by_a_linear_map_find_their_image(monkeypatch, towers, pictures):
    from vislang.models.towers.vision import load_vision_tower

    monkeypatch.setattr(tower, "load_vision_tower", lambda name, size: load_vision_tower(towers[1]))
    pairs = [
        Example(str(n), Document([Image(pictures / f"{n}.png")]), Text(("a blue one" if n % 2 else "a red one",)))
        for n in range(24)
    ]
    scores = retrieval.by_words(pairs, pairs[:2])
    assert scores.shape == (2, 2)
    assert np.array_equal(scores.argmax(axis=1), [0, 1])
