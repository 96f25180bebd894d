"""Tasks for a model that is shown examples in its prompt: where shots come from, what is asked, how it is scored."""

from __future__ import annotations

import random
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace

from vislang.data.example import Example
from vislang.data.fetch import EMOJI, STAMPS, DataSet
from vislang.data.sets import emoji
from vislang.data.split import draw
from vislang.tasks import easy_vqa
from vislang.tasks.answers import Proportion, accuracy
from vislang.tasks.caption_scores import bleu, cider_d, interval
from vislang.tasks.captioned import PAIRS
from vislang.tasks.emoji_groups import NEW_GROUPS, NONSENSE, part_of
from vislang.tasks.material import as_example


@dataclass(frozen=True)
class Mean:
    """A mean score of items, with its 95 % interval."""

    value: float
    low: float
    high: float


Figures = dict[str, Proportion | Mean | float]


@dataclass(frozen=True)
class FewShotTask:
    """A task.

    Attributes:
        name: of the task.
        support: what shots are drawn from.
        queries: what is asked; nothing of it is in the support.
        score: predictions and queries -> figures; the first is the one that is drawn.
        options: the only answers there are, which are then ranked by likelihood; empty where text is written.
    """

    name: str
    support: Sequence[Example]
    queries: Sequence[Example]
    score: Callable[[Sequence[str], Sequence[Example]], Figures]
    options: tuple[str, ...] = ()


def right(predictions: Sequence[str], queries: Sequence[Example]) -> Figures:
    """The share of answers that equal a reference."""
    return {"accuracy": accuracy(predictions, queries)}


def captions(predictions: Sequence[str], queries: Sequence[Example]) -> Figures:
    """CIDEr-D, BLEU of one and of two words, exact match."""
    references = [query.references for query in queries]
    each = cider_d(predictions, references)
    return {
        # Of a single image no n-gram is rare, and CIDEr-D is 0 whatever is said.
        **({"CIDEr-D": Mean(sum(each) / len(each), *interval(each))} if len(each) > 1 else {}),
        "exact match": accuracy(predictions, queries),
        "BLEU-1": bleu(predictions, references, 1),
        "BLEU-2": bleu(predictions, references, 2),
    }


def _easy_vqa() -> FewShotTask:
    return FewShotTask(easy_vqa.NAME, easy_vqa.easy_vqa("train"), easy_vqa.easy_vqa("test"), right)


def _emoji_names() -> FewShotTask:
    """Shots by Google's hand, questions by Twitter's; a shot never shows the emoji that is asked about."""
    support, queries = ([as_example(d) for d in PAIRS[f"emoji-{who}-names"].read()] for who in ("google", "twitter"))
    asked = [example for example in queries if part_of(example.target) < 0.3]
    names = {example.target for example in asked}
    return FewShotTask("emoji-names", [example for example in support if example.target not in names], asked, captions)


def _stamps() -> FewShotTask:
    support, queries = ([as_example(d) for d in PAIRS[f"stamp-pictures-{half}"].read()] for half in ("train", "test"))
    return FewShotTask("stamp-captions", support, queries, captions)


def _emoji_groups(coded: bool) -> FewShotTask:
    """Google's drawings as shots, Twitter's of other emoji as questions; as many of each class."""
    chance = random.Random(0)
    names = dict(zip(NEW_GROUPS, NONSENSE if coded else (group.lower() for group in NEW_GROUPS), strict=True))
    sides: dict[str, list[Example]] = {"google": [], "twitter": []}
    for drawing in emoji.drawings():
        if (
            drawing.group in names
            and not drawing.variant
            and (part_of(drawing.emoji) < 0.5) == (drawing.vendor == "twitter")
        ):
            sides[drawing.vendor].append(Example(f"emoji {drawing.emoji}", (names[drawing.group],), drawing.image))
    even = []
    for examples in sides.values():
        classes = [[e for e in examples if e.target == name] for name in names.values()]
        least = min(len(each) for each in classes)
        even.append([example for each in classes for example in chance.sample(each, least)])
    name = "emoji-groups-coded" if coded else "emoji-groups"
    return FewShotTask(name, even[0], even[1], right, tuple(names.values()))


@dataclass(frozen=True)
class Source:
    """How a task is made, and what has to be fetched for it."""

    build: Callable[[], FewShotTask]
    data_set: DataSet | None = None


FEW_SHOT_TASKS = {
    easy_vqa.NAME: Source(_easy_vqa),
    "emoji-names": Source(_emoji_names, EMOJI),
    "stamp-captions": Source(_stamps, STAMPS),
    "emoji-groups": Source(lambda: _emoji_groups(coded=False), EMOJI),
    "emoji-groups-coded": Source(lambda: _emoji_groups(coded=True), EMOJI),
}
"""Tasks by name."""


def of_examples(name: str, examples: Sequence[Example], queries: int) -> FewShotTask:
    """A task of a user's own examples: a part of them is asked, the others serve as shots.

    The images with the lowest hashes of their content are asked about, so that none is on both sides. Several captions
    of an image are references of one question.

    Args:
        name: of the task.
        examples: questions about images, or images with captions.
        queries: how many to ask at most, of at most half of the images.
    """
    by_image: dict[str, list[Example]] = {}
    for example in examples:
        assert example.image is not None
        by_image.setdefault(example.image.content_hash, []).append(example)
    asked: list[Example] = []
    support: list[Example] = []
    for number, key in enumerate(sorted(by_image)):
        here = _captions_together(by_image[key])
        # The first image is asked about even where more is asked of it than is wanted.
        into = asked if number < len(by_image) // 2 and len(asked) + len(here) <= max(queries, len(here)) else support
        into += here
    asks = any(example.question is not None for example in examples)
    return FewShotTask(name, support, asked, right if asks else captions)


def _captions_together(examples: Sequence[Example]) -> list[Example]:
    """Examples of one image, those without a question as one."""
    asked = [example for example in examples if example.question is not None]
    captioned = [example for example in examples if example.question is None]
    if not captioned:
        return asked
    references = tuple(reference for example in captioned for reference in example.references)
    return [*asked, replace(captioned[0], references=references)]


def limited(task: FewShotTask, queries: int, seed: int) -> FewShotTask:
    """The same task with at most so many questions (0: all), drawn by seed."""
    return replace(task, queries=draw(task.queries, queries, seed))
