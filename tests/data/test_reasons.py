"""Scenes with reasons: what is drawn is what the right choices say, and no text tells which choice is right."""

import random
import re
from collections import Counter

import numpy as np
import pytest

from tests.data.composed import COLOURS, lay_out_things
from vislang.cache import cache_path
from vislang.data.sets import reasons
from vislang.data.sets.reasons import ACTIVITIES, DIRECTIONS, people_and_things, questions, record
from vislang.data.sets.things import KINDS, SHARES, Things
from vislang.data.sources import SOURCES, load_source
from vislang.errors import UserError
from vislang.example import Choice, Prediction
from vislang.tasks.catalogue import TASKS, open_task


@pytest.fixture
def few(monkeypatch):
    lay_out_things()
    monkeypatch.setattr(reasons, "SCENES", {"train": 4, "val": 2, "test": 3})


def records(count):
    """Records of scenes that are not drawn."""
    for number in range(count):
        rng = random.Random(number)
        pairs = people_and_things(rng)
        for kind, asked in questions(pairs, rng).items():
            yield pairs, kind, record(str(number), kind, asked, rng)


def text(tokens):
    return " ".join(str(token[0]) if isinstance(token, list) else token for token in tokens)


def general(reason):
    """A reason without the number of a person, and, if it is about a direction, without the kind of thing."""
    reason = re.sub(r"\d", "N", reason)
    return re.sub(r"the .* is (.*)", r"the thing is \1", reason)


def test_right_choices_follow_from_the_scene_and_the_others_do_not():
    activity_of = {kind: activity for activity, kinds in ACTIVITIES.items() for kind in kinds}
    for pairs, kind, found in records(60):
        answers, why = ([text(choice) for choice in found[f"{part}_choices"]] for part in ("answer", "rationale"))
        assert len(set(answers)) == len(set(why)) == 4
        asked = text(found["question"])
        person = next(
            number
            for number, pair in enumerate(pairs)
            if (asked.endswith(f"the {pair.kind} ?") if kind == "person" else str(number) in asked)
        )
        pair = pairs[person]
        where = f"the {pair.kind} is {pair.direction} {person}"
        right = {
            "activity": (activity_of[pair.kind], f"there is the {pair.kind} next to {person}"),
            "thing": (f"the {pair.kind}", where),
            "person": (str(person), where),
        }[kind]
        assert (answers[found["answer_label"]], why[found["rationale_label"]]) == right
        if kind == "activity":
            # All reasons would lead to the right answer.
            assert {activity_of[reason.split(" the ")[1].split(" next")[0]] for reason in why} == {right[0]}
            assert len({activity_of[pair.kind] for pair in pairs} & set(answers)) == 2


def test_no_text_and_no_position_is_right_more_often_than_others():
    """Shares of 6,000 records; the bounds are four standard deviations, for the least frequent texts."""
    positions, chosen, seen, longest = Counter(), Counter(), Counter(), 0
    count = 0
    for _, kind, found in records(2000):
        for part in ("answer", "rationale"):
            texts = [text(choice) for choice in found[f"{part}_choices"]]
            label = found[f"{part}_label"]
            positions[part, label] += 1
            count += 1
            keys = [(part, kind, general(own) if part == "rationale" else own) for own in texts]
            seen.update(keys)
            chosen[keys[label]] += 1
            lengths = [len(own) for own in texts]
            longest += (lengths[label] == max(lengths)) / lengths.count(max(lengths))
    assert all(abs(positions[key] / (count / 2) - 0.25) < 4 * np.sqrt(0.1875 / (count / 2)) for key in positions)
    assert abs(longest / count - 0.25) < 4 * np.sqrt(0.1875 / count)
    frequent = {key: n for key, n in seen.items() if n >= 200}
    assert len(frequent) == 5 + 20 + 4 + 20 + 4 + 4
    for key, n in frequent.items():
        assert abs(chosen[key] / n - 0.25) < 4.5 * np.sqrt(0.1875 / n), key


def test_what_is_next_to_a_person_has_the_colour_of_its_kind(few):
    things = Things("train")
    for number in range(6):
        rng = random.Random(number)
        pairs = people_and_things(rng)
        scene, boxes = reasons.compose(pairs, things, rng)
        for pair, (left, top, right, bottom) in zip(pairs, boxes, strict=True):
            across, down = DIRECTIONS[pair.direction]
            x, y = (left + right) // 2 + reasons.APART * across, (top + bottom) // 2 + reasons.APART * down
            assert scene.getpixel((x, y)) == COLOURS[pair.kind]
            assert scene.getpixel(((left + right) // 2, (top + bottom) // 2)) == (0, 0, 0)
            assert 0 <= left < right <= reasons.SIDE
            assert 0 <= top < bottom <= reasons.SIDE


def test_the_set_is_read_and_scored_as_vcr_is(few):
    task = open_task(reasons.NAME)
    examples = task.examples("test")
    assert (task.default_split, task.support_split, task.kind) == ("test", "train", "choice")
    assert len(examples) == 3 * 3 * 2
    assert examples == load_source(reasons.NAME, "test")
    first, second = examples[:2]
    assert (first.id, second.id) == ("test-0-activity answer", "test-0-activity rationale")
    right = first.choices[first.target.index].parts[0]
    assert second.prompt.parts[1] == f"{first.prompt.parts[1]} {right}"
    # All four people are marked, in every record of a scene.
    assert [mark.name for mark in first.media[0].source.marks] == ["Casey", "Riley", "Jessie", "Jackie"]
    assert len({example.media[0] for example in examples[:6]}) == 1
    assert first.media[0].decode().size == (reasons.SIDE, reasons.SIDE)
    answers = {example.id: example.target.index for example in examples}
    answers["test-1-thing rationale"] = (answers["test-1-thing rationale"] + 1) % 4
    figures = task.score(examples, [Prediction(name, answer) for name, answer in answers.items()])
    assert [figures[name].value for name in TASKS[reasons.NAME].metrics] == [1.0, 8 / 9, 8 / 9]
    assert task.guesses([], examples)["chance"]["q_to_ar"].value == 1 / 16
    assert isinstance(first.target, Choice)
    assert SOURCES[reasons.NAME].splits == ("train", "val", "test")


def test_it_is_drawn_once_and_the_same_each_time(few, monkeypatch, tmp_path_factory):
    folder = reasons.folder()
    written = {path.name: path.read_bytes() for path in folder.rglob("*") if path.is_file()}
    assert reasons.folder() == folder
    assert not [path for path in folder.parent.iterdir() if path != folder]
    monkeypatch.setenv("VISLANG_CACHE", str(tmp_path_factory.mktemp("again")))
    lay_out_things()
    again = reasons.folder()
    assert again != folder
    assert {path.name: path.read_bytes() for path in again.rglob("*") if path.is_file()} == written


def test_a_set_that_cannot_be_written_is_not_there(few, monkeypatch):
    def full(*_, **__):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(reasons, "record", full)
    with pytest.raises(UserError, match=r"composed/scene-reasons-1: the cache cannot be written \(No space"):
        open_task(reasons.NAME)
    assert list(cache_path("composed").iterdir()) == []


def test_splits_share_no_picture_and_keep_families_together(few):
    splits = {split: Things(split) for split in SHARES}
    for kind in KINDS:
        names = {split: {picture.name for picture in own.of(kind)} for split, own in splits.items()}
        assert all(names.values())
        assert sum(map(len, names.values())) == len(set().union(*names.values()))
        families = {split: {picture.family for picture in own.of(kind)} for split, own in splits.items()}
        assert sum(map(len, families.values())) == len(set().union(*families.values()))
    found = {picture.name: picture.family for own in splits.values() for picture in own.of("bird")}
    assert found["openclipart animals/birds/owl_01.png"] == found["openclipart animals/birds/owl_bw.png"]
    assert len({family for name, family in found.items() if name.startswith("openclipart")}) == 3
