"""How the earlier systems are built, trained on a task of one kind, saved and opened."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, ClassVar, TypeVar

import torch
from torch import nn

from vislang.capabilities import ModelRecipe
from vislang.document import Image
from vislang.errors import UserError
from vislang.example import Example
from vislang.models.earlier.inputs import Standardise, WordsConfig
from vislang.models.precision import Precision, dtype_of
from vislang.models.regions.readers import RegionsConfig
from vislang.models.vilbert.inputs import PairInputs, PairInputsConfig
from vislang.models.vilbert.task_batches import Kind, Task
from vislang.models.vilbert.task_model import TaskModel


@dataclass
class SystemConfig:
    """The settings that all systems have.

    Attributes:
        text: the words.
        feature_width: width of the region features; it is set by the source of regions.
    """

    text: WordsConfig
    feature_width: int


class System(nn.Module, ABC):
    """The network of an earlier system.

    Attributes:
        config: its shapes.
        standardise: standardises the region features.
    """

    config: Any
    standardise: Standardise

    @abstractmethod
    def forward(self, *inputs: Any) -> Any:
        """What each system computes from inputs of its own."""


Network = TypeVar("Network", bound=System)


@dataclass(kw_only=True)
class SavedSystem:
    """The settings in the ``config.json``; each system adds its ``network``."""

    inputs: PairInputsConfig


@dataclass(kw_only=True)
class SavedSystemForTask(SavedSystem):
    """The same for a system that learns a task."""

    tasks: dict[str, Task]


class SystemForTask(TaskModel[Network]):
    """A system that learns one task, of the kind that it was made for. It Decides.

    Args:
        network: the network.
        inputs: how texts and images are prepared.
        dtype: number type of the computation.

    Attributes:
        network_class: the class of the network; its argument is the configuration.
        kind: the kind of its task, see :data:`vislang.example.TARGETS`.
    """

    network_class: ClassVar[type[Any]]
    kind: ClassVar[Kind]

    def __init__(self, network: Network, inputs: PairInputs, dtype: torch.dtype = torch.float32):
        config = network.config
        shapes = config.text.max_length, config.text.vocabulary_size, config.feature_width
        super().__init__(network, inputs, *shapes, dtype=dtype)

    def new_task(self, name: str, examples: Sequence[Example]) -> Task:
        """The task of examples with targets.

        Raises:
            UserError: it has another kind of target, several images in a record, or is not the only task.
        """
        task = super().new_task(name, examples)
        system = self.network_class.__name__
        if task.kind != self.kind:
            raise UserError(f"task {name}: targets of the kind {task.kind}; {system} learns {self.kind}. Use ViLBERT.")
        if task.images > 1:
            raise UserError(f"task {name}: a record has {task.images} images; {system} reads one. Use ViLBERT.")
        if self.tasks:
            raise UserError(f"tasks {', '.join([*self.tasks, name])}: {system} learns one task. Use ViLBERT.")
        return task

    def fit(self, examples: Sequence[Example]) -> None:
        """Learn a vocabulary if there is none, find the task, and measure the statistics of features."""
        super().fit(examples)
        images = [medium for example in examples for medium in example.media if isinstance(medium, Image)]
        self.network.standardise.measure(self.inputs, images)

    def settings(self) -> dict[str, Any]:
        """See :meth:`PairModel.settings`."""
        return {"network": asdict(self.network.config), **super().settings()}

    @classmethod
    def from_settings(cls, saved: Any, inputs: PairInputs) -> SystemForTask:
        """See :meth:`PairModel.from_settings`."""
        model = cls(cls.network_class(saved.network), inputs)
        for name, task in saved.tasks.items():
            model.add_task(name, task)
        return model


@dataclass
class SystemRecipe(ModelRecipe):
    """The settings of a system in a recipe; each adds its ``network``.

    Attributes:
        regions: source of regions; None takes the default.
        tokenizer: a ``tokenizer.json`` or BERT's ``vocab.txt``; None learns one from the texts.
        dtype: number type of the computation; ``auto`` takes bfloat16 if the device has hardware for it.
    """

    model_class: ClassVar[Any]

    network: SystemConfig
    regions: RegionsConfig | None = None
    tokenizer: str | None = None
    dtype: Precision = "float32"

    def build(self, device: torch.device | str = "cpu") -> Any:
        """An untrained model.

        Raises:
            UserError: settings contradict each other.
            TowerError, RegionError: the source of regions is missing.
        """
        text = self.network.text
        inputs = PairInputs.new(self.regions, self.tokenizer, text.vocabulary_size, text.max_length)
        self.network.feature_width = inputs.regions.width
        network = self.model_class.network_class(self.network)
        return self.model_class(network, inputs, dtype=dtype_of(self.dtype, device))

    def open(self, folder: Path, device: torch.device | str = "cpu") -> Any:
        """A trained model."""
        made = self.model_class.load(folder)
        made.dtype = dtype_of(self.dtype, device)
        return made
