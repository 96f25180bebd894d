"""The catalogue of tasks, by name."""

from __future__ import annotations

import difflib
import string
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path

from vislang.capabilities import Progress
from vislang.data.fetch import EMOJI, KLETTRES, OPENCLIPART, STAMPS, DataSet, fetch
from vislang.data.problems import DataError, NoSuchSource, Problem, must_be_good
from vislang.data.remote import is_address
from vislang.data.sets import easy_vqa, films, scenes
from vislang.data.sets.emoji_groups import NONSENSE
from vislang.data.sources import PAIRS, SOURCES, TRANSLATIONS, load_source
from vislang.example import Example
from vislang.metrics import by_kind, retrieval
from vislang.tasks import few_shot, probes
from vislang.tasks.benchmarks import BENCHMARKS
from vislang.tasks.composed import COMPOSED
from vislang.tasks.retrieval import Retrieval, karpathy_splits
from vislang.tasks.task import Reader, ReadTask, Task, images_of, labels_of, media_of, split_named
from vislang.tasks.translation import SET_METRICS, TranslationSet

Opener = Callable[[str, "list[Problem] | None", "Progress | None"], Task]
"""Opens a task; its arguments are the text after the name and colon, and ``problems`` and ``progress`` of
``open_task``."""

KARPATHY = ("train", "val", "test")
"""Splits of Flickr30k and MS COCO in Karpathy's format."""


@dataclass(frozen=True)
class Entry:
    """The description of a task, available without opening it.

    Attributes:
        name, about, kind, media, metrics, splits, labels, images: see :class:`~vislang.tasks.task.Task`; for a
            benchmark, the splits that its authors publish.
        open: opens the task.
        needs: what must follow the name, such as ``FOLDER[:SPLIT]``; empty for nothing.
        files: the required files in the folder.
        data_sets: the data sets that it needs.
    """

    name: str
    about: str
    kind: str
    media: frozenset[str]
    metrics: tuple[str, ...]
    splits: tuple[str, ...]
    open: Opener
    labels: tuple[str, ...] = ()
    images: int = 1
    needs: str = ""
    files: str = ""
    data_sets: tuple[DataSet, ...] = ()

    @property
    def support_split(self) -> str | None:
        """The split for shots and baselines; None without a training split."""
        return next((split for split in self.splits if split.startswith("train")), None)

    @property
    def spec(self) -> str:
        """The task as it is typed."""
        return f"{self.name}:{self.needs}" if self.needs else self.name


def open_task(
    spec: str, split: str | None = None, problems: list[Problem] | None = None, progress: Progress | None = None
) -> Task:
    """Open a task. A missing packaged set is downloaded.

    Args:
        spec: ``NAME`` or ``NAME:SPLIT`` of a packaged set; ``BENCHMARK:FOLDER[:SPLIT]``; ``retrieval:`` or
            ``captions:`` with ``FOLDER[:SPLIT]`` in Karpathy's format or with a source of pairs; or any other data
            source whose records have targets (:data:`vislang.data.sources.FORMS`).
        split: the split to evaluate, if ``spec`` names none; by default, the task's default split.
        problems: bad records of a user's file are skipped and added to this list; without it, they are an error.
        progress: called with (records done, records in all).

    Returns:
        The task; its ``default_split`` is the split to evaluate.

    Raises:
        DataError: there is no such task or split, or ``spec`` and ``split`` name two, or its data cannot be used.
    """
    name, _, rest = spec.partition(":")
    if name not in TASKS:
        task, own = _source(spec, problems, progress), ""
    else:
        entry = TASKS[name]
        if entry.needs and not rest:
            files = f" The folder contains {entry.files}." if entry.files else ""
            raise DataError(f"{name} needs data. Write {name}:{entry.needs}.{files}")
        for data_set in entry.data_sets:
            if not data_set.is_here:
                fetch(data_set)
        given, _, own = rest.partition(":") if entry.needs else ("", "", rest)
        if is_address(rest):
            given, own = rest, ""
        task = entry.open(given, problems, progress)
    named = {split_named(name, task.splits, task.name) for name in (own, split) if name}
    if len(named) > 1:
        raise DataError(f"{spec}: names the split {own}, and --split {split} another one; leave one of them out.")
    task.default_split = named.pop() if named else task.default_split
    return task


def _source(spec: str, problems: list[Problem] | None, progress: Progress | None) -> Task:
    """A data source as a task; its kind is that of its records."""
    try:
        read, default = _readers(spec, problems, progress)
    except NoSuchSource:
        close = difflib.get_close_matches(spec.partition(":")[0], [*TASKS, *SOURCES], n=1)
        meant = f" Did you mean {close[0]}?" if close else ""
        raise DataError(
            f"no task {spec!r}.{meant} The tasks are {', '.join(TASKS)}; or give a data source whose records have "
            "targets, such as a FILE.jsonl."
        ) from None
    examples = read[default](None, None)
    kind = by_kind.kind_of_all(examples)
    if kind == "none":
        raise DataError(
            f"{spec}: its records have no targets, so nothing can be scored. Use it for training without labels, embed "
            "or search."
        )
    about = f"{len(examples):,} records of a data source"
    support = "train" if "train" in read else None
    return ReadTask(
        spec, about, kind, media_of(examples), read, default, support, labels_of(examples), images_of(examples)
    )


def _readers(source: str, problems: list[Problem] | None, progress: Progress | None) -> tuple[dict[str, Reader], str]:
    """Readers of the splits of a source, and the default split."""
    kind, _, rest = source.partition(":")
    if kind in PAIRS and Path(rest).is_dir():
        splits = karpathy_splits(Path(rest))
        default = next((split for split in ("test", "val") if split in splits), next(iter(splits)))
        return {split: _kept(own) for split, own in splits.items()}, default
    examples = load_source(source, None, problems, progress)
    if not examples:
        must_be_good(problems or [], skip=False, name=source)
        raise DataError(f"{source}: contains no valid records.")
    return {"all": _kept(examples)}, "all"


def _kept(examples: list[Example]) -> Reader:
    """A reader that returns examples that are already read."""
    return lambda problems, progress: examples


def _retrieval(given: str, problems: list[Problem] | None, progress: Progress | None) -> Task:
    read, default = _readers(f"retrieval:{given}", problems, progress)
    return Retrieval("retrieval", TASKS["retrieval"].about, read, default)


def _captions(given: str, problems: list[Problem] | None, progress: Progress | None) -> Task:
    read, default = _readers(f"captions:{given}", problems, progress)
    examples = read[default](None, None)
    together = {split: _joined(reader) for split, reader in read.items()}
    support = "train" if "train" in read else None
    return ReadTask("captions", TASKS["captions"].about, "text", media_of(examples), together, default, support)


def _joined(reader: Reader) -> Reader:
    """A reader that merges all captions of a medium into one example."""

    def read(problems: list[Problem] | None, progress: Progress | None) -> list[Example]:
        by_medium: dict[object, list[Example]] = {}
        for example in reader(problems, progress):
            by_medium.setdefault(example.media[0], []).append(example)
        return [joined for own in by_medium.values() for joined in few_shot.captions_together(own)]

    return read


def _benchmark(name: str) -> Entry:
    made = BENCHMARKS[name]
    return Entry(
        name,
        made.about,
        made.kind,
        made.media,
        made.metrics,
        made.splits,
        lambda given, problems, progress: made(Path(given)),
        made.labels,
        made.images,
        "FOLDER[:SPLIT]",
        made.files,
    )


def _packaged(name: str, made: type[ReadTask] = ReadTask, metrics: tuple[str, ...] = ()) -> Entry:
    """A packaged set with splits, whose metrics are those of its kind of target unless its class has others."""
    source = SOURCES[name]

    def opened(given: str, problems: list[Problem] | None, progress: Progress | None) -> Task:
        read = {split: _source_reader(name, split) for split in source.splits}
        return made(name, source.about, source.kind, source.media, read, "test", "train")

    metrics = metrics or by_kind.METRICS[source.kind]
    return Entry(
        name, source.about, source.kind, source.media, metrics, source.splits, opened, data_sets=source.data_sets
    )


def _composed(name: str) -> Entry:
    """A composed set, scored as the benchmark whose format it has."""
    made, source = COMPOSED[name], SOURCES[name]
    return Entry(
        name,
        made.about,
        made.kind,
        made.media,
        made.metrics,
        source.splits,
        lambda given, problems, progress: made.opened(),
        made.labels,
        made.images,
        data_sets=source.data_sets,
    )


def _source_reader(name: str, split: str) -> Reader:
    return lambda problems, progress: load_source(name, split, problems, progress)


def _few_shot(
    name: str,
    about: str,
    kind: str,
    make: Callable[[], Mapping[str, list[Example]]],
    data_set: DataSet,
    labels: tuple[str, ...] = (),
) -> Entry:
    media = frozenset({"image"})

    def opened(given: str, problems: list[Problem] | None, progress: Progress | None) -> Task:
        sides = make()
        read: dict[str, Reader] = {split: _kept(examples) for split, examples in sides.items()}
        return ReadTask(name, about, kind, media, read, "test", "train", labels)

    return Entry(
        name, about, kind, media, by_kind.METRICS[kind], ("train", "test"), opened, labels, data_sets=(data_set,)
    )


def _probe(
    name: str,
    about: str,
    medium: str,
    make: Callable[[str, str], probes.ProbeTask],
    data_set: DataSet,
    labels: tuple[str, ...],
) -> Entry:
    return Entry(
        name,
        about,
        "label",
        frozenset({medium}),
        by_kind.METRICS["label"],
        probes.ProbeTask.splits,
        lambda given, problems, progress: make(name, about),
        labels,
        data_sets=(data_set,),
    )


ENTRIES = (
    *(_benchmark(name) for name in BENCHMARKS),
    Entry(
        "retrieval",
        "find the image of a caption, and a caption of an image",
        "pairs",
        frozenset({"image", "text"}),
        retrieval.METRICS,
        KARPATHY,
        _retrieval,
        needs="SOURCE, or FOLDER[:SPLIT] in Karpathy's format",
        files="dataset_flickr30k.json or dataset_coco.json, and the images by their filename",
    ),
    Entry(
        "captions",
        "write the caption of an image",
        "text",
        frozenset({"image"}),
        by_kind.METRICS["text"],
        KARPATHY,
        _captions,
        needs="SOURCE, or FOLDER[:SPLIT] in Karpathy's format",
        files="dataset_flickr30k.json or dataset_coco.json, and the images by their filename",
    ),
    *(_packaged(name) for name in (easy_vqa.NAME, films.NAME, scenes.NAME)),
    *(_composed(name) for name in COMPOSED),
    *(_packaged(name, TranslationSet, SET_METRICS) for name in TRANSLATIONS),
    _few_shot("emoji-captions", "name an emoji that is not among the shots", "text", few_shot.emoji_captions, EMOJI),
    _few_shot("stamp-captions", "write the caption of a stamp", "text", few_shot.stamp_captions, STAMPS),
    _few_shot(
        "emoji-groups-named",
        "the group of an emoji, of three",
        "label",
        lambda: few_shot.emoji_groups(few_shot.GROUP_NAMES),
        EMOJI,
        few_shot.GROUP_NAMES,
    ),
    _few_shot(
        "emoji-groups-coded",
        "the group of an emoji, of three with made-up names",
        "label",
        lambda: few_shot.emoji_groups(NONSENSE),
        EMOJI,
        NONSENSE,
    ),
    _probe(
        "emoji-groups",
        "the group of an unseen emoji; trained on Google's drawings, tested on Twitter's",
        "image",
        probes.emoji_groups,
        EMOJI,
        probes.EMOJI_GROUPS,
    ),
    _probe(
        "emoji-name-groups",
        "the group of an emoji, from its name",
        "text",
        probes.emoji_name_groups,
        EMOJI,
        probes.EMOJI_GROUPS,
    ),
    _probe(
        "clip-art-categories",
        "the category of a piece of clip art",
        "image",
        probes.clip_art_categories,
        OPENCLIPART,
        probes.CLIP_ART_CATEGORIES,
    ),
    _probe(
        "stamp-categories",
        "the category of a stamp",
        "image",
        probes.stamp_categories,
        STAMPS,
        probes.STAMP_CATEGORIES,
    ),
    _probe(
        "stamp-caption-categories",
        "the category of a stamp, from its caption",
        "text",
        probes.stamp_caption_categories,
        STAMPS,
        probes.CAPTION_STAMP_CATEGORIES,
    ),
    _probe(
        "spoken-letters",
        "the letter that an unseen voice reads",
        "audio",
        probes.spoken_letters,
        KLETTRES,
        tuple(string.ascii_uppercase),
    ),
    _probe(
        "spoken-stamps-fr",
        "the category of a stamp, from its spoken French caption",
        "audio",
        probes.spoken_stamps,
        STAMPS,
        probes.CAPTION_STAMP_CATEGORIES,
    ),
)

TASKS: dict[str, Entry] = {entry.name: entry for entry in ENTRIES}
"""All tasks by name."""
