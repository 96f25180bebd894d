"""The data of a run: for each stream, the examples for training, for evaluation during training, and at the end."""

from __future__ import annotations

import random
from collections import Counter
from collections.abc import Collection, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from vislang.console import reporting
from vislang.data.bad_records import BadRecords
from vislang.data.indexed import Indexed, joined, with_good_media
from vislang.data.problems import DataError, Problem, must_be_good
from vislang.data.remote import is_address
from vislang.data.sources import load_source, open_source, splits_of
from vislang.data.split import draw, hold_out, hold_out_indexed
from vislang.evaluate.shots import is_shot, shots_of
from vislang.example import Example
from vislang.recipe import Recipe, StreamConfig
from vislang.tasks.retrieval import four_way

CHOICES = ("pairs:", "retrieval:")
"""Prefixes of sources of pairs from which questions with four choices are made."""

NO_SHOTS = "shots: a shot is an image or a video with a question or a caption; this stream has none, or too few."


@dataclass(frozen=True)
class StreamData:
    """A stream of a recipe with its examples; no example of ``watched`` or ``test`` is in ``train``.

    Attributes:
        config: the stream's part of the recipe.
        train: training examples; Indexed if they stay in their files.
        sample: all training examples, or a sample of them if they are indexed. What is measured before training is
            measured on these.
        watched: a few held-out examples for the curves during training.
        test: examples on which the trained model is scored.
    """

    config: StreamConfig
    train: Sequence[Example]
    sample: Sequence[Example]
    watched: list[Example]
    test: list[Example]

    @property
    def name(self) -> str:
        """The stream's name."""
        return self.config.name


@dataclass(frozen=True)
class StreamsRead:
    """The data of a run.

    Attributes:
        streams: the streams, in the recipe's order.
        bad_records: the skipped records.
        indexed: the sources that are indexed.
    """

    streams: list[StreamData]
    bad_records: BadRecords
    indexed: list[str]


def read_streams(recipe: Recipe, indexed: Collection[str] | None = None) -> StreamsRead:
    """Read and split the streams of a recipe.

    Args:
        recipe: the recipe.
        indexed: the sources to index, as a resumed run recorded them; None decides by the number of records.

    Raises:
        DataError: there are no examples for training or scoring, bad records that must not be skipped, or too many.
    """
    bad_records = BadRecords(recipe.skip_bad_records, recipe.max_bad_share)
    configs = [StreamConfig([recipe.data], stream_name(recipe.data))] if isinstance(recipe.data, str) else recipe.data
    if recipe.eval_data is not None and len(configs) > 1:
        raise DataError(
            "eval_data: one source cannot be the test data of several streams. Name tasks under evaluate, or remove it."
        )
    targets = recipe.model.needs_targets
    streams, found = [], []
    for config in configs:
        everything: list[Sequence[Example]] = []
        test: list[Example] = []
        problems: list[Problem] = []
        with reporting(f"reading {config.name}") as progress:
            for source in config.sources:
                whether = None if indexed is None else source in indexed
                opened = open_source(source, "train", problems, progress, targets, recipe.index_above, whether)
                everything.append(opened)
                if isinstance(opened, Indexed):
                    found.append(source)
                if recipe.eval_data is None and recipe.evaluate is None and "test" in splits_of(source):
                    test += load_source(source, "test", problems, progress, targets)
            if recipe.eval_data is not None:
                split = _scored_split(recipe.eval_data)
                test = load_source(recipe.eval_data, split, problems, progress, targets)
        examples = joined(everything)
        if not examples:
            must_be_good(problems, skip=False, name=config.name)
        files = examples.files if isinstance(examples, Indexed) else []
        for file in files:
            bad_records.add_file(file)
        bad_records.add(problems, len(problems) + len(examples) - sum(map(len, files)) + len(test))
        bad_records.check()
        if isinstance(examples, Indexed):
            streams.append(_divided_indexed(config, examples, test, recipe, bad_records))
        else:
            streams.append(_divided(config, examples, test, recipe))
    return StreamsRead(streams, bad_records, found)


def _scored_split(source: str) -> str | None:
    """The split of a source for scoring; None if it has no splits, or if ``source`` names one.

    Raises:
        DataError: it has splits but none is ``test``, and ``source`` names none.
    """
    splits = splits_of(source)
    if splits and "test" not in splits:
        raise DataError(f"eval_data {source}: add a split after a colon. The splits are {', '.join(splits)}.")
    return "test" if splits else None


def _divided(config: StreamConfig, everything: Sequence[Example], test: list[Example], recipe: Recipe) -> StreamData:
    """A stream, split as the recipe says."""
    train, held = (_completed(side, config) for side in hold_out(everything, recipe.hold_out))
    train = _with_shots(train[: recipe.limit or None], config.shots, recipe.train.seed)
    return _stream(config, held, _completed(test, config), recipe, train, train)


def _divided_indexed(
    config: StreamConfig, everything: Indexed, test: list[Example], recipe: Recipe, bad_records: BadRecords
) -> StreamData:
    """A stream of indexed examples, split as the recipe says. The media of the sample and of the held-out examples are
    checked here."""
    if all(source.startswith(CHOICES) for source in config.sources):
        raise DataError(
            f"{config.name}: the four choices of a question are drawn from all pairs, which must be in memory. Raise "
            "index_above, or give fewer pairs."
        )
    train, held = hold_out_indexed(everything, recipe.hold_out)
    train = train[: recipe.limit or None].map(OfTask(config.name))
    if config.shots:
        train = train.map(AfterShots(train, config.shots, recipe.train.seed))
    good = []
    with reporting(f"checking media of {config.name}") as progress:
        for part in (train.sample(), held):
            usable, problems = with_good_media(part, progress)
            bad_records.add(problems, len(part), "checked")
            good.append(usable)
    bad_records.check()
    sample, held = good
    return _stream(config, _completed(held, config), _completed(test, config), recipe, train, sample)


def _stream(
    config: StreamConfig,
    held: list[Example],
    test: list[Example],
    recipe: Recipe,
    train: Sequence[Example],
    sample: Sequence[Example],
) -> StreamData:
    held, test = _with_own_ids(held), _with_own_ids(test)
    if not train:
        raise DataError(f"{config.name}: no records are left for training. Lower hold_out, or add records.")
    asks = any(example.target is not None for example in sample)
    if asks and not held and not test and recipe.evaluate is None:
        raise DataError(f"{config.name}: no records are left for scoring. Raise hold_out, or set eval_data.")
    return StreamData(
        config,
        train,
        sample,
        draw(held, recipe.train.eval_examples, recipe.train.seed),
        draw(test or held, recipe.eval_limit, recipe.train.seed),
    )


@dataclass(frozen=True)
class OfTask:
    """Sets the task of an example."""

    task: str

    def __call__(self, example: Example) -> Example:
        """The example with the task."""
        return replace(example, task=self.task)


@dataclass(frozen=True)
class AfterShots:
    """Adds shots to an example. They depend on the seed and on the name of the example only.

    Attributes:
        pool: the examples to draw from.
        count: the number of shots.
        seed: the seed of the draw.
    """

    pool: Sequence[Example]
    count: int
    seed: int

    def __call__(self, example: Example) -> Example:
        """The example with shots; a verbatim example, such as a page, is not changed.

        Raises:
            DataError: too few of a hundred drawn records per shot can be shots.
        """
        if example.wording.verbatim:
            return example
        rng = random.Random(f"{self.seed} {example.name}")
        shots: dict[str, Example] = {}
        for _ in range(100 * self.count):
            drawn = self.pool[rng.randrange(len(self.pool))]
            if is_shot(drawn) and drawn.name != example.name:
                shots[drawn.name] = drawn
            if len(shots) == self.count:
                return replace(example, shots=(*shots.values(), *example.shots))
        raise DataError(NO_SHOTS)


def _completed(examples: Sequence[Example], config: StreamConfig) -> list[Example]:
    """The examples of one split, with the stream's task; pairs become choices among four captions of that split."""
    if all(source.startswith(CHOICES) for source in config.sources):
        examples = four_way(examples)
    return [replace(example, task=config.name) for example in examples]


def _with_own_ids(examples: list[Example]) -> list[Example]:
    """The examples with unique ids for their predictions; each of several files may have a record 1."""
    if len({example.id for example in examples}) == len(examples):
        return examples
    counts: Counter[str] = Counter()
    found = []
    for example in examples:
        counts[example.name] += 1
        repeated = f" ({counts[example.name]})" if counts[example.name] > 1 else ""
        found.append(replace(example, id=f"{example.name}{repeated}"))
    return found


def _with_shots(examples: list[Example], count: int, seed: int) -> list[Example]:
    """Each question or caption with ``count`` others as shots; verbatim examples such as pages are left."""
    if not count:
        return examples
    templated = [example for example in examples if example.media and not example.wording.verbatim]
    if not shots_of(templated):
        raise DataError(NO_SHOTS)
    rng = random.Random(seed)
    found = []
    for example in examples:
        if example.wording.verbatim:
            found.append(example)
            continue
        drawn = [e for e in rng.sample(templated, min(count + 1, len(templated))) if e is not example]
        found.append(replace(example, shots=(*shots_of(drawn[:count]), *example.shots)))
    return found


def stream_name(source: str) -> str:
    """The name of the only stream of a run: that of the benchmark, the set, or the file without its extension."""
    kind, colon, _ = source.partition(":")
    return kind if colon and not is_address(source) else Path(source.partition("?")[0]).stem


def counts(streams: Sequence[StreamData]) -> str:
    """The numbers of examples of each stream, in one line."""
    return "; ".join(
        f"{stream.name}: {len(stream.train):,} examples for training, {len(stream.watched):,} for evaluation "
        f"during training, {len(stream.test):,} for the final evaluation"
        for stream in streams
    )
