"""Scenes and episodes from emoji, on a few drawings in the folders of the packages."""

import io
import json
from collections import Counter

import pytest
from PIL import Image as Pillow

from tests.data.test_fetch import lay_out
from vislang.boxes import Box
from vislang.cache import cache_path
from vislang.data.fetch import EMOJI
from vislang.data.sets import emoji_groups, scenes
from vislang.data.sources import load_source
from vislang.errors import UserError
from vislang.example import reference_text


@pytest.fixture
def some():
    """80 emoji of four groups from both vendors, each in its own colour."""
    records, files = [], {}
    for number in range(80):
        code = f"{0x1F400 + number:X}"
        group = ("Objects", "Activities", "Flags", "Symbols")[number % 4]
        record = {"name": f"THING {number}", "unified": code, "image": f"{code.lower()}.png", "short_name": "x"}
        records.append({**record, "category": group, "subcategory": f"kind-{number % 4}"})
        file = io.BytesIO()
        Pillow.new("RGBA", (8, 8), (3 * number, 255 - 3 * number, 9, 255)).save(file, "PNG")
        for vendor in ("google", "twitter"):
            files[f"emoji-datasource-{vendor}/package/img/{vendor}/64/{code.lower()}.png"] = file.getvalue()
    lay_out(EMOJI, {"emoji-datasource-google/package/emoji.json": json.dumps(records), **files})


def test_scenes_are_drawn_once_and_refer_to_boxes(some, monkeypatch):
    monkeypatch.setattr(scenes, "SPLITS", {"train": ("google", 6), "test": ("google", 4)})
    examples = load_source("scenes", "test")
    written = cache_path("scenes", "1-test", "0.png").stat().st_mtime_ns
    assert load_source("scenes:test") == examples
    assert cache_path("scenes", "1-test", "0.png").stat().st_mtime_ns == written
    assert {example.group for example in examples} == {f"test {number}.png" for number in range(4)}
    for number, example in enumerate(examples):
        kind, _, count = example.id.partition(" ")
        assert kind in ("name", "place", "neighbour", "colour")
        assert int(count) == number
        assert example.source == f"scenes/test:{number}"
        assert isinstance(example.target, Box)
        width, height = example.media[0].decode().size
        assert 0 <= example.target.left < example.target.right <= width
        assert 0 <= example.target.top < example.target.bottom <= height
    named = next(example for example in examples if example.id.startswith("name"))
    assert named.text.startswith("thing ")


def test_scenes_on_a_full_disk(some, monkeypatch):
    """A folder instead of a file: the scenes cannot be written."""
    folder = cache_path("scenes", "1-train")
    (folder / "0.png").mkdir(parents=True)
    with pytest.raises(UserError, match=r"scenes/1-train: the cache cannot be written"):
        load_source("scenes")


def test_an_episode_names_its_classes_by_shots(some, monkeypatch):
    monkeypatch.setattr(emoji_groups, "NEW_GROUPS", ("Symbols",))
    own = {"objects", "activities", "flags", "kind 0", "kind 1", "kind 2"}
    coded = 0
    for example in emoji_groups.episodes(20):
        names = [reference_text(shot) for shot in example.shots]
        assert len(names) == emoji_groups.SHOTS
        assert reference_text(example) in names
        assert len(set(names)) in (2, 3)
        shown = Counter(medium for shot in example.shots for medium in shot.media)
        assert max(shown.values()) == 1
        assert example.media[0] not in shown
        coded += not set(names) <= own
        assert set(names) <= own or set(names) <= set(emoji_groups.NAMES)
    assert 4 < coded < 16
