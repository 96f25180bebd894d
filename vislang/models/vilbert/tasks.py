"""ViLBERT on tasks: a head for each task on shared streams, for one or several tasks (Lu et al. 2020, section 3)."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from jaxtyping import Bool, Float
from torch import Tensor

from vislang.boxes import Box
from vislang.capabilities import CoAttention, Explained, ModelRecipe, Progress
from vislang.document import Image
from vislang.errors import UserError
from vislang.example import Example, Prediction
from vislang.models.deciding import heads_of
from vislang.models.precision import Precision, autocast, dtype_of
from vislang.models.regions.readers import RegionsConfig
from vislang.models.vilbert.config import ViLBERTConfig
from vislang.models.vilbert.heads import HeadConfig
from vislang.models.vilbert.inputs import PairInputs, PairInputsConfig, encode, read_texts
from vislang.models.vilbert.matching import match_all
from vislang.models.vilbert.model import SavedViLBERT, ViLBERT
from vislang.models.vilbert.pretraining import begin_with, fitted, make_inputs
from vislang.models.vilbert.streams import Encoded, TwoStreams
from vislang.models.vilbert.task_batches import Task, TaskBatch
from vislang.models.vilbert.task_model import TaskModel, must_have_outputs
from vislang.nn.precision import at_least_float32


def head_of(task: Task, width: int) -> HeadConfig:
    """The head of 12-in-1 for a task, on co-attention of this width."""
    if task.kind == "answers":
        return HeadConfig("fused", len(task.names), 2 * width)
    if task.kind == "box":
        return HeadConfig("regions", 1)
    outputs = len(task.names) if task.kind == "label" else 1
    return HeadConfig("pairs", outputs, 2 * width) if task.compares else HeadConfig("fused", outputs)


@dataclass(kw_only=True)
class SavedViLBERTForTasks(SavedViLBERT):
    """The settings in the ``config.json`` of a model with tasks."""

    inputs: PairInputsConfig
    tasks: dict[str, Task]


class ViLBERTForTasks(TaskModel[ViLBERT]):
    """ViLBERT with its inputs and a head for each task. It Decides, Explains and Matches.

    Args:
        network: the streams.
        inputs: how texts and images are prepared.
        tasks: tasks by name; :meth:`fit` adds those that occur in the examples.
        dtype: number type of the computation.
    """

    saved = SavedViLBERTForTasks

    def __init__(
        self,
        network: ViLBERT,
        inputs: PairInputs,
        tasks: dict[str, Task] | None = None,
        dtype: torch.dtype = torch.float32,
    ):
        config = network.config
        shapes = config.longest_text, config.text.vocabulary_size, config.vision.feature_width
        super().__init__(network, inputs, *shapes, tasks, dtype)
        for name, task in self.tasks.items():
            if name not in network.head_configs:
                raise UserError(f"task {name}: the network has no head with this name.")
            must_have_outputs(name, task, network.head_configs[name].outputs, head_of(task, config.width).outputs)

    @property
    def images_together(self) -> int:
        """Greatest number of images of a document that are read together."""
        return self.network.config.vision.images

    def new_task(self, name: str, examples: Sequence[Example]) -> Task:
        """The task of examples; with fewer task tokens than tasks, some tasks share a token."""
        token = len(self.tasks) % max(1, self.network.config.text.task_tokens)
        return dataclasses.replace(super().new_task(name, examples), token=token)

    def add_task(self, name: str, task: Task) -> None:
        """Add a task with its head."""
        super().add_task(name, task)
        self.network.add_head(name, head_of(task, self.network.config.width))

    def scores(self, batch: TaskBatch) -> Float[Tensor, "..."]:
        """Logits: (examples, answers, choices, regions or labels), or (examples,) of numbers."""
        with autocast(batch.pairs.features.device, self.dtype):
            encoded = encode(self.network, batch.pairs, self.tasks[batch.task].token)
            found = at_least_float32(self.network.predict(batch.task, encoded))
        kind = self.tasks[batch.task].kind
        if kind == "choice":
            padded = torch.cat([found[:, 0], found.new_full((1,), -torch.inf)])
            return padded[batch.choices]
        if kind == "box":
            return found[..., 0]
        return found[:, 0] if kind == "value" else found

    @torch.inference_mode()
    def explain(self, example: Example, head: str | None = None) -> Explained:
        """See :class:`~vislang.capabilities.Explains`.

        Raises:
            UserError: the example has several choices or images, or the model has no co-attention.
        """
        streams = self.network.streams
        if not isinstance(streams, TwoStreams) or not streams.co_attention:
            raise UserError("this model has no co-attention: it is a single stream, or was built without it.")
        documents, images = len(example.documents()), len(example.media)
        if documents != 1 or images != 1:
            raise UserError(f"{example.name}: has {documents} choices and {images} images; give one of each.")
        (name,) = heads_of(self.heads, [example], head)
        batch = self.undecided(name, [example])
        (image,) = example.media
        assert isinstance(image, Image)
        pairs = batch.pairs
        weights: list[tuple[Tensor, Tensor]] = []
        text = read_texts(self.network, pairs.text, self.tasks[name].token)
        streams(text, streams.read_regions(pairs.features, pairs.boxes, pairs.region_padding, pairs.steps), weights)
        assert self.inputs.words is not None
        words = [self.inputs.words.tokenizer.id_to_token(number) or "" for number in pairs.text.ids[0].tolist()]
        if self.network.config.text.task_tokens:
            words.insert(1, "[TASK]")
        if self.tasks[name].kind == "choice":
            # With a single choice, show the score by which choices are ranked.
            prediction = Prediction(example.id, float(self.scores(batch)[0, 0]))
        else:
            (prediction,) = self.decide_batch(name, [example])
        return Explained(
            words,
            [Box(*box) for box in self.collate.boxes(example).tolist()],
            [CoAttention(of_text[0].cpu(), of_regions[0].cpu()) for of_text, of_regions in weights],
            prediction,
            image,
        )

    def why_unmatched(self) -> str | None:
        """See :class:`~vislang.capabilities.Matches`: pairs are scored by a head for choices."""
        kinds = [task.kind for task in self.tasks.values()]
        return None if "choice" in kinds else "has no head for choices, which would score pairs of image and text"

    def match_all(
        self,
        images: Sequence[Image],
        texts: Sequence[str],
        candidates: Bool[Tensor, "images texts"] | None = None,
        progress: Progress | None = None,
    ) -> Float[Tensor, "images texts"]:
        """Score all pairs with the head of a task with choices; see :func:`~vislang.models.vilbert.matching.match_all`.

        Raises:
            UserError: the model has no such task.
        """
        if (reason := self.why_unmatched()) is not None:
            raise UserError(f"this model {reason}.")
        choosing = next(name for name, task in self.tasks.items() if task.kind == "choice")

        def score(encoded: Encoded) -> Tensor:
            return self.network.predict(choosing, encoded)[:, 0]

        token = self.tasks[choosing].token
        return match_all(
            self.network, self.inputs, score, images, texts, candidates, self.dtype, token=token, progress=progress
        )

    def settings(self) -> dict[str, Any]:
        """See :meth:`PairModel.settings`."""
        return {**self.network.settings(), **super().settings()}

    @classmethod
    def from_settings(cls, saved: SavedViLBERTForTasks, inputs: PairInputs) -> ViLBERTForTasks:
        """See :meth:`PairModel.from_settings`."""
        return cls(ViLBERT.from_settings(saved), inputs, saved.tasks)


@dataclass
class ViLBERTRecipe(ModelRecipe):
    """The settings of ViLBERT on tasks in a recipe.

    Attributes:
        streams: widths and depths, where training starts from random weights.
        regions: source of regions; None takes the default, or with ``start_from`` that model's source.
        tokenizer: a ``tokenizer.json`` or BERT's ``vocab.txt``; None learns one from the examples.
        start_from: folder of a model to start from. A pretrained model or one with tasks brings its streams, tokenizer
            and regions; converted weights need ``regions`` and ``tokenizer``. The heads are new.
        dtype: number type of the computation; ``auto`` takes bfloat16 if the device has hardware for it.
    """

    streams: ViLBERTConfig = field(default_factory=ViLBERTConfig)
    regions: RegionsConfig | None = None
    tokenizer: str | None = None
    start_from: str | None = None
    dtype: Precision = "float32"

    def build(self, device: torch.device | str = "cpu") -> ViLBERTForTasks:
        """An untrained model; :meth:`ViLBERTForTasks.fit` adds the tasks.

        Raises:
            UserError: settings contradict each other, or ``start_from`` is not a ViLBERT.
        """
        if self.start_from is not None:
            known, inputs = begin_with(self.start_from, self.regions, self.tokenizer)
            network = ViLBERT(known.config, pretraining=False)
            network.streams.load_state_dict(known.streams.state_dict())
            return ViLBERTForTasks(network, inputs, dtype=dtype_of(self.dtype, device))
        inputs = make_inputs(self.regions, self.tokenizer, self.streams)
        return ViLBERTForTasks(
            ViLBERT(fitted(self.streams, inputs), pretraining=False), inputs, dtype=dtype_of(self.dtype, device)
        )

    def open(self, folder: Path, device: torch.device | str = "cpu") -> ViLBERTForTasks:
        """A trained model."""
        made = ViLBERTForTasks.load(folder)
        made.dtype = dtype_of(self.dtype, device)
        return made
