import json

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image as Pillow

from tests import tiny
from vislang import Image, Video
from vislang.data.jsonl import DataError, read_jsonl


@pytest.fixture
def folder(tmp_path):
    Pillow.new("RGB", (8, 8), "red").save(tmp_path / "good.png")
    (tmp_path / "notes.png").write_text("not an image")
    (tmp_path / "cut.png").write_bytes((tmp_path / "good.png").read_bytes()[:-30])
    tiny.write_video(tmp_path / "clip.mp4", [0, 200])
    (tmp_path / "broken.mp4").write_bytes(b"video")
    return tmp_path


def read(folder, *lines: str | bytes, **options):
    path = folder / "data.jsonl"
    path.write_bytes(b"".join((line.encode() if isinstance(line, str) else line) + b"\n" for line in lines))
    return read_jsonl(path, **options)


def test_the_forms(folder):
    records = read(
        folder,
        '{"image": "good.png", "question": "what?", "answer": "red"}',
        '{"image": "good.png", "question": "what?", "answers": ["red", "blue", "blue"]}',
        '{"image": "good.png", "text": "A square."}',
        '{"parts": ["see ", {"image": "good.png"}, {"video": "clip.mp4"}], "target": "both"}',
        '{"video": "clip.mp4", "question": "what?", "answer": "a film"}',
        '{"video": "clip.mp4", "text": "A film."}',
        '{"text": "<image> and <image>: what?", "images": ["good.png", "good.png"], "target": "both"}',
    )
    assert records.problems == []
    first, second, third, fourth, fifth, sixth, seventh = records.examples
    assert (fifth.image, fifth.question) == (Video(folder / "clip.mp4"), "what?")
    assert (sixth.image, sixth.question, sixth.target) == (Video(folder / "clip.mp4"), None, "A film.")
    good = Image(folder / "good.png")
    assert seventh.parts == (good, " and ", good, ": what?")
    assert (first.image, first.question, first.references) == (Image(folder / "good.png"), "what?", ("red",))
    assert second.target == "blue"
    assert (third.question, third.target) == (None, "A square.")
    assert fourth.parts == ("see ", Image(folder / "good.png"), Video(folder / "clip.mp4"))
    assert first.name.endswith("data.jsonl:1")


BAD = {
    "a missing file": ('{"image": "none.png", "text": "x"}', "no such file"),
    "not an image": ('{"image": "notes.png", "text": "x"}', "not an image of a known format"),
    "truncated": ('{"image": "cut.png", "text": "x"}', "truncated or damaged"),
    "a folder": ('{"image": ".", "text": "x"}', "cannot be read"),
    "a wrong field": ('{"image": "good.png", "question": "q", "anwser": "x"}', 'no "answer"'),
    "no image": ('{"question": "x"}', 'no "image"'),
    "only text": ('{"text": "x"}', 'no "label"'),
    "only an image": ('{"image": "good.png"}', "nothing to answer"),
    "two media": ('{"image": "good.png", "audio": "a.wav", "text": "x"}', 'both "image" and "audio"'),
    "an empty answer": ('{"image": "good.png", "question": "q", "answer": " "}', '"answer" is empty'),
    "no answers": ('{"image": "good.png", "question": "q", "answers": []}', '"answers" is not a list with'),
    "an empty one among answers": ('{"image": "good.png", "question": "q", "answers": ["a", ""]}', "is empty"),
    "a number": ('{"image": "good.png", "question": "q", "answer": 3}', '"answer" is a number'),
    "null": ('{"image": null, "text": "x"}', '"image" is null'),
    "more places than images": (
        '{"text": "<image> <image>", "images": ["good.png"], "target": "x"}',
        "2 times <image>",
    ),
    "more images than places": ('{"text": "x", "images": ["good.png"], "target": "x"}', "0 times <image>"),
    "no list of images": ('{"text": "<image>", "images": "good.png", "target": "x"}', "not a list"),
    "a broken video": ('{"video": "broken.mp4", "text": "x"}', "not a video of a known format"),
    "no target": ('{"parts": ["x"]}', 'no "target"'),
    "a strange part": ('{"parts": [{"picture": "good.png"}], "target": "x"}', 'part 1 of "parts"'),
    "no parts": ('{"parts": [], "target": "x"}', '"parts" is not a list with'),
    "an empty video": ('{"parts": [{"video": "none.mp4"}], "target": "x"}', "no such file"),
    "not JSON": ('{"image": "good.png", ', "not JSON"),
    "a list": ("[1, 2]", "a JSON list, not an object"),
    "half a character": ('{"image": "good.png", "text": "\\ud800"}', "lone surrogate"),
    "a NUL in a path": ('{"image": "a\\u0000b.png", "text": "x"}', "no usable path"),
    "deep nesting": ("[" * 100_000, "not JSON"),
}


@pytest.mark.parametrize("fault", BAD, ids=list(BAD))
def test_every_fault_is_told_with_line_and_remedy(folder, fault):
    line, message = BAD[fault]
    records = read(folder, '{"image": "good.png", "text": "fine"}', "", line)
    assert len(records.examples) == 1
    (problem,) = records.problems
    assert (problem.line, message in problem.message) == (3, True), problem
    assert str(problem).startswith(f"{folder}/data.jsonl:3: ")


def test_bad_utf8_is_one_bad_record(folder):
    records = read(folder, b'{"image": "good.png", "text": "caf\xe9"}', '{"image": "good.png", "text": "café"}')
    assert records.problems[0].message.startswith("not UTF-8 (byte 35")
    assert records.examples[0].target == "café"


def test_a_byte_order_mark_is_no_fault(folder):
    assert read(folder, b'\xef\xbb\xbf{"image": "good.png", "text": "x"}').problems == []


def test_the_pixel_limit_is_a_fault(folder):
    records = read(folder, '{"image": "good.png", "text": "x"}', max_pixels=63)
    assert "over the limit of 63" in records.problems[0].message


def test_a_shared_image_is_decoded_once(folder, monkeypatch):
    decoded = []
    decode = Image.decode
    monkeypatch.setattr(Image, "decode", lambda self, *a: decoded.append(self) or decode(self, *a))
    read(folder, *['{"image": "good.png", "text": "x"}'] * 5)
    assert len(decoded) == 1


def test_files_that_cannot_be_used(tmp_path):
    with pytest.raises(DataError, match="cannot be read"):
        read_jsonl(tmp_path / "none.jsonl")
    (tmp_path / "empty.jsonl").write_text("\n\n")
    with pytest.raises(DataError, match="no records"):
        read_jsonl(tmp_path / "empty.jsonl")


values = st.recursive(
    st.none() | st.booleans() | st.floats(allow_nan=False) | st.text(max_size=5),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=5), inner, max_size=3),
    max_leaves=6,
)
keys = st.sampled_from(["image", "question", "answer", "answers", "text", "parts", "target", "other"])


@settings(max_examples=200, deadline=None)
@given(st.lists(st.dictionaries(keys, values, max_size=4).map(json.dumps) | st.text(max_size=20), min_size=1))
def test_no_content_ends_in_another_error(tmp_path_factory, lines):
    path = tmp_path_factory.mktemp("any") / "data.jsonl"
    path.write_text("\n".join(lines), encoding="utf-8", errors="replace")
    try:
        records = read_jsonl(path)
    except DataError:
        return
    assert records.examples or records.problems
