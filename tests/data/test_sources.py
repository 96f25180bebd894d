"""A user's own tasks, record by record, and what is wrong with some."""

import json

import pytest
from PIL import Image as Pillow
from vislang.tasks.case_files import read_cases
from vislang.tasks.case_sources import read_source

from vislang.case import Answers, Choice, Label, Place, Value
from vislang.data.jsonl import DataError


@pytest.fixture
def folder(tmp_path):
    Pillow.new("RGB", (40, 30)).save(tmp_path / "a.png")
    return tmp_path


def read(folder, *records):
    path = folder / "my.jsonl"
    path.write_text("\n".join(r if isinstance(r, str) else json.dumps(r) for r in records), encoding="utf-8")
    problems = []
    return read_cases(path, problems), problems


def test_every_form(folder):
    cases, problems = read(
        folder,
        {"image": "a.png", "question": "what?", "answers": ["a cat", "cat"]},
        {"images": ["a.png", "a.png"], "text": "they are alike", "label": "true"},
        {"image": "a.png", "text": "the cat", "box": [1, 2, 30, 20]},
        {"image": "a.png", "text": "fine", "score": 2},
        {"image": "a.png", "text": "why?", "options": ["so", "not so"], "right": 1},
    )
    assert not problems
    assert [case.target for case in cases] == [
        Answers({"a cat": 1.0, "cat": 1.0}),
        Label("true"),
        Place(1, 2, 30, 20),
        Value(2.0),
        Choice(1),
    ]
    assert len(cases[1].images) == 2
    assert [option.parts[1:] for option in cases[4].options] == [("why?", "so"), ("why?", "not so")]


@pytest.mark.parametrize(
    ("record", "message"),
    [
        ('{"image": "a.png"', "not JSON"),
        ({"text": "x", "label": "y"}, 'no "image"'),
        ({"image": "b.png", "text": "x", "label": "y"}, "no such file"),
        ({"image": "a.png", "text": "x"}, "nothing that is right"),
        ({"image": "a.png", "label": "y"}, 'no "text"'),
        ({"image": "a.png", "text": "x", "box": [1, 2, 3]}, "not four numbers"),
        ({"image": "a.png", "text": "x", "box": [1, 2, 50, 20]}, "does not lie in an image of 40 x 30 pixels"),
        ({"image": "a.png", "text": "x", "box": [30, 2, 1, 20]}, "does not lie in an image"),
        ({"image": "a.png", "text": "x", "score": "high"}, "is no number"),
        ('{"image": "a.png", "text": "x", "score": NaN}', "is no number"),
        ({"image": "a.png", "text": "x", "options": ["a"], "right": 0}, "two texts or more"),
        ({"image": "a.png", "text": "x", "options": ["a", "b"], "right": 2}, "from 0 to 1"),
        ({"image": "a.png", "text": "x", "options": ["a", "b"], "right": True}, "from 0 to 1"),
        ({"image": "a.png", "question": "x", "answers": []}, "not a list with something in it"),
    ],
)
def test_a_bad_record_is_named_and_left_out(folder, record, message):
    cases, (problem,) = read(folder, record, {"image": "a.png", "text": "x", "label": "y"})
    assert len(cases) == 1
    assert problem.line == 1
    assert message in problem.message


def test_sources_by_name(folder):
    read(folder, {"image": "a.png", "text": "x", "label": "y"})
    (case,) = read_source(str(folder / "my.jsonl"), "mine", "train", [])
    assert case.task == "mine"
    with pytest.raises(DataError, match=r"nothing: neither a file nor a task\. The tasks are: easy-vqa, .*vqa:FOLDER"):
        read_source("nothing", "x", "train", [])
    with pytest.raises(DataError, match=r"no file val\.jsonl"):
        read_source(f"vcr:{folder}:val", "x", "train", [])
    empty = folder / "empty.jsonl"
    empty.write_text("\n")
    with pytest.raises(DataError, match="no records in it"):
        read_source(str(empty), "x", "train", [])
