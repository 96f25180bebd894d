"""Tiny models of each kind, and tasks in their official formats, for tests of tasks times models."""

from __future__ import annotations

from pathlib import Path

import torch

from tests import tiny
from tests.models.test_dual_encoder import small as small_dual
from tests.models.test_vilbert_pretraining import small
from tests.tasks.official import FOLDERS
from vislang.example import Example
from vislang.models.dual_encoder.model import ContrastiveEncoder, DualEncoderRecipe
from vislang.models.flamingo.model import Flamingo
from vislang.models.regions.readers import RegionsConfig
from vislang.models.vilbert.tasks import ViLBERTForTasks, ViLBERTRecipe
from vislang.tasks.catalogue import open_task
from vislang.tasks.task import Task

DECIDED = ("vqa", "vcr", "refcoco", "nlvr2", "snli-ve", "hateful-memes", "mvsa", "sentiment", "r2r")
"""Tasks that the tiny ViLBERT has a head for."""

CELLS: dict[str, dict[str, str]] = {
    "flamingo": {
        "vqa": "generate",
        "vcr": "rank",
        "nlvr2": "rank",
        "snli-ve": "rank",
        "hateful-memes": "rank",
        "mvsa": "rank",
        "sentiment": "generate",
        "r2r": "rank",
        "retrieval": "rank",
        "captions": "generate",
    },
    "dual encoder": dict.fromkeys(
        ("vcr", "nlvr2", "snli-ve", "hateful-memes", "mvsa", "r2r", "retrieval", "captions"), "match"
    ),
    "vilbert": {**dict.fromkeys(DECIDED, "decide"), "retrieval": "match", "captions": "match"},
}
"""How each of the tiny models answers each task that is given its data; the others it cannot answer."""

CAPTIONED = ("emoji-captions", "stamp-captions")
PICTURED = ("emoji-groups-named", "emoji-groups-coded", "emoji-groups", "clip-art-categories", "stamp-categories")
NAMED = ("emoji-name-groups", "stamp-caption-categories")
TRANSLATED = tuple(f"{pictures}-translation{arm}" for pictures in ("stamp", "emoji") for arm in ("", "-image"))
TRANSLATED_TEXTS = ("stamp-translation-text", "emoji-translation-text")

PACKAGED: dict[str, dict[str, str]] = {
    "flamingo": {
        **dict.fromkeys(("easy-vqa", *CAPTIONED, *TRANSLATED, *TRANSLATED_TEXTS), "generate"),
        **dict.fromkeys((*PICTURED, *NAMED), "rank"),
    },
    "dual encoder": {**dict.fromkeys((*CAPTIONED, *PICTURED, *TRANSLATED), "match"), **dict.fromkeys(NAMED, "embed")},
    "vilbert": {
        **dict.fromkeys(("easy-vqa", "scenes"), "decide"),
        **dict.fromkeys((*CAPTIONED, *PICTURED, *TRANSLATED), "match"),
    },
    "data2vec": dict.fromkeys(PICTURED, "embed"),
    "finetuned": {**dict.fromkeys(PICTURED, "embed"), "emoji-groups-named": "decide"},
}
"""The same for the tasks that come by package."""


def opened(name: str, folder: Path) -> Task:
    """A task on a small folder in its official format."""
    FOLDERS[name](folder / name)
    return open_task(f"{name}:{folder / name}")


def asked(task: Task) -> list[Example]:
    """The examples of the split that is evaluated; of r2r those with a target and without."""
    return task.examples(task.default_split)


def learned(task: Task) -> list[Example]:
    """The examples with a target of the split to learn from; of refcoco, which has none, those of another split."""
    return [e for e in task.examples(task.support_split or "testA") if e.target is not None]


def flamingo(towers: tuple[str, str]) -> Flamingo:
    """Its gates are open, so that images change what it writes."""
    return tiny.flamingo(towers)


def dual_encoder(towers: tuple[str, str], pairs: list[Example]) -> ContrastiveEncoder:
    """Untrained, with the vocabulary of some captions."""
    torch.manual_seed(0)
    made = DualEncoderRecipe(small_dual(), RegionsConfig(tower=towers[1], image_size=0)).build()
    made.fit(pairs)
    return made.eval()


def vilbert(towers: tuple[str, str], examples: list[Example]) -> ViLBERTForTasks:
    """Untrained, with a head for each task of the examples, whose outputs are far apart; it reads paths of 8 images."""
    torch.manual_seed(0)
    streams = small()
    streams.vision.images = 8
    made = ViLBERTRecipe(streams, RegionsConfig(tower=towers[1], image_size=0)).build()
    made.fit(examples)
    with torch.no_grad():
        # An untrained network hardly tells one image from another.
        for part, factor in ((made.network.streams, 8), (made.network.heads, 20)):
            for parameter in part.parameters():
                if parameter.ndim > 1:
                    parameter.mul_(factor)
    return made.eval()
