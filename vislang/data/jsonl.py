"""A user's own data: JSON Lines, one record a line, media paths relative to the file.

Forms of a record::

    {"image": "a.png", "question": "what is it?", "answer": "a cat"}      or "video"; or "answers": ["a cat", "cat"]
    {"image": "a.png", "text": "A cat on a mat."}                         or "video" or "audio"
    {"image": "a.png", "label": "cat"}                                    or "video", "audio" or "text"
    {"image": "a.png", "text": "a cat on a mat", "label": "true"}         or "images": ["a.png", "b.png"], to compare
    {"image": "a.png", "text": "the left cat", "box": [12, 30, 80, 96]}   left, top, right, bottom in pixels
    {"image": "a.png", "text": "a fine day", "score": 2.5}
    {"image": "a.png", "text": "why?", "options": ["so", "not so"], "right": 0}
    {"parts": ["Compare ", {"image": "a.png"}, " and ", {"image": "b.png"}], "target": "The first is red."}
    {"text": "Compare <image> and <image>", "images": ["a.png", "b.png"], "target": "The first is red."}

and, where no target is needed, the same without one. A record may have an ``"id"`` of its own, by which predictions are
matched (otherwise the number of its line), and further information under ``"meta"``, which is not read.

Every record is checked, its media by decoding them. A key that would be ignored makes a record a bad one.
"""

from __future__ import annotations

import difflib
import json
import math
from collections import Counter
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from vislang.boxes import Box
from vislang.capabilities import Progress
from vislang.data.problems import DataError, Problem, RecordError
from vislang.document import MAX_PIXELS, Audio, Document, Image, MediaError, Medium, Part, Video
from vislang.example import PLAIN, VERBATIM, Answers, Choice, Example, Label, Target, Text, Value
from vislang.files import must_be_file

FORMS = (
    '{"image" or "video", "question", "answer" or "answers"}, {"image", "video" or "audio", "text"}, {"image", '
    '"video", "audio" or "text", "label"}, {"image" or "images", "text", "label"}, {"image", "text", "box"}, {"image", '
    '"text", "score"}, {"image", "text", "options", "right"}, {"text" with <image> in it, "images", "target"} or '
    '{"parts": [text or {"image": path} ...], "target"}'
)

MEDIA: dict[str, type[Image] | type[Video] | type[Audio]] = {"image": Image, "video": Video, "audio": Audio}

SHOWN = (*MEDIA, "images", "parts")
"""Keys that name media; a record has one of them at most."""

TARGETS = ("answer", "answers", "label", "box", "score", "options", "target")
"""Keys of what is wanted; a record has one of them at most."""

KEYS = ("id", "meta", *SHOWN, "text", "question", *TARGETS, "right")

MARKER = "<image>"
"""Stands for an image in a text that comes with a list of images."""


def read_jsonl(
    path: Path | str,
    problems: list[Problem],
    progress: Progress | None = None,
    targets: bool = True,
    max_pixels: int = MAX_PIXELS,
) -> list[Example]:
    """Read and check a file; each medium is decoded once, however many records name it.

    Args:
        path: the file.
        problems: bad records are added to it, and left out.
        progress: called with (lines read, of how many).
        targets: whether a record without a target is a bad one.
        max_pixels: limit of an image.

    Raises:
        DataError: the file cannot be read, or holds no record at all.
    """
    path = Path(path)
    examples: list[Example] = []
    checked = _Checked(max_pixels)
    lines: dict[str, int] = {}
    found = 0
    for number, raw in lines_of(path, progress):
        found += 1
        try:
            example = _example(parse_record(raw), path, number, targets)
            checked.check(example)
            if (line := lines.setdefault(example.id, number)) != number:
                raise RecordError(f'its id "{example.id}" is also that of line {line}. Give each record its own "id".')
            examples.append(example)
        except RecordError as error:
            problems.append(Problem(str(path), number, str(error)))
    if not found:
        raise DataError(f"{path}: contains no records. Each line is one of {FORMS}.")
    return examples


def lines_of(path: Path, progress: Progress | None = None) -> Iterator[tuple[int, bytes]]:
    """The lines of a file that are not blank, with their numbers from 1; without a byte order mark.

    Raises:
        DataError: the file cannot be read.
    """
    must_be_file(path, "a JSON Lines file", DataError)
    try:
        with path.open("rb") as file:
            total = 0 if progress is None else sum(1 for _ in file)
            file.seek(0)
            for number, raw in enumerate(file, start=1):
                if number == 1:
                    raw = raw.removeprefix(b"\xef\xbb\xbf")
                if raw.strip():
                    yield number, raw
                if progress is not None:
                    progress(number, total)
    except OSError as error:
        raise DataError(f"{path}: cannot be read ({error.strerror}). Give a JSON Lines file.") from None


def parse_record(raw: bytes, forms: str = FORMS) -> dict[str, Any]:
    """A line as a JSON object.

    Raises:
        RecordError: it is none, or has a key twice; ``forms`` says what is wanted.
    """
    try:
        line = raw.decode("utf-8")
    except UnicodeDecodeError as error:
        raise RecordError(f"not UTF-8 (byte {error.start + 1} of the line). Save the file as UTF-8.") from None
    try:
        record = json.loads(line, object_pairs_hook=_object)
    except RecordError:
        raise
    except (ValueError, RecursionError) as error:
        raise RecordError(f"not JSON ({error}). Write one JSON object per line.") from None
    if not isinstance(record, dict):
        raise RecordError(f"a JSON {type(record).__name__}, not an object. A record is one of {forms}.")
    return record


def text_of(record: dict[str, Any], key: str) -> str:
    """A field that must be text with something in it.

    Raises:
        RecordError: it is missing, empty, or no text.
    """
    if key not in record:
        raise RecordError(f'no "{key}". A record is one of {FORMS}.')
    value = record[key]
    if not isinstance(value, str):
        raise RecordError(f'"{key}" is {_kind(value)}, not text. Put it in quotes.')
    if not value.strip():
        raise RecordError(f'"{key}" is empty. Fill it in, or remove the record.')
    return whole_characters(value, f'"{key}"')


def whole_characters(text: str, what: str) -> str:
    """The same text.

    Raises:
        RecordError: there is half of a character in it, which no tokenizer reads; ``what`` names the text.
    """
    if any(0xD800 <= ord(character) <= 0xDFFF for character in text):
        raise RecordError(f"{what} contains half a character (a lone surrogate). Save the file as UTF-8.")
    return text


def _object(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    found = dict(pairs)
    if len(found) < len(pairs):
        ((twice, _),) = Counter(key for key, _ in pairs).most_common(1)
        raise RecordError(f'"{twice}" is in the object twice. Remove one of them.')
    return found


def _example(record: dict[str, Any], path: Path, number: int, targets: bool) -> Example:
    _must_be_clear(record)
    stated = next((key for key in TARGETS if key in record), None)
    source, folder = f"{path}:{number}", path.parent
    parts: list[Part]
    target: Target | None = None
    choices: tuple[Document, ...] = ()
    wording = PLAIN
    if "parts" in record or ("images" in record and stated in (None, "target")):
        wording = VERBATIM
        parts = list(_parts(record["parts"], folder) if "parts" in record else _around_images(record, folder))
        target = Text((text_of(record, "target"),)) if stated else None
    else:
        parts = list(_media(record, folder))
        if stated is not None or not parts or "question" in record:
            # Otherwise the text is not read together with the medium: it is what is wanted of it.
            parts += _text(record, stated, bool(parts))
        elif "text" in record:
            target = Text((text_of(record, "text"),))
        if stated == "options":
            choices = tuple(Document([option], name=source) for option in _options(record))
        if stated is not None:
            target = _target(record, stated)
    if target is None and targets:
        raise RecordError(_nothing_wanted(record))
    id_ = _id(record, number)
    return Example(id_, Document(parts, name=source), target, choices, source=source, wording=wording)


def _must_be_clear(record: dict[str, Any]) -> None:
    """Raise an error at a key that is unknown, or that another one would have precedence over."""
    for key in record:
        if key not in KEYS:
            near = difflib.get_close_matches(key, KEYS, 1)
            meant = f'Is "{near[0]}" meant? ' if near else ""
            raise RecordError(f'unknown key "{key}". {meant}Other information goes under "meta".')
    _one_of(record, SHOWN, 'name them in "parts"')
    _one_of(record, TARGETS, "write a record for each")
    _one_of(record, ("text", "question"), "remove one of them")
    for key, others in (("parts", ("target",)), ("target", ("parts", "images", "text"))):
        rest = [name for name in record if name not in (key, *others, "id", "meta")]
        if key in record and rest:
            raise RecordError(f'"{rest[0]}" together with "{key}" would be ignored. A record is one of {FORMS}.')
    for key, needed in (("target", ("parts", "images")), ("right", ("options",))):
        if key in record and not any(name in record for name in needed):
            raise RecordError(f'"{key}" without "{needed[0]}". A record is one of {FORMS}.')


def _one_of(record: dict[str, Any], keys: Sequence[str], remedy: str) -> None:
    found = [key for key in keys if key in record]
    if len(found) > 1:
        raise RecordError(f'both "{found[0]}" and "{found[1]}": {remedy}. A record is one of {FORMS}.')


def _id(record: dict[str, Any], number: int) -> str:
    given = record.get("id", number)
    return str(given) if isinstance(given, int) and not isinstance(given, bool) else text_of(record, "id")


def _media(record: dict[str, Any], folder: Path) -> Iterator[Image | Video | Audio]:
    for kind, medium in MEDIA.items():
        if kind in record:
            yield medium(folder / text_of(record, kind))
    if "images" in record:
        for image in _list(record, "images"):
            yield Image(folder / text_of({"images": image}, "images"))


def _text(record: dict[str, Any], stated: str | None, shown: bool) -> list[str]:
    """The text that is read beside the media; a label, a score or options may do without where there is a medium."""
    key = "question" if "question" in record else "text"
    if stated in ("answer", "answers") and key not in record:
        raise RecordError(f'no "question". A record is one of {FORMS}.')
    if not shown and (key == "question" or key not in record):
        raise RecordError(f'no "image", "video", "audio", "text" or "parts". A record is one of {FORMS}.')
    if stated == "box" and "image" not in record:
        raise RecordError(f'"box" without "image". A record is one of {FORMS}.')
    return [text_of(record, key)] if key in record or stated == "box" else []


def _target(record: dict[str, Any], stated: str) -> Target:
    if stated == "answer":
        return Answers({text_of(record, "answer"): 1.0})
    if stated == "answers":
        given = Counter(text_of({"answers": answer}, "answers") for answer in _list(record, "answers"))
        # The most frequent first: it is the one that a model learns to write.
        return Answers({answer: 1.0 for answer, _ in given.most_common()})
    if stated == "label":
        return Label(text_of(record, "label"))
    if stated == "box":
        edges = record["box"]
        if not isinstance(edges, list) or len(edges) != 4:
            raise RecordError(f'"box" is {_short(edges)}, not four numbers: left, top, right, bottom in pixels.')
        return Box(*(_number(edge, "box") for edge in edges))
    if stated == "score":
        return Value(_number(record["score"], "score"))
    count = len(record["options"])
    right = record.get("right")
    if not isinstance(right, int) or isinstance(right, bool) or not 0 <= right < count:
        raise RecordError(f'"right" is {_short(right)}; it counts the options from 0 to {count - 1}.')
    return Choice(right)


def _options(record: dict[str, Any]) -> list[str]:
    options = record["options"]
    if not isinstance(options, list) or len(options) < 2:
        raise RecordError('"options" is not a list of two texts or more.')
    return [text_of({"options": option}, "options") for option in options]


def _nothing_wanted(record: dict[str, Any]) -> str:
    if "question" in record:
        return f'no "answer". A record is one of {FORMS}.'
    if "parts" in record or "images" in record:
        return f'no "target". A record is one of {FORMS}.'
    if "text" in record:
        return f'no "label". A record is one of {FORMS}.'
    return f"nothing to answer. A record is one of {FORMS}."


def _parts(parts: Any, folder: Path) -> Iterator[Part]:
    if not isinstance(parts, list) or not parts:
        raise RecordError('"parts" is not a list, or is empty. Write text and {"image": path} in order.')
    for number, part in enumerate(parts, start=1):
        if isinstance(part, str):
            yield whole_characters(part, f'part {number} of "parts"')
        elif isinstance(part, dict) and len(part) == 1 and (kind := next(iter(part))) in MEDIA:
            yield MEDIA[kind](folder / text_of(part, kind))
        else:
            raise RecordError(
                f'part {number} of "parts" is {_short(part)}, neither text nor one of '
                '{"image": path}, {"video": path} or {"audio": path}.'
            )


def _around_images(record: dict[str, Any], folder: Path) -> Iterator[Part]:
    """A text in which ``<image>`` stands for each image, in order."""
    images, texts = list(_media(record, folder)), text_of(record, "text").split(MARKER)
    if len(texts) - 1 != len(images):
        raise RecordError(
            f'"text" contains {MARKER} {len(texts) - 1} times, and there are {len(images)} images. Write {MARKER} once '
            'for each, or add the target as "label", "score" or "options".'
        )
    for number, text in enumerate(texts):
        if number:
            yield images[number - 1]
        if text:
            yield text


def _list(record: dict[str, Any], key: str) -> list[Any]:
    if not isinstance(record[key], list) or not record[key]:
        raise RecordError(f'"{key}" is not a list, or is empty. Write "{key}": ["one", ...].')
    return record[key]


def _number(value: Any, key: str) -> float:
    try:
        number = math.nan if isinstance(value, bool) or not isinstance(value, int | float) else float(value)
    except OverflowError:
        number = math.inf
    if not math.isfinite(number):
        raise RecordError(f'"{key}" contains {_short(value)}, which is not a number.')
    return number


def _short(value: Any) -> str:
    return json.dumps(value)[:60]


def _kind(value: Any) -> str:
    names = {bool: "true or false", int: "a number", float: "a number", list: "a list", dict: "an object"}
    return "null" if value is None else names[type(value)]


class _Checked:
    """Media that were decoded before: the size of an image, or what is wrong with a medium."""

    def __init__(self, max_pixels: int):
        self._max_pixels = max_pixels
        self._sizes: dict[Medium, tuple[int, int]] = {}
        self._faults: dict[Medium, str] = {}

    def check(self, example: Example) -> None:
        """Raise a RecordError unless all media of an example can be decoded, and its box lies in its image."""
        for medium in example.media:
            if medium not in self._sizes and medium not in self._faults:
                try:
                    self._sizes[medium] = self._decode(medium)
                except MediaError as error:
                    self._faults[medium] = str(error)
            if medium in self._faults:
                raise RecordError(self._faults[medium])
        if isinstance(box := example.target, Box):
            width, height = self._sizes[example.media[0]]
            if not (0 <= box.left < box.right <= width and 0 <= box.top < box.bottom <= height):
                edges = ", ".join(f"{edge:g}" for edge in (box.left, box.top, box.right, box.bottom))
                raise RecordError(
                    f'"box" [{edges}] is not inside the image of {width} x {height} pixels. Boxes are left, top, '
                    "right, bottom."
                )

    def _decode(self, medium: Medium) -> tuple[int, int]:
        if isinstance(medium, Image):
            return medium.decode(self._max_pixels).size
        if isinstance(medium, Video):
            medium.decode(max_frames=1, max_pixels=self._max_pixels)
        elif isinstance(medium, Audio):
            medium.decode()
        return (0, 0)
