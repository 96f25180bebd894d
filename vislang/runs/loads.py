"""What a step of a recipe takes of a device that has some examples of each stream, counted on fake tensors."""

from __future__ import annotations

import statistics
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any, Protocol

import numpy as np

from vislang.capabilities import Outlines, Trainable
from vislang.data.order import Shuffled
from vislang.data.problems import DataError
from vislang.data.sources import SOURCES
from vislang.models.flamingo.model import Depth, Flamingo, FlamingoRecipe
from vislang.models.flamingo.presets import SEQUENCES, TrainingSequence, paper_batch
from vislang.models.towers.vision import TransformersVision
from vislang.nn.fake import FakeFloats
from vislang.recipe import Recipe
from vislang.runs.streams import read_streams
from vislang.train.config import TrainConfig
from vislang.train.footprint import Footprint, Memory, StepCounter, footprint

SHALLOW = (Depth(1, 1, 1, 1), Depth(2, 1, 1, 1), Depth(2, 2, 1, 1), Depth(1, 1, 2, 1), Depth(1, 1, 1, 2))
"""Flamingos that differ in one kind of layer at a time."""

STEPS = 3
"""Steps whose batches are looked at. Their mean counts of operations, and the largest of memory."""


@dataclass(frozen=True)
class Load:
    """What a step takes of a device.

    Attributes:
        footprint: memory, and the operations of each stream.
        contents: of each stream's batch.
    """

    footprint: Footprint
    contents: list[dict[str, float]]


class Loads(Protocol):
    """Steps of a recipe.

    Attributes:
        model: with fake parameters.
        batch_sizes: examples a step, of each stream.
    """

    model: Trainable
    batch_sizes: list[int]

    def of(self, counts: Sequence[int]) -> Load:
        """A step with so many examples of each stream."""
        ...


class LoadOfData:
    """Steps of a recipe whose data are here.

    Args:
        recipe: the recipe.
        fakes: an active mode.

    Raises:
        DataError: the data are not here.
    """

    def __init__(self, recipe: Recipe, fakes: FakeFloats):
        must_be_here(recipe)
        data, _ = read_streams(recipe)
        everything = [example for stream in data for example in stream.train]
        self._config = recipe.train
        self._kept = 0
        if isinstance(recipe.model, Outlines):
            self.model = recipe.model.outline(fakes)
            counter = StepCounter()
            with counter:
                # No medium is encoded: an outline keeps no features.
                self.model.prepare(everything)
            self._kept = counter.held.total
        else:
            self.model = recipe.model.build()
            self.model.fit(everything)
            fakes.empty(self.model)
        self.batch_sizes = [stream.config.batch_size or recipe.train.batch_size for stream in data]
        self._streams = [self.model.expand(stream.train) for stream in data]
        self._orders = [Shuffled(len(examples), recipe.train.seed) for examples in self._streams]

    def of(self, counts: Sequence[int]) -> Load:
        """See :class:`Loads`; of several steps."""
        steps = [self._step(number, counts) for number in range(STEPS)]
        largest = max(steps, key=lambda step: step.footprint.peak.total).footprint
        operations = [statistics.fmean(own) for own in zip(*(s.footprint.operations for s in steps), strict=True)]
        contents = [
            {kind: statistics.fmean(own[kind] for own in stream) for kind in stream[0]}
            for stream in zip(*(step.contents for step in steps), strict=True)
        ]
        return Load(replace(largest, operations=operations), contents)

    def _step(self, number: int, counts: Sequence[int]) -> Load:
        batches = []
        for examples, order, size, count in zip(self._streams, self._orders, self.batch_sizes, counts, strict=True):
            drawn = [examples[order[number * size + position]] for position in range(count)]
            batches.append(self.model.as_prepared(self.model.collate(drawn, number)))
        contents = [dict[str, float](self.model.contents(batch)) for batch in batches]
        return Load(_of_batches(self.model, batches, self._config).beside(self._kept), contents)


class LoadOfPaper:
    """Steps of one of the paper's Flamingos, with sequences as long as the paper's.

    What a step takes is a sum over layers, and those of a kind are alike. It is counted with one and with two of each
    kind, and extended to all.

    Args:
        recipe: for which :func:`by_paper` is true.
        fakes: an active mode.
    """

    def __init__(self, recipe: Recipe, fakes: FakeFloats):
        assert isinstance(recipe.model, FlamingoRecipe)
        assert not isinstance(recipe.data, str)
        self._fakes = fakes
        self._config = recipe.train
        self._names = [stream.name for stream in recipe.data]
        self.batch_sizes = [stream.batch_size or recipe.train.batch_size for stream in recipe.data]
        self.model = recipe.model.outline(fakes, reads=False)
        self._shallow = [recipe.model.outline(fakes, reads=False, depth=depth) for depth in SHALLOW]
        # The whole model's numbers of layers as a sum of the shallow ones', each so many times.
        sizes = np.array([(1, *depth) for depth in SHALLOW], dtype=float)
        self._times = np.linalg.solve(sizes.T, np.array((1, *_depth(self.model)), dtype=float))

    def of(self, counts: Sequence[int]) -> Load:
        """See :class:`Loads`. The peak is an upper bound, with each kind at its most."""
        found: dict[tuple[TrainingSequence, int], list[Footprint]] = {}
        contents = []
        for name, count in zip(self._names, counts, strict=True):
            # No values are known of them: pixels of a large batch would take gigabytes.
            with self._fakes.building():
                batches = [paper_batch(model, SEQUENCES[name], count) for model in self._shallow]
            contents.append(dict[str, float](self.model.contents(batches[0])))
            if (SEQUENCES[name], count) not in found:
                of_each = zip(self._shallow, batches, strict=True)
                found[SEQUENCES[name], count] = [footprint(model, [batch], self._config) for model, batch in of_each]
        streams = [found[SEQUENCES[name], count] for name, count in zip(self._names, counts, strict=True)]
        saved = max(self._whole([one.saved for one in stream]) for stream in streams)
        copies = max(self._whole([one.copies for one in stream]) for stream in streams)
        # What comes on top in the backward pass is for a block at a time, whatever the depth.
        activations = saved + max(one.activations - one.saved for stream in streams for one in stream)
        peak = Memory(
            weights=sum(tensor.nbytes for tensor in [*self.model.parameters(), *self.model.buffers()]),
            copies=copies,
            gradients=sum(p.nbytes for p in self.model.parameters() if p.requires_grad),
            optimizer=self._whole([one.peak.optimizer for one in streams[0]]),
            activations=activations,
        )
        operations = [float(self._whole([one.operations[0] for one in stream])) for stream in streams]
        return Load(Footprint(operations, peak, activations, saved, copies), contents)

    def _whole(self, of_shallow: Sequence[int]) -> int:
        """A count of the whole model, from those of the shallow ones."""
        return round(float(self._times @ np.array(of_shallow, dtype=float)))


def _depth(model: Flamingo) -> Depth:
    bridge = model.bridge
    assert isinstance(model.vision, TransformersVision)
    return Depth(
        len(bridge.lm.layers), len(bridge.gated_blocks), len(bridge.resampler.layers), model.vision.depth
    )


def _of_batches(model: Trainable, batches: Sequence[Any], config: TrainConfig) -> Footprint:
    """Of a step with one batch of each stream; where streams take turns, of a step of each, and the largest."""
    if config.mixing == "sum":
        return footprint(model, batches, config)
    found = [footprint(model, [batch], config) for batch in batches]
    largest = max(found, key=lambda one: one.peak.total)
    return replace(largest, operations=[count for one in found for count in one.operations])


def by_paper(recipe: Recipe) -> bool:
    """Whether the recipe's data are those of the paper's Flamingos, which are not public."""
    if isinstance(recipe.data, str) or not isinstance(recipe.model, FlamingoRecipe):
        return False
    return all(stream.name in SEQUENCES and stream.sources == [stream.name] for stream in recipe.data)


def must_be_here(recipe: Recipe) -> None:
    """Raise an error for data that would have to be downloaded first, which a plan does not do.

    Raises:
        DataError: the message names the command.
    """
    sources = [recipe.data] if isinstance(recipe.data, str) else [s for stream in recipe.data for s in stream.sources]
    for spec in sources:
        kind, _, rest = spec.partition(":")
        data_set = next((SOURCES[name].data_set for name in (spec, kind, rest) if name in SOURCES), None)
        if data_set is not None and not data_set.is_here:
            raise DataError(
                f"{spec}: not here yet, and a plan reads a few batches. Run: vislang data fetch {data_set.name}"
            )
