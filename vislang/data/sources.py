"""Sources: any name, file or folder becomes Examples. This is the one resolver of every verb and every recipe."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path

from filelock import FileLock

from vislang.cache import cache_folder
from vislang.capabilities import Progress
from vislang.data.fetch import EMOJI, EMOJI_NAMES, ENGLISH, GIMP_MANUAL, KLETTRES, OPENCLIPART, STAMPS, DataSet, fetch
from vislang.data.files import MEDIA, read_files, read_folder
from vislang.data.index import IndexedFile
from vislang.data.indexed import INDEX_ABOVE, Indexed
from vislang.data.jsonl import own_records
from vislang.data.parquet import own_rows
from vislang.data.problems import DataError, NoSuchSource, Problem, RecordError, must_be_good
from vislang.data.prose import PROSE
from vislang.data.record_file import RecordFile, read_all
from vislang.data.remote import RemoteFile, ending_of, is_address, local_copy, matching_addresses
from vislang.data.sets import (
    easy_vqa,
    emoji,
    emoji_groups,
    english,
    films,
    klettres,
    moods,
    openclipart,
    reasons,
    scenes,
    stamps,
    things,
    translations,
    walks,
)
from vislang.data.tars import TarOfPairs
from vislang.data.web_pages import html_pages, mmc4, obelics
from vislang.document import Document
from vislang.example import Example


@dataclass(frozen=True)
class Source:
    """A set that comes by package.

    Attributes:
        about: one line.
        kind: of its targets, one of :data:`vislang.example.TARGETS`; ``none`` where nothing is asked.
        media: what its prompts hold, of ``text``, ``image``, ``several images``, ``video`` and ``audio``.
        sizes: the number of examples of each split; of ``all`` where there are no splits.
        licence: of the data.
        data_sets: what is fetched for it; nothing where pip installs it.
        read: the examples of a split.
    """

    about: str
    kind: str
    media: frozenset[str]
    sizes: Mapping[str, int]
    licence: str
    data_sets: tuple[DataSet, ...]
    read: Callable[[str], list[Example]]

    @property
    def splits(self) -> tuple[str, ...]:
        """The names of its splits; empty where it has none."""
        return () if set(self.sizes) == {"all"} else tuple(self.sizes)

    @property
    def is_here(self) -> bool:
        """Whether it can be read without fetching anything."""
        return all(data_set.is_here for data_set in self.data_sets) if self.data_sets else easy_vqa.is_here()


def _set(data_set: DataSet, about: str, kind: str, media: str, size: int, read: Callable[[], list[Example]]) -> Source:
    """A source without splits; ``media`` with commas between them."""
    return Source(
        about, kind, frozenset(media.split(", ")), {"all": size}, data_set.licence, (data_set,), lambda _: read()
    )


def _composed(
    name: str, about: str, kind: str, media: str, sizes: Mapping[str, int], licence: str, *data_sets: DataSet
) -> Source:
    """A set that its generator composes of the pictures of data sets; ``media`` with commas between them."""

    def read(split: str) -> list[Example]:
        # Imported when it is needed, as the benchmarks are.
        from vislang.tasks.composed import COMPOSED

        return COMPOSED[name].opened().examples(split)

    return Source(about, kind, frozenset(media.split(", ")), sizes, licence, data_sets, read)


def _translations(of: str, sizes: Mapping[str, int], *data_sets: DataSet) -> dict[str, Source]:
    """The arms of a set of translations, by name."""
    about = {
        "": f"{of} and their English names, with translations into many languages",
        "-text": f"the English names of {of} alone",
        "-image": f"{of} alone, so that a translation is a caption in some language",
    }
    return {
        f"{of.removesuffix('s')}-translation{arm}": Source(
            about[arm],
            "text",
            frozenset(media),
            sizes,
            "; ".join(data_set.licence for data_set in data_sets),
            data_sets,
            partial(translations.translations, of, arm=arm),
        )
        for arm, media in translations.ARMS.items()
    }


TRANSLATIONS = {
    **_translations("stamps", {"train": 25_560, "val": 6_731, "test": 15_970}, STAMPS),
    **_translations("emoji", {"train": 23_450, "val": 4_400, "test": 12_325}, EMOJI, EMOJI_NAMES),
}
"""The arms of the sets of translations, by name."""

SOURCES: dict[str, Source] = {
    easy_vqa.NAME: Source(
        "questions about coloured shapes, official split",
        "answers",
        frozenset(("text", "image")),
        {"train": 38_575, "test": 9_673},
        "MIT",
        (),
        easy_vqa.easy_vqa,
    ),
    films.NAME: Source(
        "questions about the first or last frame of films made of easy-VQA's images",
        "answers",
        frozenset(("text", "video")),
        films.COUNTS,
        "MIT",
        (),
        films.films,
    ),
    scenes.NAME: Source(
        "expressions that refer to one of five emoji in a scene",
        "box",
        frozenset(("text", "image")),
        {"train": 9_268, "test": 1_485, "test-twitter": 1_495},
        EMOJI.licence,
        (EMOJI,),
        scenes.scenes,
    ),
    reasons.NAME: _composed(
        reasons.NAME,
        "questions about composed scenes with people, and the reasons of the answers, as in VCR",
        "choice",
        "text, image",
        {"train": 9_000, "val": 1_200, "test": 2_400},
        things.LICENCE,
        *things.DATA_SETS,
    ),
    walks.NAME: _composed(
        walks.NAME,
        "instructions on composed maps, with six paths to choose from, as in R2R",
        "choice",
        "text, image, several images",
        {"train": 4_500, "val": 600, "test": 1_200},
        things.LICENCE,
        *things.DATA_SETS,
    ),
    moods.NAME: _composed(
        moods.NAME,
        "words about things that are there or gone, and pictures of them, labelled as in MVSA",
        "label",
        "text, image",
        moods.POSTS,
        things.LICENCE,
        *things.DATA_SETS,
    ),
    "emoji-google-names": _set(
        EMOJI, "Google's emoji and their names", "text", "image", 1_911, lambda: emoji.named("google")
    ),
    "emoji-google-names-known": _set(
        EMOJI,
        "the same without the three groups that are kept for tests",
        "text",
        "image",
        1_403,
        lambda: emoji.named("google", emoji_groups.NEW_GROUPS),
    ),
    "emoji-twitter-names": _set(
        EMOJI, "Twitter's emoji and their names", "text", "image", 1_911, lambda: emoji.named("twitter")
    ),
    "clip-art-titles": _set(
        OPENCLIPART, "clip art with titles and with keywords", "text", "image", 9_497, openclipart.captioned
    ),
    "stamp-pictures": _set(STAMPS, "stamps and their English captions", "text", "image", 785, stamps.captioned),
    "stamp-pictures-train": _set(
        STAMPS, "one half of them, by caption", "text", "image", 415, lambda: stamps.captioned(0)
    ),
    "stamp-pictures-test": _set(STAMPS, "the other half", "text", "image", 370, lambda: stamps.captioned(1)),
    **TRANSLATIONS,
    "emoji-episodes": _set(
        EMOJI,
        "new names of emoji groups, to be learned from 16 shots",
        "text",
        "image",
        emoji_groups.EPISODES,
        emoji_groups.episodes,
    ),
    "gimp-manual": _set(
        GIMP_MANUAL,
        "pages of a manual, images among their text",
        "none",
        "text, image, several images",
        475,
        lambda: html_pages(GIMP_MANUAL.path("gimp-help-en", "usr/share/gimp/2.0/help/en"), []),
    ),
    "emoji": _set(EMOJI, "emoji of both vendors", "none", "image", 7_572, lambda: emoji.pictures(*emoji.VENDORS)),
    "emoji-google": _set(EMOJI, "Google's emoji", "none", "image", 3_786, lambda: emoji.pictures("google")),
    "emoji-twitter": _set(EMOJI, "Twitter's emoji", "none", "image", 3_786, lambda: emoji.pictures("twitter")),
    "openclipart": _set(OPENCLIPART, "clip art", "none", "image", 6_884, openclipart.pictures),
    "stamps": _set(STAMPS, "Tux Paint's stamps", "none", "image", 785, stamps.pictures),
    "spoken-stamps": _set(
        STAMPS, "captions of the stamps, spoken in many languages", "none", "audio", 7_391, stamps.recordings
    ),
    "klettres": _set(
        KLETTRES, "letters and syllables, spoken in some 25 languages", "none", "audio", 1_835, klettres.recordings
    ),
    "english": _set(ENGLISH, "English prose and definitions, in passages", "none", "text", 40_774, english.prose),
}
"""Sets that come by package, by name."""

RECORDS = (".jsonl", ".ndjson", ".json")
"""Endings of JSON Lines files."""

PARQUET = ".parquet"
"""Ending of Parquet files."""

PAGES = {"mmc4": mmc4, "obelics": obelics}
"""Files of interleaved pages."""

PAIRS = ("pairs", "retrieval", "captions")
"""Tasks of image-text pairs; all of them take a source of pairs, or a folder in Karpathy's format."""

FORMS = (
    "the name of a set (vislang data list), BENCHMARK:FOLDER[:SPLIT] (vislang tasks lists the benchmarks), "
    "pairs:SOURCE or pairs:FOLDER[:SPLIT] in Karpathy's format, pages:FOLDER of HTML, mmc4:FILE, obelics:FILE, a "
    ".jsonl, .parquet or .tar file or several by a pattern with *, a folder of media, a .txt or .md file, or a single "
    "medium; a file may be an https:// or s3:// address"
)
"""The forms of a source, for messages."""


def load_source(
    spec: str,
    split: str | None = None,
    problems: list[Problem] | None = None,
    progress: Progress | None = None,
    targets: bool = True,
) -> list[Example]:
    """The examples of a source. What comes by package and is not here is fetched.

    Args:
        spec: one of :data:`FORMS`. A set or a benchmark may name its split after a colon: ``easy-vqa:test``.
        split: of a source with splits that names none; without one, the one to train on, or, of a benchmark without
            one, the one to evaluate.
        problems: bad records are added to it, and left out; without it they are an error.
        progress: called with (records or files done, of how many).
        targets: False takes what can be read without its target, as for pretraining without labels: the media of each
            record, or its text where it has none.

    Raises:
        NoSuchSource: ``spec`` is none.
        DataError: there is no such split, nothing usable is in it, or it has bad records.
    """
    found: list[Problem] = []
    examples = _read(spec, split, found, progress, targets)
    if problems is None:
        must_be_good(found, skip=False, name=spec)
    else:
        problems += found
    return examples if targets else [_unlabelled(example) for example in examples]


def open_source(
    spec: str,
    split: str | None = None,
    problems: list[Problem] | None = None,
    progress: Progress | None = None,
    targets: bool = True,
    index_above: int = INDEX_ABOVE,
    indexed: bool | None = None,
) -> Sequence[Example]:
    """The examples of a source for training: Indexed for long files, otherwise a list as of :func:`load_source`.

    The bad records of indexed files are skipped; :attr:`~vislang.data.index.IndexedFile.faults` counts them.

    Args:
        spec, split, problems, progress, targets: see :func:`load_source`.
        index_above: a source is indexed if its files have more records than this in all.
        indexed: whether to index the source; None decides by ``index_above``.

    Raises:
        DataError: see :func:`load_source`.
    """
    if split in (None, "train") and indexed is not False:
        files = record_files(spec, targets, progress)
        if files and (indexed or sum(file.count() for file in files) > index_above):
            found = Indexed([IndexedFile(file, progress) for file in files])
            return found if targets else found.map(_unlabelled)
    return load_source(spec, split, problems, progress, targets)


def record_files(spec: str, targets: bool = True, progress: Progress | None = None) -> list[RecordFile]:
    """The files of records of a source; empty if it is not made of such files. Addresses are downloaded.

    Args:
        spec: the source.
        targets: whether a record without a target is bad.
        progress: called with (bytes downloaded, bytes in all).

    Raises:
        DataError: an address does not exist, or nothing matches a pattern.
        RemoteError: an address cannot be read now.
    """
    kind, colon, rest = spec.partition(":")
    if kind in PAIRS and colon:
        from vislang.tasks.retrieval import must_be_captions, must_be_pairs

        files = record_files(rest, True, progress)
        for file in files:
            file.condition = OneByOne(must_be_captions if kind == "captions" else must_be_pairs)
            file.reader = f"{kind}: {file.reader}"
        return files
    make: Callable[..., RecordFile] | None
    if kind in PAGES and colon:
        make, spec = PAGES[kind], rest
    else:
        make = _maker(ending_of(spec), targets)
        if make is None or Path(spec).is_dir():
            return []
    if is_address(spec):
        return [make(address, path=_downloaded(address, progress)) for address in matching_addresses(spec)]
    return [make(str(path)) for path in _matching(Path(spec))]


def _maker(ending: str, targets: bool) -> Callable[..., RecordFile] | None:
    """The class of a file of records by its extension; None for other files."""
    if ending in RECORDS:
        return partial(own_records, targets=targets)
    if ending == PARQUET:
        return partial(own_rows, targets=targets)
    return TarOfPairs if ending == ".tar" else None


def _downloaded(address: str, progress: Progress | None) -> Path:
    lock = f"{hashlib.sha256(address.encode()).hexdigest()[:32]}.lock"
    try:
        # Processes of one run need the same file at the same time.
        with FileLock(cache_folder("remote") / lock):
            return local_copy(address, progress)
    except FileNotFoundError:
        raise DataError(f"{address}: no such file.") from None


@dataclass(frozen=True)
class OneByOne:
    """A check of a list of examples as the condition of a file's records."""

    check: Callable[[Sequence[Example]], None]

    def __call__(self, example: Example) -> None:
        """Check an example.

        Raises:
            RecordError: it does not pass.
        """
        try:
            self.check([example])
        except DataError as error:
            raise RecordError(str(error).removeprefix(f"{example.name}: ")) from None


def splits_of(spec: str) -> tuple[str, ...]:
    """The names of the splits of a source; empty where it has none, or where ``spec`` names one of them.

    Raises:
        DataError: it is the folder of a benchmark that cannot be used.
    """
    if spec in SOURCES:
        return SOURCES[spec].splits
    kind, _, rest = spec.partition(":")
    if kind in PAIRS and rest:
        if not Path(rest).is_dir():
            return splits_of(rest)
        from vislang.tasks.retrieval import karpathy_splits

        return tuple(karpathy_splits(Path(rest)))
    if not rest or ":" in rest or kind in (*SOURCES, "pages", *PAGES):
        return ()
    benchmarks = _benchmarks()
    return benchmarks[kind](Path(rest)).splits if kind in benchmarks else ()


def _read(
    spec: str, split: str | None, problems: list[Problem], progress: Progress | None, targets: bool
) -> list[Example]:
    kind, colon, rest = spec.partition(":")
    if spec in SOURCES or (kind in SOURCES and colon and SOURCES[kind].splits):
        return _packaged(kind, rest or split)
    folder, _, own = rest.partition(":")
    if kind in PAIRS and colon:
        from vislang.tasks.retrieval import karpathy, must_be_captions, must_be_pairs

        if Path(folder).is_dir():
            return karpathy(Path(folder), own or split)
        pairs = _read(rest, split, problems, progress, targets=True)
        (must_be_captions if kind == "captions" else must_be_pairs)(pairs)
        return pairs
    if files := record_files(spec, targets, progress):
        _must_want_all(spec, split)
        return [example for file in files for example in read_all(file, problems, progress)]
    if kind == "pages" and colon:
        _must_want_all(spec, split)
        if not Path(rest).is_dir():
            raise DataError(f"{spec}: no such folder.")
        return html_pages(Path(rest), problems, progress)
    if colon and kind in (benchmarks := _benchmarks()):
        task = benchmarks[kind](Path(folder))
        return task.examples(own or split or task.support_split or task.default_split, problems, progress)
    _must_want_all(spec, split)
    path = Path(spec)
    if path.is_dir():
        return read_folder(path, problems, progress)
    ending = ending_of(spec)
    if ending in MEDIA and is_address(spec):
        return read_files([RemoteFile(spec)], problems, progress)
    if ending in (*MEDIA, *PROSE) and path.exists():
        return read_files([path], problems, progress)
    there = "a file of no known kind" if path.exists() or is_address(spec) else "no such source"
    raise NoSuchSource(f"{spec}: {there}. A source is {FORMS}.")


def _packaged(name: str, split: str | None) -> list[Example]:
    source = SOURCES[name]
    if not source.splits:
        _must_want_all(name, split)
    split = split or "train"
    if source.splits and split not in source.splits:
        raise DataError(f"{name}: no split {split!r}. The splits are {', '.join(source.splits)}.")
    for data_set in source.data_sets:
        if not data_set.is_here:
            fetch(data_set)
    return source.read(split)


def _must_want_all(spec: str, split: str | None) -> None:
    if split not in (None, "train"):
        raise DataError(f"{spec}: has no splits. Remove the split {split!r}.")


def _matching(path: Path) -> list[Path]:
    """The file of this name, whether it exists or not, or those that match it as a pattern."""
    if path.exists() or "*" not in str(path):
        return [path]
    root = Path(path.anchor)
    found = sorted(root.glob(str(path.relative_to(root))))
    if not found:
        raise DataError(f"{path}: no such file.")
    return found


def _benchmarks() -> Mapping:
    """The official benchmarks by name. They are imported when they are needed: the readers of data know no task."""
    from vislang.tasks.benchmarks import BENCHMARKS

    return BENCHMARKS


def _unlabelled(example: Example) -> Example:
    """What is learned from without labels: the media alone where a question or a caption stands beside them."""
    prompt = example.prompt
    if prompt.media and not example.wording.verbatim:
        prompt = Document(prompt.media, name=prompt.name)  # type: ignore[arg-type]  # each is an Image, Video or Audio
    return replace(example, prompt=prompt, target=None, choices=(), shots=())
