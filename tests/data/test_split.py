"""Held-out examples depend on content, not on the order of records or the folder of files."""

import json
import shutil

import pytest
from PIL import Image as Pillow

from vislang.data.sets.easy_vqa import easy_vqa
from vislang.data.sources import load_source
from vislang.data.split import draw, hold_out, keys_of
from vislang.document import Document, Image
from vislang.errors import UserError
from vislang.example import Choice, Example, Label


@pytest.fixture
def file(tmp_path):
    lines = []
    for number in range(40):
        Pillow.new("RGB", (4, 4), (number, 0, 0)).save(tmp_path / f"{number}.png")
        lines += [json.dumps({"image": f"{number}.png", "text": f"{word} {number}"}) for word in ("one", "two")]
    path = tmp_path / "my.jsonl"
    path.write_text("\n".join(lines), encoding="utf-8")
    return path


def images_of(examples):
    return {medium.content_hash for example in examples for medium in example.media}


def test_what_is_held_out_of_easy_vqa_is_not_learned():
    learned, held = hold_out(easy_vqa("train"), 0.05)
    train, validation, test = (images_of(part) for part in (learned, held, easy_vqa("test")))
    assert not train & validation
    assert not train & test
    assert not validation & test
    assert 0.03 < len(validation) / (len(train) + len(validation)) < 0.07


def test_records_that_share_an_image_stay_together(file):
    learned, held = hold_out(load_source(str(file)), 0.3)
    assert len(held) == 2 * 12
    assert len(learned) + len(held) == 80
    assert not images_of(learned) & images_of(held)


def test_the_side_does_not_depend_on_the_order(file):
    examples = load_source(str(file))
    assert hold_out(examples, 0.3)[1] == hold_out(examples[::-1], 0.3)[1][::-1]


def test_the_side_does_not_depend_on_the_folder(file, tmp_path_factory):
    elsewhere = tmp_path_factory.mktemp("moved") / "copy"
    shutil.copytree(file.parent, elsewhere)
    here, there = (hold_out(load_source(str(path)), 0.3)[1] for path in (file, elsewhere / file.name))
    assert [e.target for e in here] == [e.target for e in there]


def test_what_is_connected_by_images_stays_on_one_side(tmp_path):
    """Pages 0 and 1 share an image, 1 and 2 another; the rest have two of their own."""
    images = []
    for number in range(40):
        path = tmp_path / f"{number}.png"
        Pillow.new("RGB", (4, 4), (number, 0, 0)).save(path)
        images.append(Image(path))
    pages = [Example(str(n), Document(images[n : n + 2])) for n in (0, 1, 2)]
    pages += [Example(str(n), Document(images[n : n + 2])) for n in range(4, 40, 2)]
    for share in (0.1, 0.3, 0.5, 0.8):
        sides = hold_out(pages, share)
        assert not images_of(sides[0]) & images_of(sides[1])
        # Three pages that are connected count as one.
        assert len({"0" if page.id in ("0", "1", "2") else page.id for page in sides[1]}) == round(share * 19)


def test_groups_texts_and_choices_have_keys_of_their_own(tmp_path):
    Pillow.new("RGB", (4, 4)).save(tmp_path / "a.png")
    Pillow.new("RGB", (4, 4), "red").save(tmp_path / "b.png")
    a, b = Image(tmp_path / "a.png"), Image(tmp_path / "b.png")
    keys = keys_of(
        [
            Example("1", Document([a]), group="x"),
            Example("2", Document([b]), group="x"),
            Example("3", Document(["prose"])),
            Example("4", Document(["prose"]), Label("y")),
            Example("5", Document([]), Choice(0), (Document([a, "one"]), Document([b, "two"]))),
            Example("6", Document([a, "a question"])),
        ]
    )
    assert keys[0] == keys[1]
    assert keys[2] == keys[3]
    assert keys[4] == keys[5] == a.content_hash
    assert len(set(keys)) == 3


def test_a_share_out_of_range_is_an_error(file):
    with pytest.raises(UserError, match="hold_out is 1"):
        hold_out(load_source(str(file)), 1.0)


def test_of_two_images_one_is_held_out_and_of_one_none(file):
    examples = load_source(str(file))
    assert [len(side) for side in hold_out(examples[:4], 0.05)] == [2, 2]
    assert [len(side) for side in hold_out(examples[:2], 0.05)] == [2, 0]


def test_a_draw_is_of_so_many_and_by_seed():
    assert draw(range(9), 0, 0) == draw(range(9), 9, 1) == list(range(9))
    assert len(set(draw(range(9), 4, 0))) == 4
    assert draw(range(100), 50, 0) == draw(range(100), 50, 0) != draw(range(100), 50, 1)
