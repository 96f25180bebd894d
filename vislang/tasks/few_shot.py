"""Few-shot sets: shots are drawn from ``train``, queries are in ``test``. A user's file can be split in the same
way."""

from __future__ import annotations

import random
from collections.abc import Sequence
from dataclasses import replace

from vislang.data.problems import DataError
from vislang.data.sets import emoji
from vislang.data.sets.emoji_groups import NEW_GROUPS, part_of
from vislang.data.sources import load_source
from vislang.data.split import keys_of
from vislang.document import Document
from vislang.example import Example, Label, Text
from vislang.tasks.task import ReadTask, Task

Sides = dict[str, list[Example]]
"""Examples by split: ``train`` and ``test``."""

GROUP_NAMES = tuple(group.lower() for group in NEW_GROUPS)
"""Names of the classes of ``emoji-groups-named``."""


def emoji_captions() -> Sides:
    """Google's drawings as shots, Twitter's as queries; no shot shows the emoji of a query."""
    support, queries = (load_source(f"emoji-{vendor}-names") for vendor in ("google", "twitter"))
    test = [example for example in queries if part_of(_caption(example)) < 0.3]
    names = {_caption(example) for example in test}
    return {"train": [example for example in support if _caption(example) not in names], "test": test}


def stamp_captions() -> Sides:
    """Captions of stamps; no caption is in both splits."""
    return {side: load_source(f"stamp-pictures-{side}") for side in ("train", "test")}


def emoji_groups(names: Sequence[str]) -> Sides:
    """Google's drawings as shots, Twitter's drawings of other emoji as queries; classes are balanced.

    Args:
        names: names of the three groups, which are in no training set.
    """
    rng = random.Random(0)
    name_of = dict(zip(NEW_GROUPS, names, strict=True))
    sides: dict[str, list[Example]] = {"google": [], "twitter": []}
    for drawing in emoji.drawings():
        if (
            drawing.group in name_of
            and not drawing.variant
            and (part_of(drawing.emoji) < 0.5) == (drawing.vendor == "twitter")
        ):
            name = f"emoji {drawing.emoji}"
            example = Example(name, Document([drawing.image], name=name), Label(name_of[drawing.group]))
            sides[drawing.vendor].append(example)
    even = []
    for examples in sides.values():
        classes = [[e for e in examples if e.target == Label(name)] for name in names]
        least = min(len(own) for own in classes)
        even.append([example for own in classes for example in rng.sample(own, least)])
    return {"train": even[0], "test": even[1]}


def split_own_file(task: Task, queries: int) -> Task:
    """Divide the examples of a task without a training split into queries (``test``) and shots (``train``).

    The queries are those of the media (without media, the texts) with the lowest content hashes, so no medium is in
    both splits. Several captions of an image become references of one query.

    Args:
        task: a task; its default split is divided.
        queries: greatest number of queries; they have at most half of the media.

    Raises:
        DataError: there are fewer than two media.
    """
    examples = task.examples(task.default_split)
    by_medium: dict[str, list[Example]] = {}
    for example, key in zip(examples, keys_of(examples), strict=True):
        by_medium.setdefault(key, []).append(example)
    if len(by_medium) < 2:
        raise DataError(
            f"{task.name}: needs two or more examples with different media or texts, for shots and queries."
        )
    test: list[Example] = []
    train: list[Example] = []
    for number, key in enumerate(sorted(by_medium)):
        own = captions_together(by_medium[key])
        # The first medium is a query even if it has more than ``queries`` records.
        into = test if number < len(by_medium) // 2 and len(test) + len(own) <= max(queries, len(own)) else train
        into += own
    read = {"train": lambda problems, progress: train, "test": lambda problems, progress: test}
    return ReadTask(task.name, task.about, task.kind, task.media, read, "test", "train", task.labels, task.images)


def captions_together(examples: Sequence[Example]) -> list[Example]:
    """Merge the captions of one medium into one example; examples with a question or a label stay separate."""
    captioned = [e for e in examples if isinstance(e.target, Text) and not e.text and not e.wording.verbatim]
    others = [example for example in examples if example not in captioned]
    if not captioned:
        return others
    references = tuple(r for e in captioned if isinstance(e.target, Text) for r in e.target.references)
    return [*others, replace(captioned[0], target=Text(references))]


def _caption(example: Example) -> str:
    assert isinstance(example.target, Text)
    return example.target.references[0]
