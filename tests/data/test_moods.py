"""Posts whose label follows from the words and the picture together, and from neither alone."""

import random
from collections import Counter

import numpy as np
import pytest

from tests.data.composed import COLOURS, lay_out_things
from vislang.data.sets import moods
from vislang.data.sets.moods import LABELS, new_post, picture_of
from vislang.data.sets.things import Things
from vislang.data.sources import load_source
from vislang.example import Label, Prediction
from vislang.studies.composed import said
from vislang.tasks.catalogue import open_task


def test_labels_follow_from_the_rules():
    for number in range(300):
        post = new_post(random.Random(number))
        about, liked = said(post.text)
        expected = "neutral" if about != post.kind else "positive" if liked != post.gone else "negative"
        assert post.label == expected


def test_neither_side_tells_the_label():
    """Shares of 6,000 posts; the bounds are four standard deviations."""
    posts = [new_post(random.Random(number)) for number in range(6000)]
    told = [said(post.text) for post in posts]
    sides = ([liked for _, liked in told], [kind for kind, _ in told], [p.gone for p in posts], [p.kind for p in posts])
    for own in sides:
        seen, labels = Counter(own), Counter(zip(own, (post.label for post in posts), strict=True))
        for side, n in seen.items():
            for label in LABELS:
                assert abs(labels[side, label] / n - 1 / 3) < 4 * np.sqrt(2 / 9 / n), (side, label)


@pytest.fixture
def few(monkeypatch):
    lay_out_things()
    monkeypatch.setattr(moods, "POSTS", {"train": 6, "val": 2, "test": 6})


def test_a_thing_that_is_gone_is_crossed_out(few):
    things = Things("train")
    for number in range(12):
        rng = random.Random(number)
        post = new_post(rng)
        pixels = np.asarray(picture_of(post, things, rng)).reshape(-1, 3)
        assert bool((pixels == moods.RED).all(axis=1).any()) == post.gone
        assert (pixels == COLOURS[post.kind]).all(axis=1).sum() > 1000


def test_the_set_is_read_and_scored_as_mvsa_is(few):
    task = open_task(moods.NAME)
    examples = task.examples("test")
    assert examples == load_source(moods.NAME, "test")
    assert (task.splits, task.default_split, task.support_split) == (("test", "train", "val"), "test", "train")
    assert task.labels == LABELS
    first = examples[0]
    assert first.id == "test-0"
    assert first.target == Label(first.target.name)
    assert first.media[0].decode().size == (moods.SIDE, moods.SIDE)
    right = [Prediction(example.id, example.target.name) for example in examples]
    assert {name: figure.value for name, figure in task.score(examples, right).items()} == {
        "accuracy": 1.0,
        "weighted_f1": 1.0,
        "macro_f1": 1.0,
    }
    assert 'Is the mood of this picture and its words, "{text}"' in first.wording.question
