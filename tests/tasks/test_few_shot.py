"""Tasks and episodes of emoji: what is asked is never shown, and classes of tests are in no episode."""

from collections import Counter

import pytest
from PIL import Image as Pillow

from vislang.data.sets import emoji
from vislang.document import Document, EndOfChunk, Image, Learned
from vislang.prompt import Prompts
from vislang.tasks import emoji_groups
from vislang.tasks.captioned import PAIRS
from vislang.tasks.emoji_groups import NAMES, NEW_GROUPS, NONSENSE, SHOTS, episodes
from vislang.tasks.few_shot import FEW_SHOT_TASKS

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
    return {drawing.image: drawing for drawing in drawings}


def test_an_episode_shows_every_class_and_not_the_question(drawn):
    found = episodes(200)
    own = 0
    for number, example in enumerate(found):
        shown = [drawn[shot.image] for shot in example.shots]
        assert len({drawing.emoji for drawing in (*shown, drawn[example.image])}) == SHOTS + 1
        kind = "group" if number % 2 else "subgroup"
        classes = {shot.answer: getattr(drawn[shot.image], kind) for shot in example.shots}
        assert 2 <= len(classes) <= 3
        assert classes[example.target] == getattr(drawn[example.image], kind)
        for shot, drawing in zip(example.shots, shown, strict=True):
            assert getattr(drawing, kind) == classes[shot.answer]
            assert drawing.group not in (*NEW_GROUPS, "Component")
            assert drawing.vendor == "google"
        own += not set(classes) & set(NAMES)
    assert 60 < own < 140
    assert found == episodes(200)
    assert not set(NONSENSE) & set(NAMES)


def test_the_answers_of_an_episodes_examples_are_learned_too():
    (example,) = episodes(1)
    parts = example.lesson(Prompts()).parts
    assert [part.text for part in parts if isinstance(part, Learned)] == [shot.answer for shot in example.shots]
    assert parts.count(EndOfChunk()) == len(example.shots)
    assert not any(isinstance(part, Learned) for part in example.prompt(Prompts()).parts)
    assert isinstance(example.document(), Document)


@pytest.mark.parametrize("name", ["emoji-groups", "emoji-groups-coded"])
def test_new_groups_are_asked_evenly_by_another_hand_of_other_emoji(drawn, name):
    task = FEW_SHOT_TASKS[name].build()
    assert {drawn[e.image].vendor for e in task.support} == {"google"}
    assert {drawn[e.image].vendor for e in task.queries} == {"twitter"}
    assert not {drawn[e.image].emoji for e in task.support} & {drawn[e.image].emoji for e in task.queries}
    for side in (task.support, task.queries):
        assert len(set(Counter(example.target for example in side).values())) == 1
        assert {drawn[example.image].group for example in side} == set(NEW_GROUPS)
    assert task.options == (NONSENSE if name.endswith("coded") else tuple(group.lower() for group in NEW_GROUPS))


def test_names_that_are_asked_are_not_among_the_shots(drawn):
    task = FEW_SHOT_TASKS["emoji-names"].build()
    assert task.queries
    assert not {e.target for e in task.support} & {e.target for e in task.queries}
    known = PAIRS["emoji-google-names-known"].read()
    assert {drawn[pair.media[0]].group for pair in known} == set(GROUPS) - set(NEW_GROUPS)


def test_parts_follow_from_the_text_alone():
    parts = [emoji_groups.part_of(str(number)) for number in range(1000)]
    assert 0.45 < sum(parts) / 1000 < 0.55
    assert emoji_groups.part_of("7") == parts[7]
