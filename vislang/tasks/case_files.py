"""A user's own tasks: JSON Lines of images, texts and what is right, media paths relative to the file.

Forms of a record::

    {"image": "a.png", "question": "what is it?", "answer": "a cat"}        or "answers": ["a cat", "cat"]
    {"image": "a.png", "text": "a cat on a mat", "label": "true"}           or "images": two, to compare
    {"image": "a.png", "text": "the left cat", "box": [12, 30, 80, 96]}     left, top, right, bottom in pixels
    {"image": "a.png", "text": "a fine day", "score": 2.5}
    {"image": "a.png", "text": "why?", "options": ["so", "not so"], "right": 0}
"""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

from vislang.capabilities import Progress
from vislang.case import Answers, Case, Choice, Label, Place, Target, Value
from vislang.data.jsonl import DataError, Problem, RecordError, answers_of, parse_record, text_of
from vislang.document import Document, Image, MediaError

FORMS = (
    '{"image", "question", "answer" or "answers"}, {"image" or "images", "text", "label"}, {"image", "text", "box"}, '
    '{"image", "text", "score"} or {"image", "text", "options", "right"}'
)


def read_cases(path: Path, problems: list[Problem], progress: Progress | None = None) -> list[Case]:
    """Read and check a file; each image is decoded once, however many records name it.

    Args:
        path: the file.
        problems: bad records are added to it, and left out.
        progress: called with (bytes read, bytes in all).

    Raises:
        DataError: the file cannot be read, or holds no record at all.
    """
    cases: list[Case] = []
    sizes: dict[Image, tuple[int, int] | str] = {}
    found = 0
    try:
        size, read = path.stat().st_size, 0
        with path.open("rb") as file:
            for number, raw in enumerate(file, start=1):
                read += len(raw)
                if progress is not None:
                    progress(read, size)
                raw = raw.removeprefix(b"\xef\xbb\xbf") if number == 1 else raw
                if not raw.strip():
                    continue
                found += 1
                try:
                    cases.append(_case(parse_record(raw, FORMS), path, number, sizes))
                except RecordError as error:
                    problems.append(Problem(str(path), number, str(error)))
    except OSError as error:
        raise DataError(f"{path}: cannot be read ({error.strerror}). Give a JSON Lines file.") from None
    if not found:
        raise DataError(f"{path}: no records in it. Each line is one of {FORMS}.")
    return cases


def _case(record: dict[str, Any], path: Path, number: int, sizes: dict[Image, tuple[int, int] | str]) -> Case:
    name = f"{path}:{number}"
    named = record.get("images", [record["image"]] if "image" in record else [])
    if not isinstance(named, list) or not named:
        raise RecordError(f'no "image", or "images" is not a list. A record is one of {FORMS}.')
    images = [Image(path.parent / text_of({"image": value}, "image", FORMS)) for value in named]
    for image in images:
        if image not in sizes:
            sizes[image] = _size(image)
        if isinstance(fault := sizes[image], str):
            raise RecordError(fault)
    text = text_of(record, "question" if "question" in record else "text", FORMS)
    options = [Document([*images, text], name=name)]
    target: Target
    if "answer" in record or "answers" in record:
        target = Answers(dict.fromkeys(answers_of(record, FORMS), 1.0))
    elif "label" in record:
        target = Label(text_of(record, "label", FORMS))
    elif "box" in record:
        target = _place(record["box"], sizes[images[0]])
    elif "score" in record:
        target = Value(_number(record["score"], "score"))
    elif "options" in record:
        given = record["options"]
        if not isinstance(given, list) or len(given) < 2:
            raise RecordError('"options" is not a list of two texts or more.')
        right = record.get("right")
        if not isinstance(right, int) or isinstance(right, bool) or not 0 <= right < len(given):
            raise RecordError(f'"right" is {right!r}; it counts the options from 0 to {len(given) - 1}.')
        options = [Document([*images, text, text_of({"options": o}, "options", FORMS)], name=name) for o in given]
        target = Choice(right)
    else:
        raise RecordError(f'nothing that is right: no "answer", "label", "box", "score" or "options". {FORMS}.')
    return Case(name, tuple(options), target, id=str(number))


def _place(box: Any, size: tuple[int, int] | str) -> Place:
    if not isinstance(box, list) or len(box) != 4:
        raise RecordError(f'"box" is {box!r}, not four numbers: left, top, right, bottom in pixels.')
    left, top, right, bottom = (_number(edge, "box") for edge in box)
    assert not isinstance(size, str)
    width, height = size
    if not (0 <= left < right <= width and 0 <= top < bottom <= height):
        raise RecordError(
            f'"box" {box} does not lie in an image of {width} x {height} pixels. Boxes are left, top, right, bottom.'
        )
    return Place(left, top, right, bottom)


def _number(value: Any, key: str) -> float:
    if isinstance(value, bool) or not isinstance(value, int | float) or not math.isfinite(value):
        raise RecordError(f'"{key}" holds {value!r}, which is no number.')
    return float(value)


def _size(image: Image) -> tuple[int, int] | str:
    """Width and height, or what is wrong with the image."""
    try:
        return image.decode().size
    except MediaError as error:
        return str(error)
    except ValueError as error:
        # A path with a NUL in it, and the like.
        return f"{image.name!r}: no usable path ({error})."
