"""What a step of a recipe needs of one of several devices, counted on fake tensors."""

from __future__ import annotations

import math
import statistics
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, fields, replace
from typing import Any, Protocol

import numpy as np
from torch.utils._pytree import tree_leaves

from vislang.capabilities import Outlines
from vislang.data.indexed import Indexed, expanded
from vislang.data.problems import DataError
from vislang.data.sources import SOURCES
from vislang.errors import UserError
from vislang.models.data2vec.presets import MODALITIES, blanks
from vislang.models.data2vec.pretraining import Data2VecRecipe
from vislang.models.flamingo.model import Flamingo
from vislang.models.flamingo.presets import SEQUENCES, TrainingSequence, paper_batch
from vislang.models.flamingo.recipe import Depth, FlamingoRecipe
from vislang.models.towers.vision import TransformersVision
from vislang.nn.fake import FakeFloats
from vislang.recipe import Recipe
from vislang.runs.streams import StreamData, read_streams
from vislang.train.batches import Steps, Stream
from vislang.train.config import TrainConfig
from vislang.train.device import device_of
from vislang.train.footprint import Footprint, Memory, StepCounter, footprint, optimizer_in_use
from vislang.train.freezing import freeze

SHALLOW = (Depth(1, 1, 1, 1), Depth(2, 1, 1, 1), Depth(2, 2, 1, 1), Depth(1, 1, 2, 1), Depth(1, 1, 1, 2))
"""Flamingos that differ in one kind of layer at a time."""

STEPS = 3
"""Steps that are counted. Operations are their mean, memory is that of the largest."""

MOST_EXAMPLES = 256
"""Larger batches are not read; what they need is extrapolated from batches of this size and of half of it."""


@dataclass(frozen=True)
class Load:
    """What a step needs of a device.

    Attributes:
        footprint: memory, and the operations of each stream.
        contents: of each stream's share of the batch, see :meth:`~vislang.capabilities.Trainable.contents`.
    """

    footprint: Footprint
    contents: list[dict[str, float]]


class Loads(Protocol):
    """The steps of a recipe.

    Attributes:
        model: the model with fake parameters.
        batch_sizes: examples per step of each stream.
    """

    model: Any
    batch_sizes: list[int]

    def of(self, devices: int) -> Load:
        """A step on one of ``devices``, the one with the largest share."""
        ...


class LoadOfData:
    """The steps of a recipe, by batches of its data; of a preset of data2vec, by blank examples.

    Args:
        recipe: the recipe.
        fakes: an active mode.

    Raises:
        DataError: the data are not here.
        UserError: a setting does not fit the model or the data.
    """

    def __init__(self, recipe: Recipe, fakes: FakeFloats):
        must_be_here(recipe)
        data = _blank_streams(recipe) if by_blanks(recipe) else read_streams(recipe).streams
        self._config = recipe.train
        self._skip = recipe.skip_bad_records
        self._kept = 0
        if isinstance(recipe.model, Outlines):
            self.model: Any = recipe.model.outline(fakes)
            counter = StepCounter()
            with counter:
                # The model keeps states of repeated texts. It encodes no media, because an outline caches no features.
                in_memory = [stream.train for stream in data if not isinstance(stream.train, Indexed)]
                self.model.prepare([example for examples in in_memory for example in examples])
            self._kept = counter.held.total
        else:
            self.model = recipe.model.build(device_of(recipe.train.device))
            self.model.fit([example for stream in data for example in stream.sample])
            fakes.empty(self.model)
        _apply(self.model, recipe.train)
        self.batch_sizes = _batch_sizes(recipe, [stream.config.batch_size for stream in data])
        self._streams = [
            Stream(stream.name, expanded(stream.train, self.model.expand), 1.0, size)
            for stream, size in zip(data, self.batch_sizes, strict=True)
        ]

    def of(self, devices: int) -> Load:
        """See :class:`Loads`."""
        examples = sum(math.ceil(size / devices) for size in self.batch_sizes)
        if examples <= MOST_EXAMPLES:
            return self._counted(self._streams, devices)
        smaller = []
        for most in (MOST_EXAMPLES // 2, MOST_EXAMPLES):
            sizes = [max(1, round(size / devices * most / examples)) for size in self.batch_sizes]
            smaller.append([replace(s, batch_size=size) for s, size in zip(self._streams, sizes, strict=True)])
        half, full = (self._counted(streams, 1) for streams in smaller)
        one, other = (sum(stream.batch_size for stream in streams) for streams in smaller)
        return _extrapolated(half, full, (examples - one) / (other - one))

    def _counted(self, streams: Sequence[Stream], devices: int) -> Load:
        in_turn = self._config.mixing == "round-robin"
        steps = Steps(
            *(self.model.collate, streams, self._config.seed, in_turn),
            # The last process has the largest share.
            *(devices - 1, devices, self._config.accumulate, self._skip),
        )
        footprints: list[Footprint] = []
        operations: list[list[float]] = [[] for _ in streams]
        contents: list[list[dict[str, float]]] = [[] for _ in streams]
        for number in range(STEPS * (len(streams) if in_turn else 1)):
            drawn = steps[number]
            if isinstance(drawn, UserError):
                raise drawn
            taking_part = [stream for stream, parts in enumerate(drawn.parts) if parts is not None]
            batches = [
                [self.model.as_prepared(batch) for batch, _ in parts] for parts in drawn.parts if parts is not None
            ]
            found = footprint(self.model, batches, self._config)
            footprints.append(found)
            for stream, own, count in zip(taking_part, batches, found.operations, strict=True):
                operations[stream].append(count)
                contents[stream].append(_sum([self.model.contents(batch) for batch in own]))
        largest = max(footprints, key=lambda one: one.peak.total).plus(self._kept)
        return Load(
            replace(largest, operations=[statistics.fmean(own) for own in operations]),
            [{kind: statistics.fmean(step[kind] for step in own) for kind in own[0]} for own in contents],
        )


class LoadOfPaper:
    """The steps of one of the paper's Flamingos, with sequences as long as the paper's.

    What a step needs is a sum over layers, and layers of one kind are alike. It is counted with one and with two layers
    of each kind, and extrapolated to all.

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
        self.batch_sizes = _batch_sizes(recipe, [stream.batch_size for stream in recipe.data])
        self.model: Any = recipe.model.outline(fakes, reads=False)
        self._shallow: list[Any] = [recipe.model.outline(fakes, reads=False, depth=depth) for depth in SHALLOW]
        for model in (self.model, *self._shallow):
            _apply(model, recipe.train)
        # The numbers of layers of the whole model as a sum of those of the shallow models, each so many times.
        sizes = np.array([(1, *depth) for depth in SHALLOW], dtype=float)
        self._times = np.linalg.solve(sizes.T, np.array((1, *_depth(self.model)), dtype=float))
        self._optimizer = _state_size(self.model, recipe.train)
        self._known: dict[tuple[TrainingSequence, int], _MicroBatch] = {}

    def of(self, devices: int) -> Load:
        """See :class:`Loads`. The peak is an upper bound: the largest number of bytes of each kind."""
        micro_batches, passes = [], []
        for name, size in zip(self._names, self.batch_sizes, strict=True):
            share = math.ceil(size / devices)
            rows = math.ceil(share / self._config.accumulate)
            micro_batches.append(self._micro_batch(name, rows))
            passes.append(share / rows)
        saved = round(max(one.saved for one in micro_batches))
        copies = round(max(one.copies for one in micro_batches))
        activations = round(max(one.saved for one in micro_batches) + max(one.backward for one in micro_batches))
        peak = Memory(
            weights=sum(tensor.nbytes for tensor in [*self.model.parameters(), *self.model.buffers()]),
            copies=copies,
            gradients=sum(p.nbytes for p in self.model.parameters() if p.requires_grad),
            optimizer=self._optimizer,
            activations=activations,
        )
        operations = [one.operations * times for one, times in zip(micro_batches, passes, strict=True)]
        contents = [
            {kind: count * times for kind, count in one.contents.items()}
            for one, times in zip(micro_batches, passes, strict=True)
        ]
        return Load(Footprint(operations, peak, activations, saved, copies), contents)

    def _micro_batch(self, name: str, rows: int) -> _MicroBatch:
        """A micro-batch of so many sequences of a data set; everything grows linearly with their number."""
        one = self._counted(SEQUENCES[name], 1)
        return one if rows == 1 else one.extended(self._counted(SEQUENCES[name], 2), rows - 1)

    def _counted(self, sequence: TrainingSequence, rows: int) -> _MicroBatch:
        if (sequence, rows) not in self._known:
            # Only shapes matter; real pixels would need memory.
            with self._fakes.building():
                batches = [paper_batch(model, sequence, rows) for model in self._shallow]
            pairs = zip(self._shallow, batches, strict=True)
            found = [footprint(model, [[batch]], self._config, update=False) for model, batch in pairs]
            self._known[sequence, rows] = _MicroBatch(
                operations=self._whole([one.operations[0] for one in found]),
                saved=self._whole([one.saved for one in found]),
                # One block at a time, whatever the depth.
                backward=max(one.activations - one.saved for one in found),
                copies=self._whole([one.copies for one in found]),
                contents=self.model.contents(batches[0]),
            )
        return self._known[sequence, rows]

    def _whole(self, of_shallow: Sequence[float]) -> float:
        """A count of the whole model, from those of the shallow models."""
        return float(self._times @ np.array(of_shallow, dtype=float))


@dataclass(frozen=True)
class _MicroBatch:
    """What some sequences of the paper need: operations; bytes of activations that are saved, and that the backward
    pass needs beside them; bytes of copies; and what they contain."""

    operations: float
    saved: float
    backward: float
    copies: float
    contents: Mapping[str, float]

    def extended(self, larger: _MicroBatch, times: float) -> _MicroBatch:
        """What differs from this one by so many times the difference of ``larger`` from it."""
        contents = {kind: count + times * (larger.contents[kind] - count) for kind, count in self.contents.items()}
        of_each = {
            part.name: (one := getattr(self, part.name)) + times * (getattr(larger, part.name) - one)
            for part in fields(self)
            if part.name != "contents"
        }
        return _MicroBatch(**of_each, contents=contents)


def _apply(model: Any, config: TrainConfig) -> None:
    """Freeze and recompute what the settings say, as a run does."""
    freeze(model, config.freeze)
    if config.gradient_checkpointing:
        model.recompute_activations()


def _state_size(model: Any, config: TrainConfig) -> int:
    """Bytes of the optimizer's state."""
    return sum(tensor.nbytes for tensor in tree_leaves(optimizer_in_use(model, config).state()))


def _batch_sizes(recipe: Recipe, of_streams: Sequence[int]) -> list[int]:
    return [size or recipe.train.batch_size for size in of_streams]


def _depth(model: Flamingo) -> Depth:
    bridge = model.bridge
    assert isinstance(model.vision, TransformersVision)
    return Depth(len(bridge.lm.layers), len(bridge.gated_blocks), len(bridge.resampler.layers), model.vision.depth)


def _extrapolated(small: Load, large: Load, times: float) -> Load:
    """A load that differs from ``small`` by so many times the difference of ``large`` from it."""

    def extend(one: float, other: float) -> float:
        return one + times * (other - one)

    one, other = small.footprint, large.footprint
    peak = replace(one.peak, activations=round(extend(one.peak.activations, other.peak.activations)))
    return Load(
        Footprint(
            [extend(a, b) for a, b in zip(one.operations, other.operations, strict=True)],
            peak,
            round(extend(one.activations, other.activations)),
            round(extend(one.saved, other.saved)),
            one.copies,
        ),
        [
            {kind: extend(own[kind], more[kind]) for kind in own}
            for own, more in zip(small.contents, large.contents, strict=True)
        ],
    )


def _sum(contents: Sequence[dict[str, int]]) -> dict[str, float]:
    return {kind: float(sum(own[kind] for own in contents)) for kind in contents[0]}


def by_paper(recipe: Recipe) -> bool:
    """Whether the recipe's data are those of the paper's Flamingos, which are not public."""
    if isinstance(recipe.data, str) or not isinstance(recipe.model, FlamingoRecipe):
        return False
    return all(stream.name in SEQUENCES and stream.sources == [stream.name] for stream in recipe.data)


def by_blanks(recipe: Recipe) -> bool:
    """Whether the recipe's data are those of data2vec's presets, which are not packaged."""
    if isinstance(recipe.data, str) or not isinstance(recipe.model, Data2VecRecipe):
        return False
    read = recipe.model.modalities.present()
    return all(len(stream.sources) == 1 and MODALITIES.get(stream.sources[0]) in read for stream in recipe.data)


def _blank_streams(recipe: Recipe) -> list[StreamData]:
    """Streams of blank examples, as many as are read at most for a plan."""
    assert isinstance(recipe.model, Data2VecRecipe)
    assert not isinstance(recipe.data, str)
    made = []
    for config in recipe.data:
        count = min(MOST_EXAMPLES, config.batch_size or recipe.train.batch_size)
        examples = blanks(config.sources[0], recipe.model.modalities, count)
        made.append(StreamData(config, examples, examples, [], []))
    return made


def must_be_here(recipe: Recipe) -> None:
    """Raise an error for data that must be downloaded first, which a plan does not do.

    Raises:
        DataError: the message has the command.
    """
    sources = [recipe.data] if isinstance(recipe.data, str) else [s for stream in recipe.data for s in stream.sources]
    for spec in sources:
        kind, _, rest = spec.partition(":")
        data_sets = next((SOURCES[name].data_sets for name in (spec, kind, rest) if name in SOURCES), ())
        for data_set in data_sets:
            if not data_set.is_here:
                raise DataError(
                    f"{spec}: not downloaded yet, and a plan reads a few batches. Run: vislang data fetch "
                    f"{data_set.name}"
                )
