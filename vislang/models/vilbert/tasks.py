"""ViLBERT on tasks: a head for each task on shared streams, for one or several tasks (Lu et al. 2020, section 3)."""

from __future__ import annotations

import dataclasses
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any, Literal, get_args

import numpy as np
import torch
import torch.nn.functional as F
from jaxtyping import Bool, Float, Int
from torch import Tensor

from vislang.boxes import Box, overlaps
from vislang.capabilities import CoAttention, Explained, ModelRecipe, Progress
from vislang.document import Image
from vislang.errors import UserError
from vislang.example import Answers, Choice, Example, Label, Prediction, Value, kind_of
from vislang.models.base import fill_model, must_be_numbers, read_settings, write_model
from vislang.models.deciding import head_for, heads_of, why_undecided
from vislang.models.loading import current_settings
from vislang.models.precision import Precision, autocast, dtype_of
from vislang.models.regions.readers import RegionsConfig
from vislang.models.settings import must_be_above_zero, must_be_at_least, settings_of
from vislang.models.vilbert.config import ViLBERTConfig
from vislang.models.vilbert.heads import HeadConfig
from vislang.models.vilbert.inputs import PairInputs, PairInputsConfig, Pairs, encode, read_texts
from vislang.models.vilbert.matching import match_all
from vislang.models.vilbert.model import SavedViLBERT, ViLBERT
from vislang.models.vilbert.pair_model import PairModel
from vislang.models.vilbert.pretraining import begin_with, fitted, make_inputs
from vislang.models.vilbert.streams import Encoded, TwoStreams
from vislang.models.vilbert.word_pieces import WordPieces
from vislang.nn.device import to_device
from vislang.nn.precision import at_least_float32

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

    def head(self, width: int) -> HeadConfig:
        """The head of 12-in-1 for this kind of task."""
        if self.kind == "answers":
            return HeadConfig("fused", len(self.names), 2 * width)
        if self.kind == "box":
            return HeadConfig("regions", 1)
        outputs = len(self.names) if self.kind == "label" else 1
        return HeadConfig("pairs", outputs, 2 * width) if self.compares else HeadConfig("fused", outputs)

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
        pairs = self.inputs.read(rows, names)
        regions = pairs.features.shape[1]
        known = all(example.target is not None for example in examples)
        targets = self._targets(name, task, examples, regions) if known else None
        candidates = self._boxes(examples, regions) if task.kind == "box" else None
        return TaskBatch(name, pairs, choices, targets, candidates, names)

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


@dataclass(kw_only=True)
class SavedViLBERTForTasks(SavedViLBERT):
    """The settings in the ``config.json`` of a model with tasks."""

    inputs: PairInputsConfig
    tasks: dict[str, Task]


class ViLBERTForTasks(PairModel[ViLBERT]):
    """ViLBERT with its inputs and a head for each task. It Decides, Explains and Matches.

    Args:
        network: the streams.
        inputs: how texts and images are prepared.
        tasks: tasks by name; :meth:`fit` adds those that occur in the examples.
        dtype: number type of the computation.
    """

    collate: TaskCollator

    def __init__(
        self,
        network: ViLBERT,
        inputs: PairInputs,
        tasks: dict[str, Task] | None = None,
        dtype: torch.dtype = torch.float32,
    ):
        config = network.config
        super().__init__(network, inputs, config.longest_text, config.vision.feature_width, dtype)
        self.tasks = dict(tasks or {})
        for name, task in self.tasks.items():
            if name not in network.head_configs:
                raise UserError(f"task {name}: the network has no head with this name.")
            outputs = network.head_configs[name].outputs
            if outputs != task.head(network.config.width).outputs:
                raise UserError(
                    f"task {name}: it has {len(task.names)} answers or labels, and its head has {outputs} outputs. Use "
                    "the answers that it was trained with."
                )
        self.collate = TaskCollator(inputs, self.tasks)

    def fit(self, examples: Sequence[Example]) -> None:
        """Learn a vocabulary if there is none, and find the answers and labels of each new task."""
        if self.inputs.words is None:
            documents = [document for example in examples for document in example.documents()]
            texts = {text: None for document in documents for text in self.inputs.texts_of(document)}
            size = self.network.config.text.vocabulary_size
            self.inputs.words = WordPieces.train(list(texts), size, self.longest_text)
        by_task: dict[str, list[Example]] = {}
        for example in examples:
            by_task.setdefault(task_name(example), []).append(example)
        for name, group in by_task.items():
            if name not in self.tasks:
                # With fewer task tokens than tasks, some tasks share a token.
                token = len(self.tasks) % max(1, self.network.config.text.task_tokens)
                self._add(name, dataclasses.replace(task_of(name, group), token=token))

    def _add(self, name: str, task: Task) -> None:
        config = task.head(self.network.config.width)
        self.tasks[name] = self.collate.tasks[name] = task
        self.network.add_head(name, config)

    def forward(self, batch: TaskBatch) -> dict[str, Float[Tensor, ""]]:
        """The task's loss, by its name (12-in-1, section 3.3, and its released code).

        ``answers``: binary cross-entropy, summed over answers. ``choice``: cross-entropy over choices. ``box``:
        binary cross-entropy, summed over regions, against their overlap with the ground truth. ``label``:
        cross-entropy. ``value``: squared error in standard deviations.
        """
        assert batch.targets is not None
        kind = self.tasks[batch.task].kind
        scores = self._scores(batch)
        if kind in ("answers", "box"):
            weight = (scores > -1000).to(scores.dtype) if kind == "box" else None
            loss = F.binary_cross_entropy_with_logits(scores, batch.targets, weight, reduction="sum") / len(scores)
        elif kind == "value":
            loss = F.mse_loss(scores, batch.targets)
        else:
            loss = F.cross_entropy(scores, batch.targets)
        return {batch.task: loss}

    def _scores(self, batch: TaskBatch) -> Float[Tensor, "..."]:
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
        most = self.network.config.vision.images
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
        return self.inputs.why_unreadable(media, 2 if compares else self.network.config.vision.images)

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
                predictions |= zip(chunk, self._decide(name, [examples[row] for row in chunk]), strict=True)
                if progress is not None:
                    progress(len(predictions), len(examples))
        return [predictions[row] for row in range(len(examples))]

    def _batch(self, name: str, examples: Sequence[Example]) -> TaskBatch:
        """Examples to decide, on the model's device. Their targets are removed, because an unknown label
        would be an error."""
        batch = self.collate.batch(name, [dataclasses.replace(example, target=None) for example in examples])
        return to_device(batch, self.device)

    def _decide(self, name: str, examples: Sequence[Example]) -> list[Prediction]:
        batch = self._batch(name, examples)
        task, scores = self.tasks[name], self._scores(batch)
        must_be_numbers(scores, f"{examples[0].name}, or another record of its batch")
        if task.kind == "value":
            numbers = [float(score) * task.std + task.mean for score in scores]
            return [Prediction(example.id, number) for example, number in zip(examples, numbers, strict=True)]
        found = scores.sigmoid() if task.kind in ("answers", "box") else scores.softmax(dim=-1)
        predictions = []
        for number, (example, row) in enumerate(zip(examples, found, strict=True)):
            candidates: tuple[Any, ...] = tuple(task.names)
            if task.kind == "choice":
                candidates = tuple(range(len(example.documents())))
            elif task.kind == "box":
                assert batch.candidates is not None
                count = len(self.collate.boxes(example))
                candidates = tuple(Box(*box) for box in batch.candidates[number, :count].tolist())
            kept = row[: len(candidates)].tolist()
            predictions.append(Prediction(example.id, candidates[int(np.argmax(kept))], candidates, tuple(kept)))
        return predictions

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
        batch = self._batch(name, [example])
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
            prediction = Prediction(example.id, float(self._scores(batch)[0, 0]))
        else:
            (prediction,) = self._decide(name, [example])
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

    def extra_state(self) -> dict[str, Any]:
        """The tokenizer and the tasks."""
        return {**super().extra_state(), "tasks": {name: asdict(task) for name, task in self.tasks.items()}}

    def load_extra_state(self, state: Mapping[str, Any]) -> None:
        """Restore what :meth:`extra_state` returned; new tasks get a head."""
        super().load_extra_state(state)
        for name, values in current_settings({"tasks": state["tasks"]})["tasks"].items():
            if name not in self.tasks:
                self._add(name, settings_of(Task, values, "the checkpoint"))

    def save(self, folder: Path) -> None:
        """Write weights, config and tokenizer."""
        folder.mkdir(parents=True, exist_ok=True)
        settings = {
            **self.network.settings(),
            "inputs": self.inputs.save(folder),
            "tasks": {name: asdict(task) for name, task in self.tasks.items()},
        }
        write_model(folder, self, settings)

    @classmethod
    def load(cls, folder: Path, regions: RegionsConfig | None = None) -> ViLBERTForTasks:
        """Open a folder that :meth:`save` wrote.

        Raises:
            TowerError: the source of its regions is missing, or is another one.
            UserError: a setting is wrong, or the weights do not fit or are damaged.
        """
        saved = read_settings(SavedViLBERTForTasks, folder)
        model = cls(ViLBERT.from_settings(saved), PairInputs.load(folder, saved.inputs, regions), saved.tasks)
        fill_model(model, folder)
        return model.eval()


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
