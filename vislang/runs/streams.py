"""The data of a run: what each stream is trained on, watched on while training, and scored on at the end."""

from __future__ import annotations

import random
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from vislang.console import reporting
from vislang.data.problems import DataError, Problem, must_be_good
from vislang.data.sources import load_source, splits_of
from vislang.data.split import draw, hold_out
from vislang.evaluate.few_shot import shots_of
from vislang.example import Example
from vislang.recipe import Recipe, StreamConfig
from vislang.tasks.retrieval import four_way

CHOICES = ("pairs:", "retrieval:")
"""Beginnings of sources of pairs of which a model is to choose the one that belongs together."""


@dataclass(frozen=True)
class StreamData:
    """A stream of a recipe with its examples; none that are watched or scored are trained on.

    Attributes:
        config: of the stream.
        train: what is learned from.
        watched: a few examples that are held out, for the curves.
        test: what the trained model is scored on.
    """

    config: StreamConfig
    train: list[Example]
    watched: list[Example]
    test: list[Example]

    @property
    def name(self) -> str:
        """The stream's name."""
        return self.config.name


def read_streams(recipe: Recipe) -> tuple[list[StreamData], int]:
    """Read and divide the streams of a recipe; returns them, and how many bad records were left out.

    Raises:
        DataError: nothing to learn from or to score on, or bad records that may not be skipped.
    """
    problems: list[Problem] = []
    configs = [StreamConfig([recipe.data], stream_name(recipe.data))] if isinstance(recipe.data, str) else recipe.data
    if recipe.eval_data is not None and len(configs) > 1:
        raise DataError(
            "eval_data: one source cannot score several streams; name tasks under evaluate, or leave it out."
        )
    targets = recipe.model.needs_targets
    streams = []
    for config in configs:
        everything: list[Example] = []
        test: list[Example] = []
        with reporting(f"reading {config.name}") as progress:
            for source in config.sources:
                everything += load_source(source, "train", problems, progress, targets)
                if recipe.eval_data is None and recipe.evaluate is None and "test" in splits_of(source):
                    test += load_source(source, "test", problems, progress, targets)
            if recipe.eval_data is not None:
                split = _scored_split(recipe.eval_data)
                test = load_source(recipe.eval_data, split, problems, progress, targets)
        if not everything:
            must_be_good(problems, skip=False, name=config.name)
        streams.append(_divided(config, everything, test, recipe))
    must_be_good(problems, recipe.skip_bad_records)
    return streams, len(problems)


def _scored_split(source: str) -> str | None:
    """The split of a source that models are scored on; None where it has no splits, or names one itself.

    Raises:
        DataError: it has splits, none of them is ``test``, and it names none.
    """
    splits = splits_of(source)
    if splits and "test" not in splits:
        raise DataError(f"eval_data {source}: name a split behind a colon; there are {', '.join(splits)}.")
    return "test" if splits else None


def _divided(config: StreamConfig, everything: list[Example], test: list[Example], recipe: Recipe) -> StreamData:
    """A stream as the recipe divides it."""
    train, held = (_completed(side, config) for side in hold_out(everything, recipe.hold_out))
    held = _with_own_ids(held)
    test = _with_own_ids(_completed(test, config))
    if not train:
        raise DataError(f"{config.name}: nothing left to learn from; lower hold_out or add records.")
    asks = any(example.target is not None for example in train)
    if asks and not held and not test and recipe.evaluate is None:
        raise DataError(f"{config.name}: nothing left to score on; raise hold_out, or name eval_data.")
    train = train[: recipe.limit or None]
    return StreamData(
        config,
        _with_shots(train, config.shots, recipe.train.seed),
        draw(held, recipe.train.eval_examples, recipe.train.seed),
        draw(test or held, recipe.eval_limit, recipe.train.seed),
    )


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
    templated = [example for example in examples if example.media and not example.wording.verbatim]
    if not shots_of(templated):
        raise DataError("shots: an example is an image or a video with a question or a caption, and there is none.")
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
    return kind if colon else Path(source).stem


def counts(streams: Sequence[StreamData]) -> str:
    """How many examples each stream has, in a line."""
    return "; ".join(
        f"{stream.name}: {len(stream.train):,} examples to train on, {len(stream.watched):,} to watch, "
        f"{len(stream.test):,} to score on"
        for stream in streams
    )
