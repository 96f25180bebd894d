"""The table of tasks times models: its page, and what depends on how a model was built."""

from dataclasses import replace

import pytest

from tests import tasks_page, tiny
from tests.evaluate import cells
from tests.models.test_pretraining import recipe as data2vec_recipe
from vislang.evaluate.evaluation import evaluate
from vislang.evaluate.ways import cell
from vislang.tasks.catalogue import TASKS


@pytest.fixture(scope="module")
def columns():
    return tasks_page.models()


def test_the_page_of_the_docs_is_what_the_models_say(columns):
    """If this fails, ``python -m tests.tasks_page`` writes the page anew."""
    assert tasks_page.PAGE.read_text(encoding="utf-8") == tasks_page.page(columns)


def test_what_a_model_was_trained_to_read_decides(towers):
    assert "trained on images only" in cell(tiny.flamingo(towers), TASKS["easy-vqa-films"]).why_not
    assert cell(tiny.flamingo(towers, frames=4), TASKS["easy-vqa-films"]).way == "generate"
    speech = data2vec_recipe("v2", "speech").build()
    for name in ("spoken-letters", "spoken-stamps-fr"):
        assert cell(speech, TASKS[name]).way == "embed"


def test_a_vilbert_reads_so_many_images_of_a_path(models, tasks):
    model = models["vilbert"]
    assert cell(model, TASKS["r2r"]).way == "decide"
    assert model.why_undecided("choice", images=9) == "was built for 8 images together, and this task shows 9"
    # What has no head for so many compares them one by one; a head that compares two reads neither one nor three.
    assert cell(model, replace(TASKS["r2r"], images=9)).way == "match"
    assert cell(model, TASKS["nlvr2"]).way == "decide"
    for images in (1, 3):
        assert cell(model, replace(TASKS["nlvr2"], images=images)).way == "match"


@pytest.mark.parametrize("name", ["vcr", "r2r", "nlvr2", "snli-ve", "hateful-memes", "mvsa", "retrieval", "captions"])
def test_a_pretrained_vilbert_matches(columns, tasks, name):
    """By its head for alignment, without a head for any task."""
    model, task = columns["ViLBERT, pretrained"], tasks[name]
    examples = cells.asked(task)
    found = evaluate(model, task, examples, task.support())
    assert found.way == cell(model, TASKS[name]).way == "match"
    assert found.figures.keys() == task.score(examples, found.predictions).keys()
    first = found.predictions[0]
    if name in ("vcr", "r2r", "nlvr2", "snli-ve"):
        assert len({round(score, 6) for score in first.scores}) > 1
        assert first.answer == first.candidates[first.scores.index(max(first.scores))]
