"""Models of three kinds answer the composed sets and the translations, each in its own way."""

import pytest

from tests.data.composed import lay_out_things, png
from tests.data.test_fetch import lay_out
from tests.tasks.families.models import MODELS
from vislang.data.fetch import STAMPS
from vislang.data.sets import moods, reasons, walks
from vislang.evaluate.evaluation import evaluate
from vislang.tasks.catalogue import open_task
from vislang.tasks.composed import COMPOSED


@pytest.fixture
def few(monkeypatch):
    lay_out_things()
    monkeypatch.setattr(reasons, "SCENES", {"train": 1, "val": 1, "test": 1})
    monkeypatch.setattr(walks, "MAPS", {"train": 1, "val": 1, "test": 1})
    monkeypatch.setattr(walks, "PATHS", 1)
    monkeypatch.setattr(moods, "POSTS", {"train": 20, "val": 1, "test": 3})


@pytest.mark.filterwarnings("ignore:texts of more than")
@pytest.mark.parametrize("name", COMPOSED)
@pytest.mark.parametrize(("model", "way"), [("flamingo", "rank"), ("dual encoder", "match"), ("vilbert", "decide")])
def test_a_composed_set_is_answered(name, model, way, few, towers, tmp_path):
    task = open_task(name)
    examples = task.examples("test")
    built = MODELS[model](towers, task, tmp_path)
    found = evaluate(built, task, examples, task.support(), with_blind=False, with_perplexity=False)
    assert found.way == way
    assert [p.id for p in found.predictions] == task.ids(examples)
    assert set(task.metrics) <= found.figures.keys()


@pytest.mark.parametrize("arm", ["", "-text", "-image"])
def test_a_translation_is_generated_from_each_arm(arm, towers, tmp_path):
    folder = "tuxpaint-stamps-default/usr/share/tuxpaint/stamps/food"
    files = {f"{folder}/{n}.txt": f"Fruit {n}.\nde.utf8=Obst {n}." for n in range(12)}
    lay_out(STAMPS, {**files, **{f"{folder}/{n}.png": png((n, 0, 0)) for n in range(12)}})
    task = open_task(f"stamp-translation{arm}")
    examples = task.examples("test")[:2]
    found = evaluate(MODELS["flamingo"](towers, task, tmp_path), task, examples, with_blind=False)
    assert found.way == "generate"
    prompt = found.predictions[0].prompt
    assert ("<image" in prompt, "Fruit" in prompt) == (arm != "-text", arm != "-image")
    assert "German" in prompt
    assert {"chrf", "bleu"} <= found.figures.keys()
