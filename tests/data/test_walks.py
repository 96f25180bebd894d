"""Walks on maps: candidates that only the instruction tells apart, in R2R's format."""

import random
from collections import Counter
from itertools import pairwise

import numpy as np
import pytest

from tests.data.composed import COLOURS, lay_out_things
from vislang.data.sets import walks
from vislang.data.sets.walks import ACROSS, CANDIDATES, STEPS, choice_of_walks, kinds_of, new_map
from vislang.data.sources import load_source
from vislang.example import Prediction
from vislang.studies.composed import described
from vislang.tasks.catalogue import open_task


def test_candidates_are_walks_from_one_start_that_end_and_look_differently():
    for number in range(10):
        rng = random.Random(number)
        made = new_map(rng)
        assert Counter(Counter(made.kinds).values()) == {ACROSS: ACROSS}
        right, candidates = choice_of_walks(made, rng)
        assert right in candidates
        assert len(candidates) == CANDIDATES == len({walk[-1] for walk in candidates})
        assert len({kinds_of(made, walk) for walk in candidates}) == CANDIDATES
        assert {walk[0] for walk in candidates} == {right[0]}
        for walk in candidates:
            assert len(set(walk)) == STEPS + 1
            assert all(there in made.ways[here] for here, there in pairwise(walk))


def test_each_position_is_right_equally_often():
    """Of 900 choices; the bound is four standard deviations."""
    rng = random.Random(0)
    made = [new_map(rng) for _ in range(30)]
    found = Counter()
    for number in range(900):
        right, candidates = choice_of_walks(made[number % 30], rng)
        found[candidates.index(right)] += 1
    assert all(abs(found[n] / 900 - 1 / 6) < 4 * np.sqrt(5 / 36 / 900) for n in range(CANDIDATES))


@pytest.fixture
def few(monkeypatch):
    lay_out_things()
    monkeypatch.setattr(walks, "MAPS", {"train": 2, "val": 1, "test": 1})
    monkeypatch.setattr(walks, "PATHS", 3)


def test_the_set_is_read_and_scored_as_r2r_is(few):
    task = open_task(walks.NAME)
    examples = task.examples("test")
    assert examples == load_source(walks.NAME, "test")
    assert (task.default_split, task.support_split, task.images) == ("test", "train", 4)
    assert len(examples) == 3 * 3
    for example in examples:
        assert len(example.choices) == CANDIDATES
        # Each place of the right path has the colour of the kind that the instruction names.
        places = example.choices[example.target.index].media[1:]
        for kind, place in zip(described(example.text), places, strict=True):
            colour = np.array(place.decode().getpixel((48, 48)), dtype=float)
            assert np.abs(colour - COLOURS[kind]).max() < 12
    right = [Prediction(example.id, example.target.index) for example in examples]
    figures = task.score(examples, right)
    assert figures["success_rate"].value == figures["ndtw"].value == 1.0
    wrong = [Prediction(example.id, (example.target.index + 1) % CANDIDATES) for example in examples]
    assert task.score(examples, wrong)["success_rate"].value == 0.0
    # One of the candidates ends at the goal.
    assert task.guesses([], examples)["chance"]["success_rate"].value == pytest.approx(1 / CANDIDATES)
    assert load_source(walks.NAME, "val")[0].id == "val0-0_0"


def test_a_path_is_described_in_its_order():
    kinds = ("sports gear", "bird", "bird")
    for wording in walks.WORDINGS:
        assert described(wording.format(*kinds)) == list(kinds)
    with pytest.raises(ValueError, match="is not one of the wordings"):
        described("turn left")
