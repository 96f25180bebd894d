"""ViLBERT on tasks: one head a task on shared streams, one task or many at once (Lu et al. 2020, section 3)."""

from __future__ import annotations

import dataclasses
import json
from collections import Counter
from collections.abc import Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any, Literal

import numpy as np
import torch
import torch.nn.functional as F
from jaxtyping import Bool, Float, Int
from torch import Tensor

from vislang.boxes import overlaps
from vislang.capabilities import CoAttention, Explained, ModelRecipe, Progress
from vislang.case import Answers, Case, Choice, Decision, Label, Place, Value
from vislang.document import Image
from vislang.errors import UserError
from vislang.models.base import fill_model, read_config, write_model
from vislang.models.precision import Precision, autocast, dtype_of
from vislang.models.regions.readers import RegionsConfig
from vislang.models.vilbert.inputs import PairInputs, Pairs, encode, read_texts
from vislang.models.vilbert.matching import match_all
from vislang.models.vilbert.model import Encoded, HeadConfig, TwoStreams, ViLBERT, ViLBERTConfig
from vislang.models.vilbert.pair_model import PairModel
from vislang.models.vilbert.pretraining import begin_with, fitted, make_inputs
from vislang.models.vilbert.word_pieces import WordPieces

Kind = Literal["answers", "choice", "place", "label", "value"]

KINDS: dict[type, Kind] = {Answers: "answers", Choice: "choice", Place: "place", Label: "label", Value: "value"}


@dataclass
class Task:
    """What is decided in a task.

    Attributes:
        kind: see :mod:`vislang.case`.
        names: answers or labels; empty for the other kinds.
        images: of a document: 1; of a label 2 that are compared, each read beside the text on its own (NLVR2);
            otherwise several are one path, read together.
        mean, deviation: of numbers.
        token: which of the streams' tokens of tasks is its own, where they have such (12-in-1, section 3.2).
    """

    kind: Kind
    names: list[str] = field(default_factory=list)
    images: int = 1
    mean: float = 0.0
    deviation: float = 1.0
    token: int = 0

    def head(self, width: int) -> HeadConfig:
        """The head of 12-in-1 for such a task."""
        if self.kind == "answers":
            return HeadConfig("fused", len(self.names), 2 * width)
        if self.kind == "place":
            return HeadConfig("regions", 1)
        outputs = len(self.names) if self.kind == "label" else 1
        return HeadConfig("pairs", outputs, 2 * width) if self.compares else HeadConfig("fused", outputs)

    @property
    def compares(self) -> bool:
        """Whether two images are compared."""
        return self.kind == "label" and self.images == 2


@dataclass
class TaskBatch:
    """Cases of one task.

    Attributes:
        task: its name.
        pairs: of texts and images.
        options: (cases, most options) which pair an option is; -1 where a case has fewer.
        targets: answers: (cases, answers) scores; choice: (cases,) index; place: (cases, regions) overlap with the
            right box, 0 below one half; label: (cases,) index; value: (cases,) standardised. None where unknown.
        candidates: (cases, regions, 4) boxes in pixels, for places.
        names: of the cases.
    """

    task: str
    pairs: Pairs
    options: Int[Tensor, "cases options"]
    targets: Tensor | None
    candidates: Float[Tensor, "cases regions 4"] | None
    names: list[str]


class TaskCollator:
    """Cases of one task to a batch. Picklable.

    Args:
        inputs: how texts and images are prepared.
        tasks: by name.
    """

    def __init__(self, inputs: PairInputs, tasks: dict[str, Task]):
        self.inputs, self.tasks = inputs, tasks

    def __call__(self, cases: Sequence[Case], seed: int = 0) -> TaskBatch:
        """Collate; nothing is left to chance.

        Raises:
            UserError: cases of several tasks, or of one that the model does not know.
            RegionError, MediaError: an image's regions cannot be had.
        """
        name = cases[0].task
        if name not in self.tasks or any(case.task != name for case in cases):
            found = ", ".join(sorted({case.task for case in cases}))
            raise UserError(f"{cases[0].name}: tasks {found} in one batch; this model has {', '.join(self.tasks)}.")
        task = self.tasks[name]
        rows: list[tuple[tuple[str, ...], tuple[Image, ...]]] = []
        options = torch.full((len(cases), max(len(case.options) for case in cases)), -1)
        for number, case in enumerate(cases):
            for place, document in enumerate(case.options):
                text, images = self.inputs.texts_of(document), self.inputs.images_of(document)
                if task.compares:
                    # Two rows side by side; the option is the first of them, counted in pairs of rows.
                    if len(images) != 2:
                        raise UserError(f"{case.name}: {len(images)} images; {name} compares two.")
                    options[number, place] = len(rows) // 2
                    rows += [(text, (image,)) for image in images]
                else:
                    options[number, place] = len(rows)
                    rows.append((text, images))
        pairs = self.inputs.read(rows, [case.name for case in cases])
        targets = None
        if all(case.target is not None for case in cases):
            targets = self._targets(task, cases, pairs.features.shape[1])
        candidates = self._boxes(cases, pairs.features.shape[1]) if task.kind == "place" else None
        return TaskBatch(name, pairs, options, targets, candidates, [case.name for case in cases])

    def _targets(self, task: Task, cases: Sequence[Case], regions: int) -> Tensor:
        if task.kind == "answers":
            place = {answer: number for number, answer in enumerate(task.names)}
            scores = torch.zeros(len(cases), len(task.names))
            for number, case in enumerate(cases):
                assert isinstance(case.target, Answers)
                for answer, score in case.target.scores.items():
                    if answer in place:
                        scores[number, place[answer]] = score
            return scores
        if task.kind == "place":
            rows = torch.zeros(len(cases), regions)
            for number, case in enumerate(cases):
                assert isinstance(case.target, Place)
                boxes = self.boxes(case)
                right = np.array([list(asdict(case.target).values())], dtype=np.float32)
                overlap = torch.from_numpy(overlaps(boxes, right)[:, 0])
                rows[number, : len(boxes)] = overlap.where(overlap >= 0.5, 0)
            return rows
        if task.kind == "label":
            place = {label: number for number, label in enumerate(task.names)}
            labels = [case.target.name if isinstance(case.target, Label) else "" for case in cases]
            for case, label in zip(cases, labels, strict=True):
                if label not in place:
                    raise UserError(f"{case.name}: label {label!r}; this model knows {', '.join(task.names)}.")
            return torch.tensor([place[label] for label in labels])
        if task.kind == "choice":
            return torch.tensor([case.target.index for case in cases if isinstance(case.target, Choice)])
        numbers = [case.target.number for case in cases if isinstance(case.target, Value)]
        return (torch.tensor(numbers) - task.mean) / task.deviation

    def _boxes(self, cases: Sequence[Case], regions: int) -> Float[Tensor, "cases regions 4"]:
        boxes = torch.zeros(len(cases), regions, 4)
        for number, case in enumerate(cases):
            found = self.boxes(case)
            boxes[number, : len(found)] = torch.from_numpy(found)
        return boxes

    def boxes(self, case: Case) -> np.ndarray:
        """The boxes of a case's one image as the streams see them, the whole image first, in the image's pixels.

        Region files may have been made of the image at another scale; without the image itself, their scale holds.
        """
        (document,) = case.options
        (image,) = self.inputs.images_of(document)
        (found,) = self.inputs.regions_of((image,)).found
        boxes = found.with_whole().boxes
        if not image.is_there:
            return boxes
        width, height = image.size
        return boxes * np.array([width / found.width, height / found.height] * 2, dtype=np.float32)


class ViLBERTForTasks(PairModel[ViLBERT]):
    """ViLBERT with its inputs and a head a task; Trainable, and it Decides and Matches.

    Args:
        network: the streams.
        inputs: how texts and images are prepared.
        tasks: by name; those that are missing are found in the lessons by :meth:`fit`.
        dtype: of the arithmetic.
    """

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
            outputs = network.head_configs[name].outputs
            if outputs != task.head(network.config.width).outputs:
                raise UserError(
                    f"task {name}: {len(task.names)} answers or labels, and its head has {outputs} outputs. Give the "
                    "vocabulary that it was trained with."
                )
        self.collate = TaskCollator(inputs, self.tasks)

    def prepare(self, cases: Sequence[Case], progress: Progress | None = None) -> int:
        """Find the regions of images that are not known yet."""
        return self.inputs.prepare([option for case in cases for option in case.options], progress)

    def fit(self, cases: Sequence[Case]) -> None:
        """Learn a vocabulary, where none was given, and the answers and labels of each task that is new."""
        if self.inputs.words is None:
            texts = {text: None for case in cases for option in case.options for text in self.inputs.texts_of(option)}
            size = self.network.config.text.vocabulary_size
            self.inputs.words = WordPieces.train(list(texts), size, self.longest_text)
        by_task: dict[str, list[Case]] = {}
        for case in cases:
            by_task.setdefault(case.task, []).append(case)
        for name, group in by_task.items():
            if name not in self.tasks:
                # With fewer tokens than tasks, some tasks share one.
                token = len(self.tasks) % max(1, self.network.config.text.task_tokens)
                self._add(name, dataclasses.replace(task_of(name, group), token=token))

    def _add(self, name: str, task: Task) -> None:
        config = task.head(self.network.config.width)
        self.tasks[name] = self.collate.tasks[name] = task
        self.network.add_head(name, config)

    def losses(self, batch: TaskBatch) -> dict[str, Float[Tensor, ""]]:
        """The task's loss, by its name (12-in-1, section 3.3, and its released code).

        ``answers``: binary cross-entropy, summed over answers. ``choice``: cross-entropy over options. ``place``:
        binary cross-entropy, summed over regions, against their overlap with the right box. ``label``: cross-entropy.
        ``value``: squared error in standard deviations.
        """
        assert batch.targets is not None
        kind = self.tasks[batch.task].kind
        scores = self._scores(batch)
        if kind in ("answers", "place"):
            weight = (scores > -1000).float() if kind == "place" else None
            loss = F.binary_cross_entropy_with_logits(scores, batch.targets, weight, reduction="sum") / len(scores)
        elif kind == "value":
            loss = F.mse_loss(scores, batch.targets)
        else:
            loss = F.cross_entropy(scores, batch.targets)
        return {batch.task: loss}

    def _scores(self, batch: TaskBatch) -> Float[Tensor, "..."]:
        """Logits: (cases, answers, options, regions or labels), or (cases,) of numbers."""
        with autocast(batch.pairs.features.device, self.dtype):
            encoded = encode(self.network, batch.pairs, self.tasks[batch.task].token)
            found = self.network.predict(batch.task, encoded).float()
        kind = self.tasks[batch.task].kind
        if kind == "choice":
            padded = torch.cat([found[:, 0], found.new_full((1,), -torch.inf)])
            return padded[batch.options]
        if kind == "place":
            return found[..., 0]
        return found[:, 0] if kind == "value" else found

    @torch.inference_mode()
    def decide(self, cases: Sequence[Case], batch_size: int = 64, progress: Progress | None = None) -> list[Decision]:
        """Decide each case; those of one task are read together.

        Raises:
            UserError: a case of a task that the model does not know.
        """
        decisions: list[Decision | None] = [None] * len(cases)
        done = 0
        for name in dict.fromkeys(case.task for case in cases):
            numbers = [number for number, case in enumerate(cases) if case.task == name]
            for start in range(0, len(numbers), batch_size):
                chunk = numbers[start : start + batch_size]
                for number, decision in zip(chunk, self._decide([cases[n] for n in chunk]), strict=True):
                    decisions[number] = decision
                done += len(chunk)
                if progress is not None:
                    progress(done, len(cases))
        return [decision for decision in decisions if decision is not None]

    def _decide(self, cases: Sequence[Case]) -> list[Decision]:
        # Targets are not looked at: a label that is new to the model must not keep it from deciding.
        batch = self.collate([dataclasses.replace(case, target=None) for case in cases])
        task, scores = self.tasks[batch.task], self._scores(batch)
        if scores.isnan().any():
            raise UserError(
                f"{cases[0].name} or one beside it: the model's scores are no numbers; its weights are bad."
            )
        if task.kind == "value":
            return [Decision(float(score) * task.deviation + task.mean) for score in scores]
        found = scores.sigmoid() if task.kind in ("answers", "place") else scores.softmax(dim=-1)
        decisions = []
        for number, row in enumerate(found):
            candidates: list[Any] = list(task.names)
            if task.kind == "choice":
                candidates = list(range(len(cases[number].options)))
            elif task.kind == "place":
                assert batch.candidates is not None
                shown = len(self.collate.boxes(cases[number]))
                candidates = [Place(*box) for box in batch.candidates[number, :shown].tolist()]
            kept = row[: len(candidates)].tolist()
            best = candidates[int(np.argmax(kept))]
            decisions.append(Decision(best, tuple(candidates), tuple(kept)))
        return decisions

    @torch.inference_mode()
    def explain(self, case: Case) -> Explained:
        """See :class:`~vislang.capabilities.Explains`.

        Raises:
            UserError: the case has options or several images, or the model is no pair of streams with co-attention.
        """
        streams = self.network.streams
        if not isinstance(streams, TwoStreams) or not streams.meetings:
            raise UserError("this model has no co-attention to be shown: it is a single stream, or was built without.")
        if len(case.options) != 1 or len(case.images) != 1:
            raise UserError(f"{case.name}: {len(case.options)} options, {len(case.images)} images; show one of each.")
        batch = self.collate([dataclasses.replace(case, target=None)])
        pairs = batch.pairs
        watch: list[tuple[Tensor, Tensor]] = []
        text = read_texts(self.network, pairs.text, self.tasks[batch.task].token)
        streams.join(text, streams.read_regions(pairs.features, pairs.boxes, pairs.region_padding, pairs.steps), watch)
        assert self.inputs.words is not None
        words = [self.inputs.words.tokenizer.id_to_token(number) or "" for number in pairs.text.ids[0].tolist()]
        if self.network.config.text.task_tokens:
            words.insert(1, "[TASK]")
        return Explained(
            words,
            [Place(*box) for box in self.collate.boxes(case).tolist()],
            [CoAttention(of_text[0], of_regions[0]) for of_text, of_regions in watch],
            self._fit(batch) if self.tasks[batch.task].kind == "choice" else self._decide([case])[0],
        )

    def _fit(self, batch: TaskBatch) -> Decision:
        """Of one option there is nothing to choose: how well it fits, as the score that options are ranked by."""
        return Decision(float(self._scores(batch)[0, 0]))

    def head_for(self, case: Case, name: str | None = None) -> str:
        """Which task decides such a case: the one that is named, the one it is of, or the only one of its kind.

        Raises:
            UserError: there is none, or there are several.
        """
        kind = None if case.target is None else KINDS[type(case.target)]
        fitting = [known for known, task in self.tasks.items() if kind is None or task.kind == kind]
        wanted = name or (case.task if case.task in fitting else None)
        if wanted is None and len(fitting) == 1:
            (wanted,) = fitting
        if wanted not in fitting:
            have = ", ".join(f"{known} ({task.kind})" for known, task in self.tasks.items())
            asked = f"a case that wants {kind}" if kind else "what is wanted is not said"
            raise UserError(
                f"{wanted or case.task or case.name}: {asked}, and this model has {have}. Name one with --head."
            )
        return wanted

    def match_all(
        self,
        images: Sequence[Image],
        texts: Sequence[str],
        candidates: Bool[Tensor, "images texts"] | None = None,
        progress: Progress | None = None,
    ) -> Float[Tensor, "images texts"]:
        """Score all pairs by the head of a task that chooses; see :func:`~vislang.models.vilbert.matching.match_all`.

        Raises:
            UserError: the model has no such task.
        """
        choosing = [name for name, task in self.tasks.items() if task.kind == "choice"]
        if not choosing:
            raise UserError("this model was trained for no task that chooses, so that it cannot rank pairs.")

        def score(encoded: Encoded) -> Tensor:
            return self.network.predict(choosing[0], encoded)[:, 0]

        token = self.tasks[choosing[0]].token
        return match_all(
            self.network, self.inputs, score, images, texts, candidates, self.dtype, token=token, progress=progress
        )

    def trainable_state(self) -> dict[str, Tensor]:
        """Weights, and tokenizer and tasks as bytes."""
        tasks = json.dumps({name: asdict(task) for name, task in self.tasks.items()}).encode()
        known = torch.frombuffer(bytearray(tasks), dtype=torch.uint8)
        return {**super().trainable_state(), "tasks": known}

    def load_trainable_state(self, state: dict[str, Tensor]) -> None:
        """Restore what :meth:`trainable_state` gave."""
        state = dict(state)
        for name, values in json.loads(bytes(state.pop("tasks").tolist())).items():
            if name not in self.tasks:
                self._add(name, Task(**values))
        super().load_trainable_state(state)

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
        """
        config = read_config(folder)
        tasks = {name: Task(**values) for name, values in config["tasks"].items()}
        model = cls(ViLBERT.from_settings(config), PairInputs.load(folder, config["inputs"], regions), tasks)
        fill_model(model, folder)
        return model.eval()


def task_of(name: str, cases: Sequence[Case]) -> Task:
    """What a task is, by its cases.

    Raises:
        UserError: targets of several kinds, or none.
    """
    kinds = {type(case.target) for case in cases}
    if len(kinds) != 1 or (kind := KINDS.get(kinds.pop())) is None:
        raise UserError(f"task {name}: its records have targets of no kind, or of several; each needs one of one kind.")
    images = max(len(option.media) for case in cases for option in case.options)
    if kind == "place" and images > 1:
        raise UserError(f"task {name}: a place is one in one image, and a record has {images}.")
    if kind == "answers":
        return Task(kind, _answers(cases), images)
    if kind == "label":
        return Task(kind, sorted({c.target.name for c in cases if isinstance(c.target, Label)}), images)
    if kind == "value":
        numbers = np.array([case.target.number for case in cases if isinstance(case.target, Value)])
        return Task(kind, [], images, float(numbers.mean()), float(numbers.std()) or 1.0)
    return Task(kind, [], images)


def _answers(cases: Sequence[Case], least: int = 9, most: int = 3129) -> list[str]:
    """The answers that are right at least nine times, the most frequent ones first; of a small set, all."""
    counts = Counter(
        answer
        for case in cases
        if isinstance(case.target, Answers)
        for answer, score in case.target.scores.items()
        if score > 0
    )
    ordered = sorted(counts, key=lambda answer: (-counts[answer], answer))
    if len(cases) < 10_000:
        return ordered[:most]
    return [answer for answer in ordered if counts[answer] >= least][:most]


@dataclass
class ViLBERTRecipe(ModelRecipe):
    """What a recipe says of ViLBERT on tasks.

    Attributes:
        streams: widths and depths, where training starts from nothing.
        regions: where regions come from; None for the default, or with ``start_from`` for that model's source.
        tokenizer: a ``tokenizer.json`` or BERT's ``vocab.txt``; None learns one from the lessons.
        start_from: folder of a model to begin with: of pretraining or tasks, whose streams and tokenizer are then
            taken, or converted weights, for which ``regions`` and ``tokenizer`` must be named. Heads are fresh.
        dtype: of the arithmetic; ``auto`` takes bfloat16 where the machine multiplies it in hardware.
    """

    streams: ViLBERTConfig = field(default_factory=ViLBERTConfig)
    regions: RegionsConfig | None = None
    tokenizer: str | None = None
    start_from: str | None = None
    dtype: Precision = "float32"

    def build(self) -> ViLBERTForTasks:
        """A model whose tasks its lessons will tell.

        Raises:
            UserError: the settings do not go together, or ``start_from`` is no pretrained model.
        """
        if self.start_from is not None:
            known, inputs = begin_with(self.start_from, self.regions, self.tokenizer)
            network = ViLBERT(known.config, pretraining=False)
            network.streams.load_state_dict(known.streams.state_dict())
            return ViLBERTForTasks(network, inputs, dtype=dtype_of(self.dtype))
        inputs = make_inputs(self.regions, self.tokenizer, self.streams)
        return ViLBERTForTasks(
            ViLBERT(fitted(self.streams, inputs), pretraining=False), inputs, dtype=dtype_of(self.dtype)
        )

    def open(self, folder: Path) -> ViLBERTForTasks:
        """A trained model."""
        made = ViLBERTForTasks.load(folder)
        made.dtype = dtype_of(self.dtype)
        return made
