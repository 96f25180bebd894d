"""Measures of studies: prompts with examples, guesses beside them, text without images, and models before training."""

import numpy as np
import pytest
import torch
from PIL import Image as Pillow

from tests import tiny
from tests.evaluate.test_few_shot import NAMES, Recording
from tests.studies.test_study import RECIPE
from vislang.data import sources
from vislang.document import Document, Image
from vislang.example import Example, Label
from vislang.models import loading
from vislang.models.loading import load
from vislang.recipe import read_recipe
from vislang.runs.run import run_recipe
from vislang.studies.measures import FewShot, MostSimilar, TextLoss
from vislang.studies.untrained import before_training
from vislang.tasks import catalogue
from vislang.tasks.task import ReadTask


@pytest.fixture
def prompted(tmp_path, monkeypatch) -> Recording:
    """A model whose answer is that of the last shot with the query's colour, and a task of naming colours."""
    read = {}
    for side, count in (("train", 30), ("test", 12)):
        own = []
        for number in range(count):
            colour = "rgb"[number % 3]
            path = tmp_path / side / f"{colour}-{number}.png"
            path.parent.mkdir(exist_ok=True)
            Pillow.new("RGB", (4, 4), {"r": (250, 0, 0), "g": (0, 250, 0), "b": (0, 0, 250)}[colour]).save(path)
            own.append(Example(f"{side} {number}", Document([Image(path)]), Label(NAMES[colour])))
        read[side] = lambda problems, progress, own=own: own
    model = Recording()
    task = ReadTask("colours", "", "label", {"image"}, read, "test", "train", tuple(NAMES.values()))
    monkeypatch.setattr(catalogue, "open_task", lambda name: {"colours": task}[name])
    monkeypatch.setattr(loading, "load", lambda folder: {tmp_path / "model": model}[folder])
    return model


def test_shots_are_retrieved_or_drawn_as_often_as_the_measure_says(prompted, tmp_path):
    retrieved = FewShot("colours", 2, "retrieved")(tmp_path)["accuracy"]
    assert (retrieved.value, retrieved.n) == (1.0, 12)
    prompted.sent.clear()
    drawn = FewShot("colours", 1, draws=3)(tmp_path)["accuracy"]
    assert len(prompted.sent) == 3 * 12
    # One shot names one of three colours; the model guesses "dax" for the others.
    assert 1 / 3 <= drawn.value < 1
    prompted.sent.clear()
    assert FewShot("colours", 1, limit=5)(tmp_path)["accuracy"].n == 5
    assert len(prompted.sent) == 5


def test_the_answer_of_the_most_similar_image_prompts_nothing(prompted, tmp_path):
    assert MostSimilar("colours")(tmp_path)["accuracy"].value == 1.0
    assert not prompted.sent


def test_the_loss_on_text_is_that_of_the_language_model_whatever_the_bridge_does(towers, tmp_path, monkeypatch):
    texts = ["a cat and dog . ? yes no", "the shape of a dog is red", "it is the image of a blue cat"]
    examples = [Example(text, Document([text])) for text in texts]
    monkeypatch.setattr(sources, "load_source", lambda name: {"english": examples}[name])
    model = tiny.flamingo(towers)
    model.save(tmp_path / "model")
    found = TextLoss(passages=3, characters=20)(tmp_path)["loss_per_token"]
    # The same by the language model alone.
    total, count = 0.0, 0
    for text in texts:
        ids = torch.tensor([model.tokenizer(text[:20])["input_ids"]])
        logits = model.bridge.lm.lm(input_ids=ids).logits[0, :-1].log_softmax(-1)
        total -= logits[range(ids.shape[1] - 1), ids[0, 1:]].sum().item()
        count += ids.shape[1] - 1
    assert found.value == pytest.approx(total / count, rel=1e-4)
    assert (found.n, found.low) == (3, None)


def test_a_model_before_training_has_the_initial_weights_of_its_seed(tmp_path):
    pictures = tmp_path / "pictures"
    pictures.mkdir()
    rng = np.random.default_rng(0)
    for number in range(8):
        Pillow.fromarray(rng.integers(0, 255, (16, 16, 3), dtype=np.uint8)).save(pictures / f"{number}.png")
    (tmp_path / "recipe.yaml").write_text(RECIPE.format(folder=pictures))
    recipe, values = read_recipe(tmp_path / "recipe.yaml", ["--train.seed=5"])
    assert run_recipe(recipe, values, tmp_path / "run", report=False) is not None
    torch.manual_seed(5)
    first = recipe.model.build().model.student.state_dict()
    built = before_training(tmp_path / "run").model.student.state_dict()
    trained = load(tmp_path / "run" / "model").student.state_dict()
    assert all(torch.equal(value, built[name]) for name, value in first.items())
    assert any(not torch.equal(value, trained[name]) for name, value in first.items())
