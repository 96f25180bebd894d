"""Measures of a study: figures of a finished run, from its folder."""

from __future__ import annotations

import random
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple, Protocol

from vislang.errors import UserError, needs
from vislang.evaluate.shots import Select, Setting
from vislang.example import Example
from vislang.metrics.figure import Figures, figures_from_json, plain
from vislang.runs.folder import read_json
from vislang.tasks.task import Task


class Measure(Protocol):
    """Figures of a finished run. A measure is a dataclass: its fields are part of the settings of a study."""

    def check(self) -> None:
        """Raise a UserError now, and not after hours of training, if something that it needs is not installed."""
        ...

    def __call__(self, run: Path) -> Figures:
        """The figures of the run in a folder."""
        ...


@dataclass(frozen=True)
class Scored:
    """The final scores of a task that the recipe is scored on; for a stream with a test split, the stream's name."""

    task: str

    def check(self) -> None:
        """See :class:`Measure`; nothing is needed."""

    def __call__(self, run: Path) -> Figures:
        """The figures in ``metrics.json``.

        Raises:
            UserError: the run was not scored on this task.
        """
        tasks = read_json(run / "metrics.json")["tasks"]
        if self.task not in tasks:
            raise UserError(f"{run}: not scored on {self.task}; its tasks are {', '.join(tasks) or 'none'}.")
        return figures_from_json(tasks[self.task]["figures"])


@dataclass(frozen=True)
class HeldOut:
    """The losses on the held-out examples of a stream; those of a generating model are per token of the answers."""

    stream: str

    def check(self) -> None:
        """See :class:`Measure`; nothing is needed."""

    def __call__(self, run: Path) -> Figures:
        """The losses in ``metrics.json``.

        Raises:
            UserError: the run has no such stream.
        """
        streams = read_json(run / "metrics.json")["held_out"]
        if self.stream not in streams:
            raise UserError(f"{run}: has no stream {self.stream}; its streams are {', '.join(streams)}.")
        return figures_from_json(streams[self.stream])


@dataclass(frozen=True)
class Probe:
    """The accuracy of a linear probe on the frozen features of a model (``vislang probe``).

    Attributes:
        task: the task of the probe.
        trained: whether the model is the trained one, or the same model before training.
    """

    task: str
    trained: bool = True

    def check(self) -> None:
        """See :class:`Measure`.

        Raises:
            UserError: scikit-learn is not installed.
        """
        needs("sklearn", "eval", "a probe")

    def __call__(self, run: Path) -> Figures:
        """The accuracy on the task's test examples."""
        from vislang.evaluate.features import frozen_features
        from vislang.evaluate.probe import probe
        from vislang.models.loading import load
        from vislang.studies.untrained import before_training
        from vislang.tasks.catalogue import open_task
        from vislang.tasks.probes import as_probe

        task = as_probe(open_task(self.task))
        model = load(run / "model") if self.trained else before_training(run).model
        features = frozen_features(model, [item.prompt for item in task.items])
        return {"accuracy": probe(features, task).accuracy}


class _Prompted(NamedTuple):
    """A trained model with the examples of a few-shot task."""

    model: Any
    task: Task
    support: list[Example]
    queries: list[Example]

    @classmethod
    def of(cls, run: Path, task: str, limit: int) -> _Prompted:
        """The model of a run, and at most ``limit`` queries, which are the same for all runs; 0 for all."""
        from vislang.models.loading import load
        from vislang.tasks.catalogue import open_task

        opened = open_task(task)
        queries = opened.subset(opened.examples(opened.default_split), limit, seed=0)
        return cls(load(run / "model"), opened, opened.support(), queries)

    def similarity(self) -> Any:
        """How similar the images of queries and support are by the model's own vision tower."""
        from vislang.evaluate.few_shot_baselines import similarities

        return similarities(self.model, self.queries, self.support)


@dataclass(frozen=True)
class FewShot:
    """The figures of a model that is prompted with examples (``vislang eval --shots``).

    Attributes:
        task: a task with a training split, from which shots are taken.
        shots: number of shots.
        select: how they are chosen; retrieved ones by the similarity of images to the model's own vision tower.
        draws: how often random shots are drawn.
        limit: greatest number of queries; 0 for all.
    """

    task: str
    shots: int
    select: Select = "random"
    draws: int = 1
    limit: int = 0

    def check(self) -> None:
        """See :class:`Measure`; nothing is needed."""

    def __call__(self, run: Path) -> Figures:
        """The means over draws."""
        from vislang.evaluate.few_shot import evaluate_point

        found = _Prompted.of(run, self.task, self.limit)
        similarity = found.similarity() if self.select == "retrieved" else None
        setting = Setting(self.shots, self.select)
        return evaluate_point(*found, setting, range(self.draws), similarity).means


@dataclass(frozen=True)
class MostSimilar:
    """The figures of a guess that prompts no language model: the answer to the most similar image of the support.

    Attributes:
        task: a task with a training split.
        limit: greatest number of queries; 0 for all.
    """

    task: str
    limit: int = 0

    def check(self) -> None:
        """See :class:`Measure`; nothing is needed."""

    def __call__(self, run: Path) -> Figures:
        """The figures, with similarities by the vision tower of the run's model."""
        from vislang.evaluate.few_shot_baselines import baselines

        _, task, support, queries = found = _Prompted.of(run, self.task, self.limit)
        guesses = baselines(task, support, queries, found.similarity())
        return task.score(queries, guesses["answer_of_the_most_similar_image"])


@dataclass(frozen=True)
class TextLoss:
    """The loss per token of a Flamingo's language model on text, which has no images: what it knows of a language.

    It has no interval over passages, because all models read the same ones.

    Attributes:
        source: a source of prose.
        passages: number of passages, drawn at random.
        characters: of a passage that are read.
    """

    source: str = "english"
    passages: int = 48
    characters: int = 500

    def check(self) -> None:
        """See :class:`Measure`; nothing is needed."""

    def __call__(self, run: Path) -> Figures:
        """The loss per token, in nats; the first token of a passage is not predicted."""
        import torch

        from vislang.data.sources import load_source
        from vislang.models.loading import load

        model = load(run / "model")
        total, count = 0.0, 0
        with torch.no_grad():
            for passage in random.Random(0).sample(load_source(self.source), self.passages):
                ids = model.tokenizer(passage.text[: self.characters], return_tensors="pt")["input_ids"]
                predicted = ids.shape[1] - 1
                total += predicted * float(model.bridge.lm.lm(input_ids=ids, labels=ids).loss)
                count += predicted
        return {"loss_per_token": plain(total / count, self.passages)}
