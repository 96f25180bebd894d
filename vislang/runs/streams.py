"""The data of a run: for each stream, the examples for training, for evaluation during training, and at the end."""

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
"""Prefixes of sources of pairs from which questions with four choices are made."""


@dataclass(frozen=True)
class StreamData:
    """A stream of a recipe with its examples; no example of ``watched`` or ``test`` is in ``train``.

    Attributes:
        config: the stream's part of the recipe.
        train: training examples.
        watched: a few held-out examples for the curves during training.
        test: examples on which the trained model is scored.
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
    """Read and split the streams of a recipe; returns them and the number of skipped bad records.

    Raises:
        DataError: there are no examples for training or scoring, or bad records that must not be skipped.
    """
    problems: list[Problem] = []
    configs = [StreamConfig([recipe.data], stream_name(recipe.data))] if isinstance(recipe.data, str) else recipe.data
    if recipe.eval_data is not None and len(configs) > 1:
        raise DataError(
            "eval_data: one source cannot be the test data of several streams. Name tasks under evaluate, or remove it."
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
    """The split of a source for scoring; None if it has no splits, or if ``source`` names one.

    Raises:
        DataError: it has splits but none is ``test``, and ``source`` names none.
    """
    splits = splits_of(source)
    if splits and "test" not in splits:
        raise DataError(f"eval_data {source}: add a split after a colon. The splits are {', '.join(splits)}.")
    return "test" if splits else None


def _divided(config: StreamConfig, everything: list[Example], test: list[Example], recipe: Recipe) -> StreamData:
    """A stream, split as the recipe says."""
    train, held = (_completed(side, config) for side in hold_out(everything, recipe.hold_out))
    held = _with_own_ids(held)
    test = _with_own_ids(_completed(test, config))
    if not train:
        raise DataError(f"{config.name}: no records are left for training. Lower hold_out, or add records.")
    asks = any(example.target is not None for example in train)
    if asks and not held and not test and recipe.evaluate is None:
        raise DataError(f"{config.name}: no records are left for scoring. Raise hold_out, or set eval_data.")
    train = train[: recipe.limit or None]
    return StreamData(
        config,
        _with_shots(train, config.shots, recipe.train.seed),
        draw(held, recipe.train.eval_examples, recipe.train.seed),
        draw(test or held, recipe.eval_limit, recipe.train.seed),
    )


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
        raise DataError("shots: a shot is an image or a video with a question or a caption; this stream has none.")
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
    return kind if colon else Path(source).stem


def counts(streams: Sequence[StreamData]) -> str:
    """The numbers of examples of each stream, in one line."""
    return "; ".join(
        f"{stream.name}: {len(stream.train):,} examples for training, {len(stream.watched):,} for evaluation "
        f"during training, {len(stream.test):,} for the final evaluation"
        for stream in streams
    )
