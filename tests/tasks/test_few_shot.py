"""Few-shot sets and probes of emoji: no query is among the shots; and a file split into both."""

import json
from collections import Counter

import pytest
from PIL import Image as Pillow

from vislang.data.fetch import EMOJI, MANIFEST
from vislang.data.problems import DataError
from vislang.data.sets import emoji, emoji_groups
from vislang.data.sets.emoji_groups import NAMES, NEW_GROUPS, NONSENSE, SHOTS, episodes
from vislang.data.sources import load_source
from vislang.document import Image
from vislang.example import Answers, Label, Text
from vislang.tasks.catalogue import open_task
from vislang.tasks.few_shot import split_own_file

GROUPS = (*NEW_GROUPS, "Objects", "Symbols", "Activities", "Component")


@pytest.fixture(autouse=True)
def drawn(tmp_path, monkeypatch):
    """Two vendors' drawings of 240 emoji in seven groups, three subgroups each."""
    drawings = []
    for number in range(240):
        group = GROUPS[number % 7]
        for vendor in ("google", "twitter"):
            path = tmp_path / f"{vendor}-{number}.png"
            Pillow.new("RGB", (8, 8), (number, 0, 0)).save(path)
            subgroup = f"{group.lower().split()[0]}-{number // 7 % 3}"
            drawings.append(emoji.Drawing(Image(path), vendor, str(number), f"name {number}", group, subgroup, False))
    monkeypatch.setattr(emoji, "drawings", lambda: drawings)
    EMOJI.folder.mkdir(parents=True)
    (EMOJI.folder / MANIFEST).write_text("{}")
    return {drawing.image: drawing for drawing in drawings}


def shown(examples, drawn):
    return [drawn[example.prompt.media[0]] for example in examples]


def test_an_episode_shows_every_class_and_not_the_question(drawn):
    found = episodes(200)
    own = 0
    for number, example in enumerate(found):
        shots, query = shown(example.shots, drawn), drawn[example.prompt.media[0]]
        assert len({drawing.emoji for drawing in (*shots, query)}) == SHOTS + 1
        kind = "group" if number % 2 else "subgroup"
        (answer,) = example.target.references
        names = [shot.target.references[0] for shot in example.shots]
        classes = {name: getattr(drawing, kind) for name, drawing in zip(names, shots, strict=True)}
        assert 2 <= len(classes) <= 3
        assert classes[answer] == getattr(query, kind)
        for name, drawing in zip(names, shots, strict=True):
            assert getattr(drawing, kind) == classes[name]
            assert drawing.group not in (*NEW_GROUPS, "Component")
            assert drawing.vendor == "google"
        own += not set(classes) & set(NAMES)
    assert 60 < own < 140
    assert found == episodes(200)
    assert not set(NONSENSE) & set(NAMES)


@pytest.mark.parametrize("name", ["emoji-groups-named", "emoji-groups-coded"])
def test_new_groups_are_queried_evenly_with_another_vendor_and_other_emoji(drawn, name):
    task = open_task(name)
    train, test = (shown(task.examples(split), drawn) for split in ("train", "test"))
    assert task.support() == task.examples("train")
    assert {drawing.vendor for drawing in train} == {"google"}
    assert {drawing.vendor for drawing in test} == {"twitter"}
    assert not {drawing.emoji for drawing in train} & {drawing.emoji for drawing in test}
    for split in ("train", "test"):
        examples = task.examples(split)
        assert len(set(Counter(example.target for example in examples).values())) == 1
        assert {example.target.name for example in examples} == set(task.labels)
        assert {drawing.group for drawing in shown(examples, drawn)} == set(NEW_GROUPS)
    assert task.labels == (NONSENSE if name.endswith("coded") else tuple(group.lower() for group in NEW_GROUPS))


def test_names_of_queries_are_not_among_the_shots(drawn):
    task = open_task("emoji-captions")
    train, test = ({e.target.references for e in task.examples(split)} for split in ("train", "test"))
    assert train
    assert test
    assert not train & test
    known = load_source("emoji-google-names-known")
    assert {drawing.group for drawing in shown(known, drawn)} == set(GROUPS) - set(NEW_GROUPS)


def test_parts_follow_from_the_text_alone():
    parts = [emoji_groups.part_of(str(number)) for number in range(1000)]
    assert 0.45 < sum(parts) / 1000 < 0.55
    assert emoji_groups.part_of("7") == parts[7]


def test_emoji_probes_train_on_one_vendor_and_test_on_the_other(drawn):
    task = open_task("emoji-groups")
    assert len(list(task.folds())) == 5
    for train, test in task.folds():
        sides = [shown([task.items[n] for n in side], drawn) for side in (train, test)]
        assert {drawing.vendor for drawing in sides[0]} == {"google"}
        assert {drawing.vendor for drawing in sides[1]} == {"twitter"}
        assert not {drawing.emoji for drawing in sides[0]} & {drawing.emoji for drawing in sides[1]}
    assert "Component" not in task.labels
    names = open_task("emoji-name-groups")
    assert (names.media, len(names.items)) == ({"text"}, len(task.items) // 2)


@pytest.fixture
def file(tmp_path):
    """Eight pictures; two captions of each, and a question about the first."""
    records = [{"image": f"google-{n}.png", "text": f"{word} {n}"} for n in range(8) for word in ("one", "two")]
    records.append({"image": "google-0.png", "question": "what?", "answer": "zero"})
    path = tmp_path / "my.jsonl"
    path.write_text("\n".join(map(json.dumps, records)))
    return path


def test_a_file_is_split_by_its_media(file):
    task = open_task(str(file))
    assert (task.kind, task.support_split, task.support()) == ("answers", None, [])
    split = split_own_file(task, 3)
    train, test = split.examples("train"), split.examples("test")
    assert split.support() == train
    assert not {e.prompt.media for e in train} & {e.prompt.media for e in test}
    assert len({e.prompt.media for e in (*train, *test)}) == 8
    # At most half of the pictures are in queries, and there are at most three queries.
    assert 2 <= len(test) <= 3
    # Captions of one picture are references of one question.
    captions = [e for e in (*train, *test) if isinstance(e.target, Text)]
    assert len(captions) == 8
    assert all(len(e.target.references) == 2 for e in captions)
    assert [e.target for e in (*train, *test) if not isinstance(e.target, Text)] == [Answers({"zero": 1.0})]
    # Queries are about the pictures with the lowest hashes, for any order of the records.
    file.write_text("\n".join(file.read_text().splitlines()[::-1]))
    again = split_own_file(open_task(str(file)), 3)
    assert {e.prompt.media for e in again.examples("test")} == {e.prompt.media for e in test}


def test_one_picture_cannot_be_split(file):
    file.write_text(file.read_text().splitlines()[0])
    with pytest.raises(DataError, match=r"my\.jsonl: needs two or more examples with different media or texts"):
        split_own_file(open_task(str(file)), 3)


def test_a_file_of_labels_is_split_too(tmp_path):
    path = tmp_path / "labels.jsonl"
    path.write_text("\n".join(json.dumps({"image": f"google-{n}.png", "label": "ab"[n % 2]}) for n in range(6)))
    task = split_own_file(open_task(str(path)), 2)
    assert task.labels == ("a", "b")
    assert {e.target for e in task.examples("test")} <= {Label("a"), Label("b")}


def test_a_file_of_texts_is_split_by_its_texts(tmp_path):
    path = tmp_path / "texts.jsonl"
    path.write_text("\n".join(json.dumps({"text": f"text {n % 6}", "label": "ab"[n % 2]}) for n in range(12)))
    task = split_own_file(open_task(str(path)), 9)
    train, test = ({e.text for e in task.examples(split)} for split in ("train", "test"))
    assert (len(train), len(test), train & test) == (3, 3, set())
    assert sum(len(task.examples(split)) for split in ("train", "test")) == 12
