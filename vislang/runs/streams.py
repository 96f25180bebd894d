"""The data of a run: what each stream is trained on, watched on while training, and scored on at the end."""

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
from vislang.evaluate.few_shot import is_shot, shots_of
from vislang.example import Example
from vislang.recipe import Recipe, StreamConfig
from vislang.tasks.retrieval import four_way

CHOICES = ("pairs:", "retrieval:")
"""Beginnings of sources of pairs of which a model is to choose the one that belongs together."""

NO_SHOTS = "shots: an example is an image or a video with a question or a caption, and there are none, or too few."


@dataclass(frozen=True)
class StreamData:
    """A stream of a recipe with its examples; none that are watched or scored are trained on.

    Attributes:
        config: of the stream.
        train: what is learned from; Indexed where it stays in its files.
        sample: all of it, or some where it is indexed: what is measured before training is measured on these.
        watched: a few examples that are held out, for the curves.
        test: what the trained model is scored on.
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
    """What the streams of a recipe hold.

    Attributes:
        streams: one of each.
        bad_records: those that were left out.
        indexed: the sources that are indexed.
    """

    streams: list[StreamData]
    bad_records: BadRecords
    indexed: list[str]


def read_streams(recipe: Recipe, indexed: Collection[str] | None = None) -> StreamsRead:
    """Read and divide the streams of a recipe.

    Args:
        recipe: what it says.
        indexed: the sources that were indexed when the run was started; None decides by their size.

    Raises:
        DataError: nothing to learn from or to score on, bad records that may not be skipped, or too many of them.
    """
    bad_records = BadRecords(recipe.skip_bad_records, recipe.max_bad_share)
    configs = [StreamConfig([recipe.data], stream_name(recipe.data))] if isinstance(recipe.data, str) else recipe.data
    if recipe.eval_data is not None and len(configs) > 1:
        raise DataError(
            "eval_data: one source cannot score several streams; name tasks under evaluate, or leave it out."
        )
    streams, found = [], []
    for config in configs:
        everything: list[Sequence[Example]] = []
        test: list[Example] = []
        problems: list[Problem] = []
        with reporting(f"reading {config.name}") as progress:
            for source in config.sources:
                whether = None if indexed is None else source in indexed
                everything.append(open_source(source, "train", problems, progress, recipe.index_above, whether))
                if isinstance(everything[-1], Indexed):
                    found.append(source)
                if recipe.eval_data is None and recipe.evaluate is None and "test" in splits_of(source):
                    test += load_source(source, "test", problems, progress)
            if recipe.eval_data is not None:
                test = load_source(recipe.eval_data, _scored_split(recipe.eval_data), problems, progress)
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
    """The split of a source that models are scored on; None where it has no splits, or names one itself.

    Raises:
        DataError: it has splits, none of them is ``test``, and it names none.
    """
    splits = splits_of(source)
    if splits and "test" not in splits:
        raise DataError(f"eval_data {source}: name a split behind a colon; there are {', '.join(splits)}.")
    return "test" if splits else None


def _divided(config: StreamConfig, everything: Sequence[Example], test: list[Example], recipe: Recipe) -> StreamData:
    """A stream as the recipe divides it."""
    train, held = (_completed(side, config) for side in hold_out(everything, recipe.hold_out))
    train = _with_shots(train[: recipe.limit or None], config.shots, recipe.train.seed)
    return _stream(config, held, _completed(test, config), recipe, train, train)


def _divided_indexed(
    config: StreamConfig, everything: Indexed, test: list[Example], recipe: Recipe, bad_records: BadRecords
) -> StreamData:
    """A stream of indexed examples as the recipe divides it; what is measured or scored is read and checked here."""
    if all(source.startswith(CHOICES) for source in config.sources):
        raise DataError(
            f"{config.name}: a choice is drawn among all pairs, which must be in memory for that. Raise index_above, "
            "or give fewer pairs."
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
        raise DataError(f"{config.name}: nothing left to learn from; lower hold_out or add records.")
    asks = any(example.target is not None for example in sample)
    if asks and not held and not test and recipe.evaluate is None:
        raise DataError(f"{config.name}: nothing left to score on; raise hold_out, or name eval_data.")
    return StreamData(
        config,
        train,
        sample,
        draw(held, recipe.train.eval_examples, recipe.train.seed),
        draw(test or held, recipe.eval_limit, recipe.train.seed),
    )


@dataclass(frozen=True)
class OfTask:
    """Changes an example into one of a task."""

    task: str

    def __call__(self, example: Example) -> Example:
        """The same example as one of the task."""
        return replace(example, task=self.task)


@dataclass(frozen=True)
class AfterShots:
    """Puts so many others before each question or caption; they follow from the seed and from the example's name.

    Attributes:
        pool: what they are drawn from.
        count: how many.
        seed: of the draw.
    """

    pool: Sequence[Example]
    count: int
    seed: int

    def __call__(self, example: Example) -> Example:
        """The example after its shots; what is verbatim, a page say, as it stands.

        Raises:
            DataError: among a hundred records for each shot there are too few that can be one.
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
    """The examples of one side as examples of the stream's task; pairs become choices among four, drawn within it."""
    if all(source.startswith(CHOICES) for source in config.sources):
        examples = four_way(examples)
    return [replace(example, task=config.name) for example in examples]


def _with_own_ids(examples: list[Example]) -> list[Example]:
    """The examples with ids by which predictions can be told apart: several files may have a record 1 each."""
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
    """Each question or caption after so many others; what is verbatim, a page say, as it stands."""
    if not count:
        return examples
    templated = [example for example in examples if not example.wording.verbatim]
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
    """What to call the only stream of a run: the benchmark, the set, or the file without its ending."""
    kind, colon, _ = source.partition(":")
    return kind if colon and not is_address(source) else Path(source.partition("?")[0]).stem


def counts(streams: Sequence[StreamData]) -> str:
    """How many examples each stream has, in a line."""
    return "; ".join(
        f"{stream.name}: {len(stream.train):,} examples to train on, {len(stream.watched):,} to watch, "
        f"{len(stream.test):,} to score on"
        for stream in streams
    )
