"""Examples of tasks as batches: what a task asks for, and texts, regions and targets of its examples."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import asdict, dataclass, field
from typing import Literal, get_args

import numpy as np
import torch
from jaxtyping import Float, Int
from torch import Tensor

from vislang.boxes import Box, overlaps
from vislang.document import Image
from vislang.errors import UserError
from vislang.example import Answers, Choice, Example, Label, Value, kind_of
from vislang.models.settings import must_be_above_zero, must_be_at_least
from vislang.models.vilbert.inputs import PairInputs, Pairs

Kind = Literal["answers", "choice", "box", "label", "value"]


@dataclass
class Task:
    """A task of the model.

    Attributes:
        kind: kind of target, see :data:`vislang.example.TARGETS`.
        names: the answers or labels; empty for the other kinds.
        images: images of a document. With labels and 2 images, these are compared: each is read with the text (NLVR2).
            Otherwise several images are read together, as one path.
        mean, std: mean and standard deviation of values.
        token: index of its task token, if the streams have task tokens (12-in-1, section 3.2).
    """

    kind: Kind
    names: list[str] = field(default_factory=list)
    images: int = 1
    mean: float = 0.0
    std: float = 1.0
    token: int = 0

    def __post_init__(self):
        must_be_at_least(1, self, "images")
        must_be_at_least(0, self, "token")
        must_be_above_zero(self, "std")

    @property
    def compares(self) -> bool:
        """Whether two images are compared."""
        return self.kind == "label" and self.images == 2


@dataclass
class TaskBatch:
    """A batch of examples of one task.

    Attributes:
        task: name of the task.
        pairs: pairs of texts and images.
        choices: (examples, choices) the pair of each choice; -1 where an example has fewer choices.
        targets: answers: (examples, answers) soft scores; choice: (examples,) index; box: (examples, regions) overlap
            with the ground truth, 0 below one half; label: (examples,) index; value: (examples,) standardised. None if
            they are not known.
        candidates: (examples, regions, 4) boxes in pixels, for a task with boxes.
        names: names of the examples.
    """

    task: str
    pairs: Pairs
    choices: Int[Tensor, "examples choices"]
    targets: Tensor | None
    candidates: Float[Tensor, "examples regions 4"] | None
    names: list[str]

    @property
    def tokens(self) -> int:
        """Word pieces of the texts, padding not counted."""
        return self.pairs.tokens


class TaskCollator:
    """Turns examples of one task into a batch. Picklable.

    Args:
        inputs: how texts and images are prepared.
        tasks: by name.
    """

    def __init__(self, inputs: PairInputs, tasks: dict[str, Task]):
        self.inputs, self.tasks = inputs, tasks

    def __call__(self, examples: Sequence[Example], seed: int = 0, first: int = 0) -> TaskBatch:
        """Collate; nothing is random.

        Raises:
            UserError: the examples belong to several tasks, or to one that the model does not know.
            RegionError, MediaError: an image's regions cannot be computed or read.
        """
        names = {task_name(example) for example in examples}
        name = task_name(examples[0])
        if name not in self.tasks or len(names) > 1:
            found = ", ".join(sorted(names))
            raise UserError(
                f"{examples[0].name}: a batch with the tasks {found}; this model has the tasks {', '.join(self.tasks)}."
            )
        return self.batch(name, examples)

    def batch(self, name: str, examples: Sequence[Example]) -> TaskBatch:
        """A batch of examples for a task, whatever task they belong to; see :meth:`__call__`."""
        task = self.tasks[name]
        rows: list[tuple[tuple[str, ...], tuple[Image, ...]]] = []
        documents = [example.documents() for example in examples]
        choices = torch.full((len(examples), max(map(len, documents))), -1)
        for number, (example, own) in enumerate(zip(examples, documents, strict=True)):
            for index, document in enumerate(own):
                text, images = self.inputs.texts_of(document), self.inputs.images_of(document)
                if task.compares:
                    # Two neighbouring rows; choices are counted in pairs of rows.
                    if len(images) != 2:
                        raise UserError(f"{example.name}: {len(images)} images; the task {name} compares two.")
                    choices[number, index] = len(rows) // 2
                    rows += [(text, (image,)) for image in images]
                else:
                    choices[number, index] = len(rows)
                    rows.append((text, images))
        names = [example.name for example in examples]
        pairs = self.read(rows, names)
        regions = pairs.features.shape[1]
        known = all(example.target is not None for example in examples)
        targets = self._targets(name, task, examples, regions) if known else None
        candidates = self._boxes(examples, regions) if task.kind == "box" else None
        return TaskBatch(name, pairs, choices, targets, candidates, names)

    def read(self, rows: Sequence[tuple[tuple[str, ...], tuple[Image, ...]]], names: Sequence[str]) -> Pairs:
        """Read pairs of texts and images; see :meth:`PairInputs.read`."""
        return self.inputs.read(rows, names)

    def _targets(self, name: str, task: Task, examples: Sequence[Example], regions: int) -> Tensor:
        targets = [example.target for example in examples]
        for example, target in zip(examples, targets, strict=True):
            if kind_of(target) != task.kind:
                raise UserError(
                    f"{example.name}: its target is of the kind {kind_of(target)}; the task {name} has {task.kind}."
                )
        index = {known: number for number, known in enumerate(task.names)}
        if task.kind == "answers":
            scores = torch.zeros(len(examples), len(task.names))
            for row, target in zip(scores, targets, strict=True):
                assert isinstance(target, Answers)
                for answer, score in target.scores.items():
                    if answer in index:
                        row[index[answer]] = score
            return scores
        if task.kind == "box":
            rows = torch.zeros(len(examples), regions)
            for row, example in zip(rows, examples, strict=True):
                assert isinstance(example.target, Box)
                boxes = self.boxes(example)
                truth = np.array([list(asdict(example.target).values())], dtype=np.float32)
                overlap = torch.from_numpy(overlaps(boxes, truth)[:, 0])
                row[: len(boxes)] = overlap.where(overlap >= 0.5, 0)
            return rows
        if task.kind == "label":
            labels = [target.name for target in targets if isinstance(target, Label)]
            for example, label in zip(examples, labels, strict=True):
                if label not in index:
                    raise UserError(
                        f"{example.name}: unknown label {label!r}; this model knows {', '.join(task.names)}."
                    )
            return torch.tensor([index[label] for label in labels])
        if task.kind == "choice":
            return torch.tensor([target.index for target in targets if isinstance(target, Choice)])
        numbers = [target.number for target in targets if isinstance(target, Value)]
        return (torch.tensor(numbers) - task.mean) / task.std

    def _boxes(self, examples: Sequence[Example], regions: int) -> Float[Tensor, "examples regions 4"]:
        boxes = torch.zeros(len(examples), regions, 4)
        for row, example in zip(boxes, examples, strict=True):
            found = self.boxes(example)
            row[: len(found)] = torch.from_numpy(found)
        return boxes

    def boxes(self, example: Example) -> np.ndarray:
        """The boxes of an example's image in pixels, the whole image first.

        Region files may have been made from the image at another scale; without the image, that scale is used.
        """
        (document,) = example.documents()
        (image,) = self.inputs.images_of(document)
        (found,) = self.inputs.regions_of((image,)).found
        boxes = found.with_whole().boxes
        if not image.is_there:
            return boxes
        width, height = image.size
        return boxes * np.array([width / found.width, height / found.height] * 2, dtype=np.float32)


def task_name(example: Example) -> str:
    """The task of an example; without one, its kind of target."""
    return example.task or kind_of(example.target)


def task_of(name: str, examples: Sequence[Example]) -> Task:
    """The task for examples with targets.

    Raises:
        UserError: the targets are of several kinds, or of a kind for which there is no head.
    """
    kinds = {kind_of(example.target) for example in examples}
    kind = kinds.pop()
    if kinds or kind not in get_args(Kind):
        found = ", ".join(sorted({kind, *kinds}))
        raise UserError(
            f"task {name}: targets of the kind {found}; a task has one kind, of {', '.join(get_args(Kind))}."
        )
    images = max(len(document.media) for example in examples for document in example.documents())
    if kind == "box" and images > 1:
        raise UserError(f"task {name}: a record has {images} images; a box needs a single image.")
    if kind == "answers":
        return Task("answers", _answers(examples), images)
    targets = [example.target for example in examples]
    if kind == "label":
        return Task("label", sorted({target.name for target in targets if isinstance(target, Label)}), images)
    if kind == "value":
        numbers = np.array([target.number for target in targets if isinstance(target, Value)])
        return Task("value", [], images, float(numbers.mean()), float(numbers.std()) or 1.0)
    return Task("choice" if kind == "choice" else "box", [], images)


def _answers(examples: Sequence[Example], least: int = 9, most: int = 3129) -> list[str]:
    """The answers that are correct at least nine times, most frequent first; of a small set, all."""
    counts = Counter(
        answer
        for example in examples
        if isinstance(example.target, Answers)
        for answer, score in example.target.scores.items()
        if score > 0
    )
    ordered = sorted(counts, key=lambda answer: (-counts[answer], answer))
    if len(examples) < 10_000:
        return ordered[:most]
    return [answer for answer in ordered if counts[answer] >= least][:most]
