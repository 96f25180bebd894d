"""Tiny models that answer the benchmarks. Each is built when a test needs it."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch

from tests import tiny
from tests.evaluate import cells
from tests.models.test_pretraining import recipe as data2vec_recipe
from vislang.document import Document
from vislang.example import Example
from vislang.models.data2vec.finetuning import FineTuneRecipe, HeadConfig
from vislang.tasks.task import Task

Towers = tuple[str, str]


def _flamingo(towers: Towers, task: Task, folder: Path) -> Any:
    return tiny.flamingo(towers)


def _flamingo_of_videos(towers: Towers, task: Task, folder: Path) -> Any:
    return tiny.flamingo(towers, frames=2)


def _dual_encoder(towers: Towers, task: Task, folder: Path) -> Any:
    return cells.dual_encoder(towers, _captioned(task))


def _captioned(task: Task) -> list[Example]:
    """Pairs for a vocabulary: those of the task, or others."""
    return [tiny.caption(medium, "a red cat and a dog") for medium in _images(task)]


def _images(task: Task) -> list[Any]:
    return [medium for example in task.examples(task.default_split) for medium in example.media][:4]


def _vilbert(towers: Towers, task: Task, folder: Path) -> Any:
    return cells.vilbert(towers, [example for example in task.support() if example.target is not None])


def _pretrained(modality: str, task: Task) -> Any:
    """An untrained data2vec with a tokenizer, if it reads text."""
    torch.manual_seed(0)
    model = data2vec_recipe("v2", modality).build()
    if modality == "text":
        model.fit([Example("words", Document(["the quick brown fox jumps over lazy dogs"]))])
    return model.eval()


def _data2vec(modality: str) -> Callable[[Towers, Task, Path], Any]:
    def made(towers: Towers, task: Task, folder: Path) -> Any:
        return _pretrained(modality, task)

    return made


def _fine_tuned(modality: str, head: str) -> Callable[[Towers, Task, Path], Any]:
    def made(towers: Towers, task: Task, folder: Path) -> Any:
        _pretrained(modality, task).save(folder)
        model = FineTuneRecipe(str(folder), modality, HeadConfig(head)).build()
        model.fit(task.support())
        return model.eval()

    return made


MODELS: dict[str, Callable[[Towers, Task, Path], Any]] = {
    "flamingo": _flamingo,
    "flamingo of videos": _flamingo_of_videos,
    "dual encoder": _dual_encoder,
    "vilbert": _vilbert,
    "data2vec of images": _data2vec("image"),
    "data2vec of text": _data2vec("text"),
    "data2vec of speech": _data2vec("speech"),
    "data2vec of images, fine-tuned": _fine_tuned("image", "classification"),
    "data2vec of text, fine-tuned": _fine_tuned("text", "classification"),
    "data2vec of speech, fine-tuned": _fine_tuned("speech", "ctc"),
    "data2vec of text, regression": _fine_tuned("text", "regression"),
    "data2vec of speech, regression": _fine_tuned("speech", "regression"),
}
"""For each model, what builds it from a pair of towers, for a task; the folder is for what it saves."""

GENERAL = ("flamingo", "flamingo of videos", "data2vec of images", "data2vec of text", "data2vec of speech")
"""Models that are the same for every task."""
