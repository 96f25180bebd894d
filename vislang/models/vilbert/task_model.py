"""What models of tasks have in common: tasks found in the examples, their losses, and decisions."""

from __future__ import annotations

import dataclasses
from abc import abstractmethod
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor

from vislang.boxes import Box
from vislang.capabilities import Progress
from vislang.errors import UserError
from vislang.example import Example, Prediction
from vislang.models.base import must_be_numbers
from vislang.models.deciding import head_for, heads_of, why_undecided
from vislang.models.loading import current_settings
from vislang.models.settings import settings_of
from vislang.models.vilbert.inputs import PairInputs
from vislang.models.vilbert.pair_model import Network, PairModel
from vislang.models.vilbert.task_batches import Task, TaskBatch, TaskCollator, task_name, task_of
from vislang.nn.device import to_device


class TaskModel(PairModel[Network]):
    """A network with its inputs, and one or several tasks. It Decides; a subclass computes :meth:`scores`.

    Args:
        network, inputs, longest_text, feature_width, dtype: see :class:`PairModel`.
        vocabulary_size: greatest size of a vocabulary that is learned.
        tasks: tasks by name; :meth:`fit` adds those that occur in the examples.

    Attributes:
        kind_of_score: of the scores in predictions, see :class:`~vislang.example.Prediction`.
    """

    collate: TaskCollator
    kind_of_score: str = "probability"

    def __init__(
        self,
        network: Network,
        inputs: PairInputs,
        longest_text: int,
        vocabulary_size: int,
        feature_width: int,
        tasks: Mapping[str, Task] | None = None,
        dtype: torch.dtype = torch.float32,
    ):
        super().__init__(network, inputs, longest_text, feature_width, dtype)
        self.vocabulary_size = vocabulary_size
        self.tasks = dict(tasks or {})
        self.collate = TaskCollator(inputs, self.tasks)

    @property
    def images_together(self) -> int:
        """Greatest number of images of a document that are read together."""
        return 1

    def fit(self, examples: Sequence[Example]) -> None:
        """Learn a vocabulary if there is none, and find the answers and labels of each new task."""
        documents = (document for example in examples for document in example.documents())
        self.learn_words((text for d in documents for text in self.inputs.texts_of(d)), self.vocabulary_size)
        by_task: dict[str, list[Example]] = {}
        for example in examples:
            by_task.setdefault(task_name(example), []).append(example)
        for name, group in by_task.items():
            if name not in self.tasks:
                self.add_task(name, self.new_task(name, group))

    def new_task(self, name: str, examples: Sequence[Example]) -> Task:
        """The task of examples with targets.

        Raises:
            UserError: the model has no such tasks.
        """
        return task_of(name, examples)

    def add_task(self, name: str, task: Task) -> None:
        """Add a task, and what the network needs for it."""
        self.tasks[name] = self.collate.tasks[name] = task

    @abstractmethod
    def scores(self, batch: TaskBatch) -> Float[Tensor, "..."]:
        """Logits: (examples, answers, choices, regions or labels), or (examples,) of numbers."""

    def forward(self, batch: TaskBatch) -> dict[str, Float[Tensor, ""]]:
        """The task's loss, by its name (12-in-1, section 3.3, and its released code).

        ``answers``: binary cross-entropy, summed over answers. ``choice``: cross-entropy over choices. ``box``:
        binary cross-entropy, summed over regions, against their overlap with the ground truth. ``label``:
        cross-entropy. ``value``: squared error in standard deviations.
        """
        assert batch.targets is not None
        kind = self.tasks[batch.task].kind
        scores = self.scores(batch)
        if kind in ("answers", "box"):
            weight = (scores > -1000).to(scores.dtype) if kind == "box" else None
            loss = F.binary_cross_entropy_with_logits(scores, batch.targets, weight, reduction="sum") / len(scores)
        elif kind == "value":
            loss = F.mse_loss(scores, batch.targets)
        else:
            loss = F.cross_entropy(scores, batch.targets)
        return {batch.task: loss}

    def shown_scores(self, task: Task, scores: Float[Tensor, "examples candidates"]) -> Tensor:
        """The scores of candidates in predictions: probabilities."""
        return scores.sigmoid() if task.kind in ("answers", "box") else scores.softmax(dim=-1)

    @property
    def heads(self) -> dict[str, str]:
        """The tasks, and the kind of target of each."""
        return {name: task.kind for name, task in self.tasks.items()}

    def head_for(self, kind: str, name: str | None = None) -> str:
        """See :class:`~vislang.capabilities.Decides`.

        Raises:
            UserError: there is no such head, or several.
        """
        return head_for(self.heads, kind, name)

    def why_undecided(self, kind: str, labels: Sequence[str] = (), images: int = 1) -> str | None:
        """See :class:`~vislang.capabilities.Decides`."""
        known = {name: task.names for name, task in self.tasks.items()}
        if (reason := why_undecided(self.heads, known, kind, labels)) is not None:
            return reason
        most = self.images_together
        # A head that compares reads two images, each beside the text; others read all images of an example together.
        reading = {
            name: task.kind
            for name, task in self.tasks.items()
            if (images == 2 if task.compares else 1 <= images <= most)
        }
        if why_undecided(reading, known, kind, labels) is None:
            return None
        return f"was built for {most} image{'s' if most > 1 else ''} together, and this task shows {images}"

    def why_unreadable(self, media: frozenset[str]) -> str | None:
        """See :class:`~vislang.capabilities.Reads`."""
        compares = any(task.compares for task in self.tasks.values())
        return self.inputs.why_unreadable(media, 2 if compares else self.images_together)

    @torch.inference_mode()
    def decide(
        self,
        examples: Sequence[Example],
        head: str | None = None,
        batch_size: int = 64,
        progress: Progress | None = None,
    ) -> list[Prediction]:
        """See :class:`~vislang.capabilities.Decides`; examples of the same head are read together.

        Raises:
            UserError: there is no head for an example, or several.
        """
        names = heads_of(self.heads, examples, head)
        predictions: dict[int, Prediction] = {}
        for name in dict.fromkeys(names):
            rows = [row for row, own in enumerate(names) if own == name]
            for start in range(0, len(rows), batch_size):
                chunk = rows[start : start + batch_size]
                predictions |= zip(chunk, self.decide_batch(name, [examples[row] for row in chunk]), strict=True)
                if progress is not None:
                    progress(len(predictions), len(examples))
        return [predictions[row] for row in range(len(examples))]

    def undecided(self, name: str, examples: Sequence[Example]) -> TaskBatch:
        """Examples to decide, on the model's device. Their targets are removed, because an unknown label
        would be an error."""
        batch = self.collate.batch(name, [dataclasses.replace(example, target=None) for example in examples])
        return to_device(batch, self.device)

    def decide_batch(self, name: str, examples: Sequence[Example]) -> list[Prediction]:
        """A prediction for each of the examples, which are read together."""
        batch = self.undecided(name, examples)
        task, scores = self.tasks[name], self.scores(batch)
        must_be_numbers(scores, f"{examples[0].name}, or another record of its batch")
        if task.kind == "value":
            numbers = [float(score) * task.std + task.mean for score in scores]
            return [Prediction(example.id, number) for example, number in zip(examples, numbers, strict=True)]
        predictions = []
        for number, (example, row) in enumerate(zip(examples, self.shown_scores(task, scores), strict=True)):
            candidates: tuple[Any, ...] = tuple(task.names)
            if task.kind == "choice":
                candidates = tuple(range(len(example.documents())))
            elif task.kind == "box":
                assert batch.candidates is not None
                count = len(self.collate.boxes(example))
                candidates = tuple(Box(*box) for box in batch.candidates[number, :count].tolist())
            kept = row[: len(candidates)].tolist()
            best = candidates[int(np.argmax(kept))]
            predictions.append(Prediction(example.id, best, candidates, tuple(kept), self.kind_of_score))
        return predictions

    def settings(self) -> dict[str, Any]:
        """The tasks; a subclass adds its network."""
        return {"tasks": {name: asdict(task) for name, task in self.tasks.items()}}

    def extra_state(self) -> dict[str, Any]:
        """The tokenizer and the tasks."""
        return {**super().extra_state(), **TaskModel.settings(self)}

    def load_extra_state(self, state: Mapping[str, Any]) -> None:
        """Restore what :meth:`extra_state` returned; new tasks are added."""
        super().load_extra_state(state)
        for name, values in current_settings({"tasks": state["tasks"]})["tasks"].items():
            if name not in self.tasks:
                self.add_task(name, settings_of(Task, values, "the checkpoint"))


def must_have_outputs(name: str, task: Task, outputs: int, wanted: int) -> None:
    """Raise an error if a trained head has another number of outputs than its task needs.

    Raises:
        UserError: it has.
    """
    if outputs != wanted:
        raise UserError(
            f"task {name}: it has {len(task.names)} answers or labels, and its head has {outputs} outputs. Use the "
            "answers that it was trained with."
        )
