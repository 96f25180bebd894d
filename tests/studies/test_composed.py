"""The baselines of composed sets find what can be had: a leak in words, the kind of a picture, the order of a path."""

import json
import random

import numpy as np
import pytest

from tests.data.composed import COLOURS, lay_out_things
from vislang.data.sets import moods, reasons, walks
from vislang.document import Document
from vislang.example import Choice, Example
from vislang.metrics.figure import figures_as_json, share
from vislang.studies import composed
from vislang.studies.composed import (
    METRICS,
    Read,
    first_groups,
    markdown,
    of_moods,
    of_reasons,
    of_walks,
    said,
    words_alone,
)


class Colours(Read):
    """A set whose features are the colour in the middle of an image, and products of its channels."""

    def vector(self, image):
        picture = image.decode()
        middle = np.array(picture.getpixel((picture.width // 2, picture.height // 2))) / 255
        return np.concatenate([middle, np.outer(middle, middle).ravel()])


@pytest.fixture(autouse=True)
def small(monkeypatch):
    lay_out_things()
    monkeypatch.setattr(walks, "MAPS", {"train": 6, "val": 1, "test": 3})
    monkeypatch.setattr(walks, "PATHS", 4)
    monkeypatch.setattr(moods, "POSTS", {"train": 240, "val": 20, "test": 50})
    monkeypatch.setattr(reasons, "SCENES", {"train": 4, "val": 1, "test": 5})


def accuracy(read, answers):
    return np.mean([own == composed._answer(example) for own, example in zip(answers, read.test, strict=True)])


def choices(count, right):
    """Questions with four choices, of which the right one ends in ``right``."""
    made = []
    for number in range(count):
        rng = random.Random(number)
        index = rng.randrange(4)
        texts = [f"the thing {rng.randrange(30)}" + (right if own == index else "") for own in range(4)]
        prompt = Document(["what is it ?"])
        made.append(Example(str(number), prompt, Choice(index), tuple(Document([text]) for text in texts)))
    return made


def test_words_that_tell_the_answer_are_found():
    for right, low, high in ((" yes", 1.0, 1.0), ("", 0.05, 0.5)):
        examples = choices(90, right)
        found = words_alone(examples[:40], examples[40:50], examples[50:])
        share_right = np.mean([own == e.target.index for own, e in zip(found, examples[50:], strict=True)])
        assert low <= share_right <= high


def test_the_order_of_things_is_read_from_images_that_show_their_kinds():
    read = Colours(walks.NAME, 128)
    found = of_walks(read)
    exact, last = accuracy(read, found["things in their order"]), accuracy(read, found["last thing"])
    assert exact > 0.8
    assert exact > last > 1 / 6
    assert accuracy(read, found["images alone, without the instruction"]) < 0.5


class Shown(Read):
    """Posts whose features are the kind of the thing, by its colour above the middle, and how much red there is."""

    def vector(self, image):
        pixels = np.asarray(image.decode(), dtype=float)
        kinds = np.abs(np.array(list(COLOURS.values())) - pixels[28, 48]).sum(axis=1)
        red = (np.abs(pixels - moods.RED).sum(axis=2) < 60).mean()
        return np.array([*(kinds == kinds.min()), 20 * red], dtype=float)


def test_moods_are_solved_by_features_that_show_kind_and_sign_together(tmp_path, monkeypatch):
    read = Shown(moods.NAME, 96)
    found = of_moods(read)
    assert accuracy(read, found.pop("kind and sign")) > 0.9
    for answers in found.values():
        assert set(answers) <= set(moods.LABELS)
        assert accuracy(read, answers) < 0.6
    # A set that is measured again replaces its rows.
    monkeypatch.setattr(composed, "Read", lambda *_: read)
    for _ in range(2):
        composed.run(tmp_path, sets=[moods.NAME])
    rows = json.loads((tmp_path / "results.json").read_text())["rows"]
    assert [row["baseline"] for row in rows] == ["most frequent label", *found, "kind and sign"]
    assert (tmp_path / "table.md").read_text() == markdown(rows)


def test_words_are_understood():
    assert said("the sports gear always makes my day") == ("sports gear", True)
    assert said("how I hate the bird") == ("bird", False)
    with pytest.raises(ValueError, match="is not one of the wordings"):
        said("fine")


def test_scenes_have_a_choice_for_each_question_from_each_baseline():
    read = Colours(reasons.NAME, 256)
    found = of_reasons(read)
    assert set(found) == {"longest choice", "words alone", "image alone, without the question", "most similar images"}
    for answers in found.values():
        assert len(answers) == 5 * 3 * 2
        assert set(answers) <= set(range(4))


def test_a_share_is_one_of_groups():
    examples = [Example(str(n), Document(["x"]), group=str(n // 2)) for n in range(8)]
    assert first_groups(examples, 0.5) == examples[:4]
    assert first_groups(examples, 1.0) == examples


def test_a_table_has_each_set_with_its_metrics():
    rows = [
        {"set": name, "baseline": "chance", "figures": figures_as_json({metrics[0]: share(1, 4)})}
        for name, metrics in METRICS.items()
    ]
    table = markdown(rows)
    assert table.count("| chance | 25.0 (4.6 to 69.9) |  |  |") == 3
    assert table.startswith("| scene-reasons | Q→A | QA→R | Q→AR |\n|---|---|---|---|\n")


def test_pictures_in_two_splits_are_counted():
    """In the packages of the test all pictures of a kind are equal, and people are."""
    assert composed.shared_pictures() == len(composed.KINDS) + 1
