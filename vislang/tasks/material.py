"""What a model that writes learns from, by name: questions, pairs of a medium and a caption, and pages."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

from vislang.capabilities import Progress
from vislang.data.example import Example
from vislang.data.fetch import EMOJI, GIMP_MANUAL, DataSet
from vislang.data.jsonl import DataError, Problem, read_jsonl
from vislang.data.tars import read_tar
from vislang.data.web_pages import html_pages, mmc4, obelics
from vislang.document import Document, Image
from vislang.tasks.captioned import PAIRS
from vislang.tasks.emoji_groups import episodes
from vislang.tasks.question_sets import QUESTION_SETS

Material = Example | Document
"""A question or a pair, around which a prompt is put; or a page, whose text is learned as it stands."""

PageReader = Callable[[Path, list[Problem], Progress | None], list[Document]]

PAGES: dict[str, PageReader] = {"pages": html_pages, "mmc4": mmc4, "obelics": obelics}
"""Readers of interleaved pages, by the word before the colon."""

MANUAL, EPISODES = "gimp-manual", "emoji-episodes"


def needed_for(source: str) -> DataSet | None:
    """What has to be fetched before a source can be read."""
    if source == MANUAL:
        return GIMP_MANUAL
    if source == EPISODES:
        return EMOJI
    return PAIRS[source].data_set if source in PAIRS else None


def material(
    source: str, split: str, problems: list[Problem], progress: Progress | None = None
) -> list[Example] | list[Document]:
    """What a source holds.

    Args:
        source: a set of questions (``easy-vqa``, ``easy-vqa-films``) or of pairs (``emoji-google-names``, ...);
            ``emoji-episodes``; ``gimp-manual``; ``pages:FOLDER`` of HTML; ``mmc4:FILE`` or ``obelics:FILE``; a ``.tar``
            of pairs, or several by a pattern with ``*``; or a JSON Lines file.
        split: of a set that has splits.
        problems: bad records are added to it, and left out.
        progress: called with (done, of how many).

    Raises:
        DataError: there is no such thing, or nothing usable in it.
    """
    kind, colon, rest = source.partition(":")
    if source in QUESTION_SETS:
        return QUESTION_SETS[source](split)
    if source in PAIRS:
        return [as_example(document) for document in PAIRS[source].read()]
    if source == EPISODES:
        return episodes()
    if source == MANUAL:
        return html_pages(GIMP_MANUAL.path("gimp-help-en", "usr/share/gimp/2.0/help/en"), problems, progress)
    if kind in PAGES and colon:
        path = Path(rest)
        if not (path.is_dir() if kind == "pages" else path.is_file()):
            raise DataError(f"{source}: there is no such {'folder' if kind == 'pages' else 'file'}.")
        return PAGES[kind](path, problems, progress)
    if source.endswith(".tar"):
        root = Path(Path(source).anchor)
        tars = [Path(source)] if Path(source).is_file() else sorted(root.glob(str(Path(source).relative_to(root))))
        if not tars:
            raise DataError(f"{source}: there is no such file.")
        return [example for tar in tars for example in read_tar(tar, problems, progress)]
    if Path(source).is_file():
        records = read_jsonl(source, progress=progress)
        problems += records.problems
        return records.examples
    known = ", ".join([*QUESTION_SETS, *PAIRS, EPISODES, MANUAL, *(f"{name}:PATH" for name in PAGES)])
    raise DataError(f"{source}: neither a file nor something known: {known}, a .tar, a .jsonl file.")


def as_example(pair: Document) -> Example:
    """A pair of an image and a text as something to caption."""
    image, text = pair.parts
    assert isinstance(image, Image)
    assert isinstance(text, str)
    return Example(pair.name, (text,), image)
