"""Documents to learn from without labels: pictures, recordings and prose, by the name of a data set or from files."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from itertools import groupby
from pathlib import Path

from vislang.capabilities import Progress
from vislang.data.fetch import EMOJI, ENGLISH, KLETTRES, OPENCLIPART, STAMPS, DataSet
from vislang.data.jsonl import DataError, Problem, read_jsonl
from vislang.data.sets import emoji, english, klettres, openclipart, stamps
from vislang.document import Audio, Document, Image, MediaError

KINDS: dict[str, type[Image] | type[Audio]] = {
    **dict.fromkeys((".png", ".jpg", ".jpeg", ".webp", ".gif", ".bmp", ".tif", ".tiff"), Image),
    **dict.fromkeys((".wav", ".flac", ".ogg", ".mp3"), Audio),
}
PROSE = (".txt", ".md")

PASSAGE = 1000
"""Characters of a passage of prose, about; a model reads a part of it at a time."""


def unlabelled(source: str, problems: list[Problem], progress: Progress | None = None) -> list[Document]:
    """The documents of a data set, a JSON Lines file, a text file or a folder with media and text files.

    Args:
        source: its name or path.
        problems: what is wrong with single files or records is added to it; those are left out.
        progress: called with (done, of how many).

    Raises:
        DataError: there is no such thing, or nothing usable in it.
    """
    path = Path(source)
    if source in SETS:
        documents = SETS[source].read()
    elif path.is_dir():
        documents = list(_folder(path, problems, progress))
    elif path.suffix == ".jsonl" and path.is_file():
        records = read_jsonl(path, progress=progress, with_targets=False)
        problems += records.problems
        documents = [example.document() for example in records.examples]
    elif path.suffix.lower() in KINDS and path.is_file():
        documents = list(_media_files([path], problems, None))
    elif path.suffix in PROSE and path.is_file():
        documents = list(_prose(path))
    else:
        raise DataError(
            f"{source}: no data set, folder, .jsonl or .txt file. The data sets are: {', '.join(sorted(SETS))}."
        )
    if not documents and not problems:
        raise DataError(f"{source}: nothing usable in it. Wanted: {', '.join([*KINDS, *PROSE])}, or a .jsonl file.")
    return documents


def _folder(folder: Path, problems: list[Problem], progress: Progress | None) -> Iterator[Document]:
    yield from _media_files(
        sorted(p for p in folder.rglob("*") if p.suffix.lower() in (*KINDS, *PROSE)), problems, progress
    )


def _media_files(files: Sequence[Path], problems: list[Problem], progress: Progress | None) -> Iterator[Document]:
    for number, file in enumerate(files, start=1):
        if progress is not None:
            progress(number, len(files))
        if file.suffix.lower() in PROSE:
            yield from _prose(file)
            continue
        medium = KINDS[file.suffix.lower()](file)
        try:
            medium.decode()
        except MediaError as error:
            problems.append(Problem(str(file), 0, str(error)))
            continue
        yield Document([medium], name=str(file))


def _prose(path: Path) -> Iterator[Document]:
    try:
        text = path.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise DataError(f"{path}: cannot be read as UTF-8 text ({error}). Save it as UTF-8.") from None
    paragraphs = (" ".join(paragraph.split()) for paragraph in text.split("\n\n"))
    yield from passages(paragraphs, str(path))


def passages(paragraphs: Iterable[str], name: str, characters: int = PASSAGE) -> Iterator[Document]:
    """Join neighbouring paragraphs until each passage has about so many characters."""
    gathered: list[str] = []
    number = 0
    for paragraph in paragraphs:
        if paragraph:
            gathered.append(paragraph)
        if sum(map(len, gathered)) >= characters:
            number += 1
            yield Document(["\n".join(gathered)], name=f"{name}, passage {number}")
            gathered = []
    if gathered:
        yield Document(["\n".join(gathered)], name=f"{name}, passage {number + 1}")


def _media(media: Iterable[Image | Audio]) -> list[Document]:
    return [Document([medium], name=medium.name) for medium in media]


def _prose_of_english() -> list[Document]:
    found: list[Document] = []
    for source, group in groupby(english.paragraphs(), key=lambda pair: pair[0]):
        found += passages((paragraph for _, paragraph in group), f"english/{source}")
    return found


@dataclass(frozen=True)
class Source:
    """Documents of a data set: where they come from, and how they are read."""

    data_set: DataSet
    read: Callable[[], list[Document]]


def _drawings(*vendors: str) -> Source:
    return Source(EMOJI, lambda: _media(drawing.image for drawing in emoji.drawings() if drawing.vendor in vendors))


SETS = {
    "emoji": _drawings("google", "twitter"),
    "emoji-google": _drawings("google"),
    "emoji-twitter": _drawings("twitter"),
    "openclipart": Source(OPENCLIPART, lambda: _media(drawing.image for drawing in openclipart.clip_art())),
    "stamps": Source(STAMPS, lambda: _media(stamp.image for stamp in stamps.stamps() if stamp.image is not None)),
    "spoken-stamps": Source(STAMPS, lambda: _media(s for stamp in stamps.stamps() for s in stamp.spoken.values())),
    "klettres": Source(KLETTRES, lambda: _media(reading.sound for reading in klettres.readings())),
    "english": Source(ENGLISH, _prose_of_english),
}
"""Documents by name."""
