"""ViLBERT's studies: arms that are trained once, figures by kind, and the baseline of words."""

import numpy as np
import pytest

from vislang.case import Case, Decision, Place
from vislang.document import Document, Image
from vislang.studies import arms, grounding, retrieval
from vislang.studies.arms import Arm


def test_an_arm_is_trained_once_from_the_arm_that_it_starts_with(monkeypatch, tmp_path):
    ran = []

    def run(recipe, values, folder, resume):
        ran.append((folder.name, recipe, resume))
        folder.mkdir(parents=True)
        (folder / "metrics.json").write_text("{}")
        return object()

    monkeypatch.setattr(arms, "run_recipe", run)
    monkeypatch.setattr(arms, "read_recipe", lambda path, changes: (changes, {}))
    first, second = (
        Arm("plain, first", tmp_path / "a.yaml"),
        Arm("second", tmp_path / "b.yaml", ("--x=1",), "plain, first"),
    )
    folder = arms.trained(second, [first, second], 3, tmp_path / "runs")
    assert folder == tmp_path / "runs" / "second-3"
    assert [name for name, _, _ in ran] == ["plain-first-3", "second-3"]
    start = tmp_path / "runs" / "plain-first-3" / "model"
    assert ran[1][1] == ["--x=1", "--train.seed=3", "--train.eval_every=0", f"--model.start_from={start}"]
    arms.trained(second, [first, second], 3, tmp_path / "runs")
    assert len(ran) == 2


def test_expressions_are_counted_by_kind():
    def case(kind, number):
        return Case("x", (Document([Image(b"x"), "y"]),), Place(0.0, 0.0, 10.0, 10.0), id=f"{kind} {number}")

    cases = [case("name", 0), case("name", 1), case("place", 2)]
    decisions = [
        Decision(Place(*box)) for box in ((0.0, 0.0, 9.0, 10.0), (20.0, 0.0, 30.0, 10.0), (0.0, 0.0, 10.0, 10.0))
    ]
    found = grounding.by_kind(cases, decisions)
    assert {kind: (figure.value, figure.n) for kind, figure in found.items()} == {
        "all": (pytest.approx(2 / 3), 3),
        "name": (0.5, 2),
        "place": (1.0, 1),
    }
    rows = [
        {"test": "t", "who": who, "seed": seed, "kind": kind, "right": right, "items": 10}
        for who, seed, kind, right in (("a", 0, "all", 4), ("a", 1, "all", 6), ("b", 0, "all", 1))
    ]
    table = grounding.markdown(rows).splitlines()
    assert table[0] == "| t | all (10) |"
    assert table[2].startswith("| a | 50.0 (")
    assert "seeds 40.0 to 60.0" in table[2]


def test_words_read_off_a_linear_map_find_their_picture(monkeypatch, tmp_path, towers, pictures):
    from vislang.models.towers.vision import load_vision_tower

    monkeypatch.setattr(retrieval, "load_vision_tower", lambda name, size: load_vision_tower(towers[1]))
    pairs = [Document([Image(pictures / f"{n}.png"), "a blue one" if n % 2 else "a red one"]) for n in range(24)]
    collection = retrieval.of_documents([pairs[0], pairs[1]])
    scores = retrieval.by_words(pairs, collection)
    assert scores.shape == (2, 2)
    assert np.array_equal(scores.argmax(axis=1), [0, 1])
