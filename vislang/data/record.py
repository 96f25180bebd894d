"""A user's own record, from a line of JSON or a row of Parquet, as an Example. Media paths are relative to the file.

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
matched (otherwise the number of its line), and further information under ``"meta"``, which is not read. A medium is a
path, an address, or, in Parquet, its bytes or ``{"bytes", "path"}``. A key that would be ignored makes a record a bad
one.
"""

from __future__ import annotations

import difflib
from collections import Counter
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from vislang.boxes import Box
from vislang.data.fields import finite, kind_of_value, shown, whole_characters
from vislang.data.problems import RecordError
from vislang.data.remote import Folder, RemoteFile, within
from vislang.document import Audio, Document, Image, Part, Video
from vislang.example import PLAIN, VERBATIM, Answers, Choice, Example, Label, Target, Text, Value

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


def text_of(record: dict[str, Any], key: str) -> str:
    """A field that must be text with something in it.

    Raises:
        RecordError: it is missing, empty, or no text.
    """
    if key not in record:
        raise RecordError(f'no "{key}". A record is one of {FORMS}.')
    value = record[key]
    if not isinstance(value, str):
        raise RecordError(f'"{key}" is {kind_of_value(value)}, not text. Put it in quotes.')
    if not value.strip():
        raise RecordError(f'"{key}" is empty. Fill it in, or remove the record.')
    return whole_characters(value, f'"{key}"')


def example_of(record: dict[str, Any], origin: str, number: int, folder: Folder, targets: bool = True) -> Example:
    """A record as an Example.

    Args:
        record: its keys and values.
        origin: path or address of its file.
        number: of its line or row.
        folder: what media are relative to.
        targets: whether a record without a target is a bad one.

    Raises:
        RecordError: it is a bad one.
    """
    _must_be_clear(record)
    stated = next((key for key in TARGETS if key in record), None)
    source = f"{origin}:{number}"
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


def medium_source(record: dict[str, Any], key: str, folder: Folder) -> Path | RemoteFile | bytes:
    """The medium under a key: a path, an address, its bytes, or ``{"bytes", "path"}`` as the datasets library has it.

    Raises:
        RecordError: it is none of these.
    """
    value = record[key]
    if isinstance(value, dict) and value.keys() == {"bytes", "path"}:
        value = value["path"] if value["bytes"] is None else value["bytes"]
    return value if isinstance(value, bytes) else within(folder, text_of({key: value}, key))


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


def _media(record: dict[str, Any], folder: Folder) -> Iterator[Image | Video | Audio]:
    for kind, medium in MEDIA.items():
        if kind in record:
            yield medium(medium_source(record, kind, folder))
    if "images" in record:
        for image in _list(record, "images"):
            yield Image(medium_source({"images": image}, "images", folder))


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
            raise RecordError(f'"box" is {shown(edges)}, not four numbers: left, top, right, bottom in pixels.')
        return Box(*(finite(edge, '"box"') for edge in edges))
    if stated == "score":
        return Value(finite(record["score"], '"score"'))
    count = len(record["options"])
    right = record.get("right")
    if not isinstance(right, int) or isinstance(right, bool) or not 0 <= right < count:
        raise RecordError(f'"right" is {shown(right)}; it counts the options from 0 to {count - 1}.')
    return Choice(right)


def _options(record: dict[str, Any]) -> list[str]:
    options = record["options"]
    if not isinstance(options, list) or len(options) < 2:
        raise RecordError('"options" is not a list of two texts or more.')
    texts = [text_of({"options": option}, "options") for option in options]
    if twice := next((text for text in texts if texts.count(text) > 1), None):
        raise RecordError(f'"options" contains {shown(twice)} twice. Write each option once.')
    return texts


def _nothing_wanted(record: dict[str, Any]) -> str:
    if "question" in record:
        return f'no "answer". A record is one of {FORMS}.'
    if "parts" in record or "images" in record:
        return f'no "target". A record is one of {FORMS}.'
    if "text" in record:
        return f'no "label". A record is one of {FORMS}.'
    return f"nothing to answer. A record is one of {FORMS}."


def _parts(parts: Any, folder: Folder) -> Iterator[Part]:
    if not isinstance(parts, list) or not parts:
        raise RecordError('"parts" is not a list, or is empty. Write text and {"image": path} in order.')
    for number, part in enumerate(parts, start=1):
        if isinstance(part, str):
            yield whole_characters(part, f'part {number} of "parts"')
        elif isinstance(part, dict) and len(part) == 1 and (kind := next(iter(part))) in MEDIA:
            yield MEDIA[kind](medium_source(part, kind, folder))
        else:
            raise RecordError(
                f'part {number} of "parts" is {shown(part)}, neither text nor one of '
                '{"image": path}, {"video": path} or {"audio": path}.'
            )


def _around_images(record: dict[str, Any], folder: Folder) -> Iterator[Part]:
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
