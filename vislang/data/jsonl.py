"""A user's own data: JSON Lines, one record a line, media paths relative to the file.

Forms of a record::

    {"image": "a.png", "question": "what is it?", "answer": "a cat"}      or "video", or "answers": ["a cat", "cat"]
    {"image": "a.png", "text": "A cat on a mat."}                         or "audio" or "video"
    {"image": "a.png", "label": "cat"}                                    or "audio" or "text"
    {"parts": ["Compare ", {"image": "a.png"}, " and ", {"image": "b.png"}], "target": "The first is red."}
    {"text": "Compare <image> and <image>", "images": ["a.png", "b.png"], "target": "The first is red."}

and, where nothing has to be answered, the same without "label", "target" or the text beside a medium.

Every record is checked, the media by decoding them, and what is wrong is told by line, with the remedy.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from vislang.data.example import Example
from vislang.document import MAX_PIXELS, Audio, Image, MediaError, Medium, Part, Video
from vislang.errors import UserError

FORMS = (
    '{"image" or "video", "question", "answer" or "answers"}, {"image", "video" or "audio", "text"}, {"image", "audio" '
    'or "text", "label"}, {"text" with <image> in it, "images", "target"} or {"parts": [text or {"image": path} ...], '
    '"target"}'
)

MEDIA: dict[str, type[Image] | type[Video] | type[Audio]] = {"image": Image, "video": Video, "audio": Audio}


PLACE = "<image>"
"""Where an image stands in a text that comes with a list of images."""


class DataError(UserError):
    """A data file that cannot be used; the message names the file and the remedy."""


class RecordError(ValueError):
    """A bad record: what is wrong with it and what to do."""


@dataclass(frozen=True)
class Problem:
    """A bad record: where it stands (line 0 of what has no lines), and what is wrong."""

    file: str
    line: int
    message: str

    def __str__(self) -> str:
        if self.line:
            return f"{self.file}:{self.line}: {self.message}"
        # Of a file that is no list of records; what is wrong with a medium names it already.
        return self.message if self.message.startswith(self.file) else f"{self.file}: {self.message}"


def must_be_good(problems: Sequence[Problem], skip: bool, name: str = "") -> None:
    """Refuse bad records, the first ones by name, unless they may be skipped.

    Raises:
        DataError: there are some.
    """
    if problems and not skip:
        shown = "\n".join(f"  {problem}" for problem in problems[:10])
        more = f"\n  and {len(problems) - 10} more" if len(problems) > 10 else ""
        raise DataError(
            f"{f'{name}: ' if name else ''}{len(problems)} bad records:\n{shown}{more}\n"
            "Mend them (vislang data check FILE lists all of a file), or pass --skip-bad-records to leave them out."
        )


@dataclass
class Records:
    """What a file holds: the good records and what is wrong with the others."""

    examples: list[Example] = field(default_factory=list)
    problems: list[Problem] = field(default_factory=list)


def read_jsonl(
    path: Path | str,
    max_pixels: int = MAX_PIXELS,
    progress: Callable[[int, int], None] | None = None,
    with_targets: bool = True,
) -> Records:
    """Read and check a file; each image is decoded once, however many records name it.

    Args:
        path: the file.
        max_pixels: images with more pixels are refused.
        progress: called with (bytes read, bytes in all).
        with_targets: each record must say what is to be answered; otherwise one that does not is good too.

    Raises:
        DataError: the file cannot be read, or holds no record at all.
    """
    path = Path(path)
    records = Records()
    checked: dict[Medium, str | None] = {}
    try:
        size = path.stat().st_size
        with path.open("rb") as file:
            read = 0
            for number, raw in enumerate(file, start=1):
                read += len(raw)
                if progress is not None:
                    progress(read, size)
                if number == 1:
                    raw = raw.removeprefix(b"\xef\xbb\xbf")
                if not raw.strip():
                    continue
                try:
                    example = _example(raw, path, number, with_targets)
                    for medium in _media(example):
                        if medium not in checked:
                            checked[medium] = _fault(medium, max_pixels)
                        if (fault := checked[medium]) is not None:
                            raise RecordError(fault)
                    records.examples.append(example)
                except RecordError as error:
                    records.problems.append(Problem(str(path), number, str(error)))
    except OSError as error:
        raise DataError(f"{path}: cannot be read ({error.strerror}). Give a JSON Lines file.") from None
    if not records.examples and not records.problems:
        raise DataError(f"{path}: no records in it. Each line is one of {FORMS}.")
    return records


def _example(raw: bytes, path: Path, number: int, with_targets: bool) -> Example:
    record = parse_record(raw)
    name = f"{path}:{number}"
    folder = path.parent
    if "parts" in record:
        parts = tuple(_parts(record["parts"], folder))
        targets = (text_of(record, "target"),) if with_targets or "target" in record else ()
        return Example(name, targets, parts=parts)
    if "images" in record:
        targets = (text_of(record, "target"),) if with_targets or "target" in record else ()
        return Example(name, targets, parts=tuple(_with_images(record, folder)))
    media = [kind for kind in MEDIA if kind in record]
    if len(media) > 1:
        both = " and ".join(f'"{kind}"' for kind in media)
        raise RecordError(f'both {both}; name them in "parts". A record is one of {FORMS}.')
    if not media and "text" not in record:
        raise RecordError(f'no "image", "video", "audio", "text" or "parts". A record is one of {FORMS}.')
    if not media:
        targets = (text_of(record, "label"),) if with_targets or "label" in record else ()
        return Example(name, targets, parts=(text_of(record, "text"),))
    medium = MEDIA[media[0]](folder / text_of(record, media[0]))
    if isinstance(medium, Image | Video) and "question" in record:
        return Example(name, answers_of(record), medium, text_of(record, "question"))
    stated = [key for key in ("label", "text") if key in record]
    if not stated and with_targets:
        raise RecordError(f'"{media[0]}" with nothing to answer. A record is one of {FORMS}.')
    targets = (text_of(record, stated[0]),) if stated else ()
    if isinstance(medium, Image | Video):
        return Example(name, targets, medium)
    return Example(name, targets, parts=(medium,))


def parse_record(raw: bytes, forms: str = FORMS) -> dict[str, Any]:
    """A line as a JSON object.

    Raises:
        RecordError: it is none; ``forms`` says what is wanted.
    """
    try:
        line = raw.decode("utf-8")
    except UnicodeDecodeError as error:
        raise RecordError(f"not UTF-8 (byte {error.start + 1} of the line). Save the file as UTF-8.") from None
    try:
        record = json.loads(line)
    except (ValueError, RecursionError) as error:
        raise RecordError(f"not JSON ({error}). Write one whole JSON object a line.") from None
    if not isinstance(record, dict):
        raise RecordError(f"a JSON {type(record).__name__}, not an object. A record is one of {forms}.")
    return record


def text_of(record: dict[str, Any], key: str, forms: str = FORMS) -> str:
    """A field that must be text with something in it.

    Raises:
        RecordError: it is missing, empty, or no text.
    """
    if key not in record:
        raise RecordError(f'no "{key}". A record is one of {forms}.')
    value = record[key]
    if not isinstance(value, str):
        raise RecordError(f'"{key}" is {_kind(value)}, not text. Put it in quotes.')
    if not value.strip():
        raise RecordError(f'"{key}" is empty. Fill it in, or leave the record out.')
    return whole_characters(value, f'"{key}"')


def whole_characters(text: str, what: str) -> str:
    """The same text.

    Raises:
        RecordError: there is half of a character in it, which no tokenizer reads; ``what`` names the text.
    """
    if any(0xD800 <= ord(character) <= 0xDFFF for character in text):
        raise RecordError(f"{what} holds half of a character (a lone surrogate). Save the file as UTF-8.")
    return text


def answers_of(record: dict[str, Any], forms: str = FORMS) -> tuple[str, ...]:
    """``answer``, or the list ``answers``.

    Raises:
        RecordError: neither is there, or they hold no text.
    """
    if "answers" not in record:
        return (text_of(record, "answer", forms),)
    answers = record["answers"]
    if not isinstance(answers, list) or not answers:
        raise RecordError('"answers" is not a list with something in it. Write "answers": ["one", ...].')
    return tuple(text_of({"answers": answer}, "answers") for answer in answers)


def _parts(parts: Any, folder: Path) -> Iterator[Part]:
    if not isinstance(parts, list) or not parts:
        raise RecordError('"parts" is not a list with something in it. Write text and {"image": path} in order.')
    for place, part in enumerate(parts, start=1):
        if isinstance(part, str):
            yield whole_characters(part, f'part {place} of "parts"')
        elif isinstance(part, dict) and len(part) == 1 and (kind := next(iter(part))) in MEDIA:
            yield MEDIA[kind](folder / text_of(part, kind))
        else:
            raise RecordError(
                f'part {place} of "parts" is {json.dumps(part)[:60]}, neither text nor one of '
                '{"image": path}, {"video": path} or {"audio": path}.'
            )


def _with_images(record: dict[str, Any], folder: Path) -> Iterator[Part]:
    """A text in which ``<image>`` stands for each image, in order."""
    images, texts = record["images"], text_of(record, "text").split(PLACE)
    if not isinstance(images, list):
        raise RecordError('"images" is not a list. Write "images": [path, ...].')
    if len(texts) - 1 != len(images):
        raise RecordError(
            f'"text" has {len(texts) - 1} times {PLACE}, and there are {len(images)} images. Write {PLACE} once for '
            "each."
        )
    for place, text in enumerate(texts):
        if place:
            yield Image(folder / text_of({"images": images[place - 1]}, "images"))
        if text:
            yield text


def _media(example: Example) -> list[Medium]:
    if example.parts is not None:
        return [part for part in example.parts if isinstance(part, Medium)]
    return [example.image] if example.image is not None else []


def _fault(medium: Medium, max_pixels: int) -> str | None:
    """What is wrong with a medium, or None."""
    try:
        if isinstance(medium, Image):
            medium.decode(max_pixels)
        elif isinstance(medium, Video):
            medium.decode(max_frames=1, max_pixels=max_pixels)
        else:
            assert isinstance(medium, Audio)
            medium.decode()
    except MediaError as error:
        return str(error)
    return None


def _kind(value: Any) -> str:
    names = {bool: "true or false", int: "a number", float: "a number", list: "a list", dict: "an object"}
    return "null" if value is None else names[type(value)]
