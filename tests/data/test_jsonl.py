"""A user's records: all forms, and each problem with its line and remedy."""

import json
import os

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image as Pillow

from tests import tiny
from vislang import Image, Video
from vislang.boxes import Box
from vislang.data.jsonl import read_jsonl
from vislang.data.problems import DataError
from vislang.document import Audio
from vislang.example import PLAIN, VERBATIM, Answers, Choice, Label, Text, Value, reference_text


@pytest.fixture
def folder(tmp_path):
    Pillow.new("RGB", (8, 8), "red").save(tmp_path / "good.png")
    Pillow.new("RGB", (40, 30)).save(tmp_path / "a.png")
    (tmp_path / "notes.png").write_text("not an image")
    (tmp_path / "cut.png").write_bytes((tmp_path / "good.png").read_bytes()[:-30])
    tiny.write_video(tmp_path / "clip.mp4", [0, 200])
    (tmp_path / "broken.mp4").write_bytes(b"video")
    return tmp_path


def read(folder, *lines, **options):
    """The good records of a file of these lines (text, bytes or values), and its problems."""
    lines = [line if isinstance(line, str | bytes) else json.dumps(line) for line in lines]
    path = folder / "data.jsonl"
    path.write_bytes(b"".join((line.encode() if isinstance(line, str) else line) + b"\n" for line in lines))
    problems = []
    return read_jsonl(path, problems, **options), problems


def test_the_forms_of_questions_captions_and_interleaved_text(folder):
    examples, problems = read(
        folder,
        {"image": "good.png", "question": "what?", "answer": "red"},
        {"image": "good.png", "question": "what?", "answers": ["red", "blue", "blue"]},
        {"image": "good.png", "text": "A square."},
        {"parts": ["see ", {"image": "good.png"}, {"video": "clip.mp4"}], "target": "both"},
        {"video": "clip.mp4", "question": "what?", "answer": "a film"},
        {"video": "clip.mp4", "text": "A film."},
        {"text": "<image> and <image>: what?", "images": ["good.png", "good.png"], "target": "both"},
    )
    assert problems == []
    good, film = Image(folder / "good.png"), Video(folder / "clip.mp4")
    assert [(example.prompt.parts, example.target) for example in examples] == [
        ((good, "what?"), Answers({"red": 1.0})),
        ((good, "what?"), Answers({"blue": 1.0, "red": 1.0})),
        ((good,), Text(("A square.",))),
        (("see ", good, film), Text(("both",))),
        ((film, "what?"), Answers({"a film": 1.0})),
        ((film,), Text(("A film.",))),
        ((good, " and ", good, ": what?"), Text(("both",))),
    ]
    assert reference_text(examples[1]) == "blue"
    assert [example.wording for example in examples] == [PLAIN, PLAIN, PLAIN, VERBATIM, PLAIN, PLAIN, VERBATIM]
    assert [example.id for example in examples] == list("1234567")
    assert examples[0].source == examples[0].prompt.name == f"{folder}/data.jsonl:1"


def test_the_forms_of_labels_boxes_scores_and_choices(folder):
    examples, problems = read(
        folder,
        {"image": "a.png", "label": "cat"},
        {"text": "a sentence", "label": "good"},
        {"image": "a.png", "text": "they are alike", "label": "true"},
        {"images": ["a.png", "good.png"], "text": "they are alike", "label": "false"},
        {"image": "a.png", "text": "the cat", "box": [1, 2, 40, 20]},
        {"image": "a.png", "text": "fine", "score": 2},
        {"image": "a.png", "text": "why?", "options": ["so", "not so"], "right": 1},
    )
    assert problems == []
    image = Image(folder / "a.png")
    assert [(example.prompt.parts, example.target) for example in examples] == [
        ((image,), Label("cat")),
        (("a sentence",), Label("good")),
        ((image, "they are alike"), Label("true")),
        ((image, Image(folder / "good.png"), "they are alike"), Label("false")),
        ((image, "the cat"), Box(1, 2, 40, 20)),
        ((image, "fine"), Value(2.0)),
        ((image, "why?"), Choice(1)),
    ]
    assert [choice.parts for choice in examples[6].choices] == [("so",), ("not so",)]
    assert reference_text(examples[6]) == "not so"


def test_an_id_of_ones_own_is_unique(folder):
    record = {"text": "x", "label": "y"}
    examples, problems = read(
        folder, {**record, "id": "a"}, {**record, "id": 7}, {**record, "id": "a", "meta": {}}, record
    )
    assert [example.id for example in examples] == ["a", "7", "4"]
    assert [(p.line, p.message) for p in problems] == [
        (3, 'its id "a" is also that of line 1. Give each record its own "id".')
    ]


def test_without_targets_a_record_may_lack_one(folder):
    lines = [{"image": "good.png"}, {"text": "prose"}, {"image": "good.png", "question": "what?"}, {"parts": ["x"]}]
    examples, problems = read(folder, *lines, targets=False)
    assert [example.target for example in examples] == [None] * 4
    assert problems == []
    assert len(read(folder, *lines)[1]) == 4


def test_a_recording_and_its_transcript(folder):
    import soundfile

    soundfile.write(folder / "a.wav", [0.5, -0.5] * 800, 16_000)
    examples, problems = read(folder, {"audio": "a.wav", "text": "tick"}, {"audio": "a.wav", "label": "clock"})
    assert problems == []
    assert [example.target for example in examples] == [Text(("tick",)), Label("clock")]
    assert examples[0].prompt.parts == (Audio(folder / "a.wav"),)


BAD = {
    "a missing file": ('{"image": "none.png", "text": "x"}', "no such file"),
    "not an image": ('{"image": "notes.png", "text": "x"}', "not an image, or of an unknown format"),
    "truncated": ('{"image": "cut.png", "text": "x"}', "truncated or damaged"),
    "a folder": ('{"image": ".", "text": "x"}', "cannot be read"),
    "a wrong field": (
        '{"image": "good.png", "question": "q", "anwser": "x"}',
        'unknown key "anwser". Is "answer" meant?',
    ),
    "no answer": ('{"image": "good.png", "question": "q"}', 'no "answer"'),
    "a typo": ('{"image": "good.png", "text": "q", "options": ["a", "b"], "rigth": 1}', 'Is "right" meant?'),
    "an unknown key": ('{"image": "good.png", "text": "q", "url": "x"}', 'goes under "meta"'),
    "two targets": ('{"image": "good.png", "text": "q", "label": "x", "box": [0, 0, 1, 1]}', 'both "label" and "box"'),
    "a key twice": ('{"image": "good.png", "label": "x", "label": "y"}', '"label" is in the object twice'),
    "text and question": (
        '{"image": "good.png", "text": "x", "question": "x", "answer": "y"}',
        'both "text" and "ques',
    ),
    "a label of parts": ('{"parts": ["x"], "label": "y"}', '"label" together with "parts" would be ignored'),
    "a target of text": ('{"text": "x", "target": "y"}', '"target" without "parts"'),
    "a question with a target": (
        '{"parts": ["x"], "question": "x", "target": "y"}',
        '"question" together with "parts"',
    ),
    "right without options": ('{"image": "a.png", "text": "x", "right": 0}', '"right" without "options"'),
    "options without right": ('{"image": "a.png", "text": "x", "options": ["a", "b"]}', '"right" is null'),
    "three edges": ('{"image": "a.png", "text": "x", "box": [1, 2, 3]}', "not four numbers"),
    "a box outside": ('{"image": "a.png", "text": "x", "box": [1, 2, 50, 20]}', "is not inside the image of 40 x 30"),
    "a box inside out": ('{"image": "a.png", "text": "x", "box": [30, 2, 1, 20]}', "is not inside the image"),
    "a box without text": ('{"image": "a.png", "box": [1, 2, 3, 4]}', 'no "text"'),
    "a box of two images": (
        '{"images": ["a.png", "a.png"], "text": "x", "box": [1, 2, 3, 4]}',
        '"box" without "image"',
    ),
    "a score in words": ('{"image": "a.png", "text": "x", "score": "high"}', "is not a number"),
    "no number": ('{"image": "a.png", "text": "x", "score": NaN}', "is not a number"),
    "an infinite score": ('{"image": "a.png", "text": "x", "score": -Infinity}', "is not a number"),
    "a huge score": ('{"image": "a.png", "text": "x", "score": 1' + "0" * 400 + "}", "is not a number"),
    "an option twice": (
        '{"image": "a.png", "text": "x", "options": ["a", "b", "a"], "right": 0}',
        '"options" contains "a" twice. Write each option once.',
    ),
    "one option": ('{"image": "a.png", "text": "x", "options": ["a"], "right": 0}', "two texts or more"),
    "too far right": ('{"image": "a.png", "text": "x", "options": ["a", "b"], "right": 2}', "from 0 to 1"),
    "right as true": ('{"image": "a.png", "text": "x", "options": ["a", "b"], "right": true}', "from 0 to 1"),
    "an id that is none": ('{"image": "a.png", "text": "x", "id": [1]}', '"id" is a list'),
    "no images": ('{"images": [], "text": "x", "label": "y"}', '"images" is not a list, or is empty'),
    "no image": ('{"question": "x"}', 'no "image"'),
    "only text": ('{"text": "x"}', 'no "label"'),
    "only an image": ('{"image": "good.png"}', "nothing to answer"),
    "two media": ('{"image": "good.png", "audio": "a.wav", "text": "x"}', 'both "image" and "audio"'),
    "an empty answer": ('{"image": "good.png", "question": "q", "answer": " "}', '"answer" is empty'),
    "no answers": ('{"image": "good.png", "question": "q", "answers": []}', '"answers" is not a list, or is empty'),
    "an empty one among answers": ('{"image": "good.png", "question": "q", "answers": ["a", ""]}', "is empty"),
    "a number": ('{"image": "good.png", "question": "q", "answer": 3}', '"answer" is a number'),
    "null": ('{"image": null, "text": "x"}', '"image" is null'),
    "more markers than images": (
        '{"text": "<image> <image>", "images": ["good.png"], "target": "x"}',
        "<image> 2 times",
    ),
    "more images than markers": ('{"text": "x", "images": ["good.png"], "target": "x"}', "<image> 0 times"),
    "no list of images": ('{"text": "<image>", "images": "good.png", "target": "x"}', "not a list"),
    "a broken video": ('{"video": "broken.mp4", "text": "x"}', "not a video, of an unknown format"),
    "no target": ('{"parts": ["x"]}', 'no "target"'),
    "a strange part": ('{"parts": [{"picture": "good.png"}], "target": "x"}', 'part 1 of "parts"'),
    "no parts": ('{"parts": [], "target": "x"}', '"parts" is not a list, or is empty'),
    "an empty video": ('{"parts": [{"video": "none.mp4"}], "target": "x"}', "no such file"),
    "not JSON": ('{"image": "good.png", ', "not JSON"),
    "a list": ("[1, 2]", "a JSON list, not an object"),
    "half a character": ('{"image": "good.png", "text": "\\ud800"}', "lone surrogate"),
    "a NUL in a path": ('{"image": "a\\u0000b.png", "text": "x"}', "not a valid path"),
    "deep nesting": ("[" * 100_000, "not JSON"),
}


@pytest.mark.parametrize("fault", BAD, ids=list(BAD))
def test_every_fault_is_reported_with_line_and_remedy(folder, fault):
    line, message = BAD[fault]
    examples, problems = read(folder, '{"image": "good.png", "text": "fine"}', "", line)
    assert len(examples) == 1
    (problem,) = problems
    assert (problem.line, message in problem.message) == (3, True), problem
    assert str(problem).startswith(f"{folder}/data.jsonl:3: ")


def test_bad_utf8_is_one_bad_record(folder):
    examples, problems = read(
        folder, b'{"image": "good.png", "text": "caf\xe9"}', '{"image": "good.png", "text": "café"}'
    )
    assert problems[0].message.startswith("not UTF-8 (byte 35")
    assert examples[0].target == Text(("café",))


def test_a_byte_order_mark_is_no_fault(folder):
    assert read(folder, b'\xef\xbb\xbf{"image": "good.png", "text": "x"}')[1] == []


def test_the_pixel_limit_is_a_fault(folder):
    _, problems = read(folder, '{"image": "good.png", "text": "x"}', max_pixels=63)
    assert "and the limit is 63" in problems[0].message


def test_a_shared_image_is_decoded_once(folder, monkeypatch):
    decoded = []
    decode = Image.decode
    monkeypatch.setattr(Image, "decode", lambda self, *a: decoded.append(self) or decode(self, *a))
    read(folder, *['{"image": "good.png", "text": "x"}'] * 5)
    assert len(decoded) == 1


def test_progress_counts_lines(folder):
    done = []
    read(folder, {"text": "x", "label": "y"}, "", {"text": "x"}, progress=lambda *step: done.append(step))
    assert done == [(1, 3), (2, 3), (3, 3)]


def test_files_that_cannot_be_used(tmp_path):
    with pytest.raises(DataError, match=r"none\.jsonl: cannot be read"):
        read_jsonl(tmp_path / "none.jsonl", [])
    with pytest.raises(DataError, match="is a folder"):
        read_jsonl(tmp_path, [])
    (tmp_path / "empty.jsonl").write_text("\n\n")
    with pytest.raises(DataError, match="no records"):
        read_jsonl(tmp_path / "empty.jsonl", [])


def test_pipes_are_never_waited_for(folder):
    os.mkfifo(folder / "pipe.jsonl")
    with pytest.raises(DataError, match="is a pipe or a device"):
        read_jsonl(folder / "pipe.jsonl", [])
    os.mkfifo(folder / "pipe.png")
    _, (problem,) = read(folder, {"image": "pipe.png", "text": "x"})
    assert "pipe.png: cannot be read (a pipe or a device" in problem.message


values = st.recursive(
    st.none() | st.booleans() | st.floats(allow_nan=False) | st.text(max_size=5),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=5), inner, max_size=3),
    max_leaves=6,
)
keys = st.sampled_from(
    [
        "image",
        "images",
        "question",
        "answer",
        "answers",
        "text",
        "parts",
        "target",
        "label",
        "box",
        "score",
        "options",
        "right",
        "id",
        "meta",
        "other",
    ]
)


@settings(max_examples=200, deadline=None)
@given(st.lists(st.dictionaries(keys, values, max_size=4).map(json.dumps) | st.text(max_size=20), min_size=1))
def test_no_content_ends_in_another_error(tmp_path_factory, lines):
    path = tmp_path_factory.mktemp("any") / "data.jsonl"
    path.write_text("\n".join(lines), encoding="utf-8", errors="replace")
    problems = []
    try:
        examples = read_jsonl(path, problems)
    except DataError:
        return
    assert examples or problems
