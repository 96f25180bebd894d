"""Interleaved pages: text and the images in it, in reading order, from HTML, MMC4 and OBELICS.

A page becomes one Example, whose prompt holds the text to be learned. Text between two images is a chunk. Which of the
two it goes with is drawn while training (Alayrac et al. 2022, appendix A.3.2: web pages show an image before or after
the text that speaks of it).
"""

from __future__ import annotations

import base64
import binascii
import re
from collections.abc import Iterator, Sequence
from dataclasses import replace
from html.parser import HTMLParser
from pathlib import Path
from typing import Any
from urllib.parse import unquote, urlparse

from vislang.capabilities import Progress
from vislang.data.fields import whole_characters
from vislang.data.jsonl import JsonLines
from vislang.data.parquet import ParquetFile
from vislang.data.problems import DataError, Problem, RecordError
from vislang.data.record_file import RecordFile
from vislang.data.remote import Folder, ending_of, within
from vislang.document import Document, EndOfChunk, Image, Learned, MediaError, Part
from vislang.example import VERBATIM, Example

SKIPPED = {"script", "style", "head", "nav", "header", "footer", "aside", "noscript", "template", "svg"}
"""Elements that hold nothing to read."""

VOID = {"area", "base", "br", "col", "embed", "hr", "img", "input", "link", "meta", "source", "track", "wbr"}
"""Elements that never close."""

INLINE = {
    *("a", "abbr", "b", "bdi", "bdo", "cite", "code", "dfn", "em", "font", "i", "img", "kbd", "label", "mark", "q"),
    *("s", "samp", "small", "span", "strong", "sub", "sup", "time", "tt", "u", "var", "wbr"),
}
"""Elements that do not break a line."""

HEAD = {"base", "link", "meta", "noscript", "script", "style", "template", "title"}
"""Elements of a page's head; any other ends it, where its end is left out."""

NAVIGATION = ("nav-", "nav_", "navbar", "navfooter", "navheader", "navigation")
"""Beginnings of the classes of elements for navigation; ``nav`` itself is one too."""

ICONS = {"prev", "next", "up", "home", "note", "tip", "warning", "caution", "important", "spacer", "blank"}
"""File names of drawings for navigation or attention."""

SMALLEST = 24
"""Images with a shorter side, in pixels, are decoration."""

LEAST_SIMILARITY = 0.24
"""MMC4's images that are less like their text, by CLIP, are left out (Awadalla et al. 2023, appendix)."""


EMPTY = "contains no page with an image."


def page_of(parts: Sequence[str | Image], name: str) -> Example:
    """A page: its text to be learned, an end of chunk after the text that stands before an image, and at the end."""
    found: list[Part] = []
    for part in parts:
        if isinstance(part, Image):
            if found and isinstance(found[-1], Learned):
                found.append(EndOfChunk())
            found.append(part)
        elif part.strip():
            if found and isinstance(found[-1], Learned):
                found[-1] = Learned(f"{found[-1].text}\n{part.strip()}")
            else:
                found.append(Learned(part.strip()))
    if found and isinstance(found[-1], Learned):
        found.append(EndOfChunk())
    return Example(name, Document(found, name=name, media_side="either"), wording=VERBATIM)


def html_pages(folder: Path, problems: list[Problem], progress: Progress | None = None) -> list[Example]:
    """The pages of a folder that show an image: every ``.html`` and ``.htm`` file in it.

    Navigation, scripts and small drawings are left out; descriptions of images (``alt``) are not part of the text.

    Args:
        folder: of the pages, and of the images that they name by relative paths.
        problems: images that cannot be used are added to it, and left out of their page.
        progress: called with (pages done, of how many).

    Raises:
        DataError: there is no page with an image in it.
    """
    files = _files(folder)
    known: dict[Path, Image | None] = {}
    pages: list[Example] = []
    for number, file in enumerate(files, start=1):
        parts: list[str | Image] = []
        for part in _parsed(file, problems):
            if isinstance(part, str):
                parts.append(part)
                continue
            path = part.path(file, folder)
            if path not in known:
                known[path] = _content(path, f"{file}", problems)
            if (image := known[path]) is not None:
                parts.append(image)
        if any(isinstance(part, Image) for part in parts):
            page = page_of(parts, str(file))
            pages.append(replace(page, id=file.relative_to(folder).as_posix()))
        if progress is not None:
            progress(number, len(files))
    if not pages:
        raise DataError(
            f"{folder}: contains no page with an image. It needs .html files with paths of images in the folder."
        )
    return pages


def _files(folder: Path) -> list[Path]:
    return sorted(p for p in folder.rglob("*") if p.suffix.lower() in (".html", ".htm") and p.is_file())


def _parsed(file: Path, problems: list[Problem]) -> list[str | _Shown]:
    """Lines and images of a page, in order; nothing of one that cannot be read."""
    parser = _PageParser()
    try:
        parser.feed(_text(file.read_bytes()))
        parser.close()
    except (OSError, AssertionError, ValueError) as error:
        problems.append(Problem(str(file), 0, f"not HTML that can be read ({error}). Save the page again.", "format"))
        return []
    return list(parser.parts())


def _text(raw: bytes) -> str:
    """A page's text, by the encoding that it names, or else UTF-8."""
    named = re.search(rb"<meta[^>]+charset\s*=\s*[\"']?([\w-]+)", raw[:2048], re.IGNORECASE)
    try:
        return raw.decode(named[1].decode() if named else "utf-8", errors="replace").removeprefix("\ufeff")
    except LookupError:
        return raw.decode("utf-8", errors="replace")


def mmc4(origin: str, path: Path | None = None) -> JsonLines:
    """A file of MMC4's pages (Zhu et al. 2023, arXiv 2304.06939): JSON Lines with ``text_list`` and ``image_info``.

    Each image stands before the sentence that it was matched with. It is looked for in ``image_base64``, as
    OpenFlamingo packs it, or by ``image_name`` beside the file and in ``images/`` there.

    Args:
        origin: path or address of the file.
        path: where it lies, if that is not ``origin``.
    """
    return JsonLines(origin, "mmc4", _mmc4_page, path, "an object", "the pages of mmc4", EMPTY)


def obelics(origin: str, path: Path | None = None) -> RecordFile:
    """A file of OBELICS' pages (Laurençon et al. 2023, arXiv 2306.16527): ``texts`` and ``images`` of one length, of
    which one is null in each entry; JSON Lines or Parquet.

    An image is an address, a path relative to the file, or ``{"bytes", "path"}`` as the datasets library keeps images.

    Args:
        origin: path or address of the file: ``.jsonl`` or ``.parquet``.
        path: where it lies, if that is not ``origin``.
    """
    if ending_of(origin) == ".parquet":
        return ParquetFile(origin, "obelics", _obelics_page, ("texts", "images"), path, EMPTY)
    return JsonLines(origin, "obelics", _obelics_page, path, "an object", "the pages of obelics", EMPTY)


def _mmc4_page(record: dict[str, Any], origin: str, number: int, folder: Folder) -> Example | None:
    texts, images = _lists(record, "text_list", "image_info")
    before: dict[int, list[Image]] = {}
    for info in images:
        if not isinstance(info, dict) or not isinstance(info.get("matched_text_index"), int):
            raise RecordError('an entry of "image_info" has no number as "matched_text_index".')
        index = info["matched_text_index"]
        if not 0 <= index < len(texts):
            raise RecordError(f'"matched_text_index" is {index}, and "text_list" has {len(texts)} texts.')
        likeness = info.get("matched_sim", 1.0)
        if not isinstance(likeness, int | float):
            raise RecordError('"matched_sim" is not a number.')
        if likeness >= LEAST_SIMILARITY:
            before.setdefault(index, []).append(_mmc4_image(info, folder))
    if not before:
        return None
    parts: list[str | Image] = []
    for index, text in enumerate(texts):
        parts += [*before.get(index, []), _entry(text, "text_list", index)]
    return page_of(parts, f"{origin}:{number}")


def _obelics_page(record: dict[str, Any], origin: str, number: int, folder: Folder) -> Example | None:
    texts, images = _lists(record, "texts", "images")
    if len(texts) != len(images):
        raise RecordError(
            f'"texts" has {len(texts)} entries and "images" {len(images)}; they must have the same length.'
        )
    parts: list[str | Image] = []
    for entry, (text, image) in enumerate(zip(texts, images, strict=True), start=1):
        if (text is None) == (image is None):
            raise RecordError(f"entry {entry} is both a text and an image, or neither.")
        parts.append(_entry(text, "texts", entry) if image is None else _obelics_image(image, folder))
    return page_of(parts, f"{origin}:{number}") if any(isinstance(part, Image) for part in parts) else None


def _entry(text: Any, key: str, number: int) -> str:
    if not isinstance(text, str):
        raise RecordError(f'entry {number} of "{key}" is not text.')
    return whole_characters(text, f'entry {number} of "{key}"')


def _lists(record: dict[str, Any], *keys: str) -> list[list[Any]]:
    for key in keys:
        if not isinstance(record.get(key), list):
            raise RecordError(f'has no list "{key}". A page has {" and ".join(keys)}.')
    return [record[key] for key in keys]


def _mmc4_image(info: dict[str, Any], folder: Folder) -> Image:
    if "image_base64" in info:
        try:
            return Image(base64.b64decode(info["image_base64"], validate=True))
        except (binascii.Error, TypeError, ValueError):
            raise RecordError('"image_base64" is not base64. Pack the image again.') from None
    name = info.get("image_name")
    if not isinstance(name, str):
        raise RecordError('an entry of "image_info" has neither "image_base64" nor "image_name".')
    inside = folder / "images" / name if isinstance(folder, Path) else None
    return Image(inside if inside is not None and inside.is_file() else within(folder, name))


def _obelics_image(image: Any, folder: Folder) -> Image:
    if isinstance(image, dict):
        data, path = image.get("bytes"), image.get("path")
        if isinstance(data, bytes):
            return Image(data)
        image = path
    if not isinstance(image, str):
        raise RecordError("an image is neither a path nor bytes.")
    return Image(within(folder, image))


def _content(path: Path, page: str, problems: list[Problem]) -> Image | None:
    """The image of a page, unless it is an icon or cannot be used."""
    if path.stem.lower() in ICONS:
        return None
    image = Image(path)
    try:
        width, height = image.decode().size
    except MediaError as error:
        problems.append(Problem(page, 0, str(error), error.kind))
        return None
    return image if min(width, height) >= SMALLEST else None


class _Shown:
    """An image of a page, by its path."""

    def __init__(self, source: str):
        self.source = source

    def path(self, page: Path, folder: Path) -> Path:
        """Its file: relative to the page, or, where its path begins with a slash, to the folder of all pages."""
        beside = folder / self.source.lstrip("/") if self.source.startswith("/") else page.parent / self.source
        return beside if "\0" in self.source else beside.resolve()


class _PageParser(HTMLParser):
    """Collects lines of text and images, leaving out navigation."""

    def __init__(self) -> None:
        super().__init__(convert_charrefs=True)
        self._found: list[str | _Shown] = []
        self._line: list[str] = []
        self._open: list[str] = []
        self._skipping = 0
        """How many elements are open from the outermost skipped one on; 0 outside of any."""

    def parts(self) -> Iterator[str | _Shown]:
        """Lines and images, in order."""
        self._end_line()
        yield from self._found

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        named = {name: value or "" for name, value in attrs}
        if self._open[-1:] == ["head"] and tag not in HEAD:
            self.handle_endtag("head")
        if tag == "img" and not self._skipping:
            self._image(named)
        if tag in VOID:
            if tag not in INLINE:
                self._end_line()
            return
        if (
            self._skipping
            or tag in SKIPPED
            or any(name == "nav" or name.startswith(NAVIGATION) for name in named.get("class", "").lower().split())
        ):
            self._skipping += 1
        elif tag not in INLINE:
            self._end_line()
        self._open.append(tag)

    def handle_startendtag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.handle_starttag(tag, attrs)
        if tag not in VOID:
            self.handle_endtag(tag)

    def handle_endtag(self, tag: str) -> None:
        if tag not in self._open:
            return
        # What was left open inside of it ends too.
        while self._open:
            closed = self._open.pop()
            self._skipping = max(0, self._skipping - 1)
            if closed == tag:
                break
        if not self._skipping and tag not in INLINE:
            self._end_line()

    def handle_data(self, data: str) -> None:
        if not self._skipping:
            self._line.append(data)

    def _image(self, named: dict[str, str]) -> None:
        source = named.get("src", "")
        try:
            address = urlparse(source)
            if not source or address.scheme or address.netloc:
                return
            source = unquote(address.path)
        except ValueError:
            # No address, then; as a path it is looked for, and reported as missing.
            pass
        self._end_line()
        self._found.append(_Shown(source))

    def _end_line(self) -> None:
        line = " ".join("".join(self._line).split())
        self._line = []
        if line:
            self._found.append(line)
