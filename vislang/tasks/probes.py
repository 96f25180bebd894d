"""Labelled items that a frozen representation is probed on, split so that nothing is recognised that was seen."""

from __future__ import annotations

import hashlib
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass

import numpy as np

from vislang.data.jsonl import DataError
from vislang.data.sets import emoji, klettres, openclipart, stamps
from vislang.data.split import keys_of
from vislang.document import Document, Image
from vislang.tasks.data_sets import evaluation_examples

FOLDS = 5


@dataclass(frozen=True)
class Item:
    """Something with a label.

    Attributes:
        document: what is embedded.
        label: its class.
        group: items of a group are never on both sides of a split.
        trainable, testable: on which sides it may be at all.
    """

    document: Document
    label: str
    group: str
    trainable: bool = True
    testable: bool = True


@dataclass(frozen=True)
class Probe:
    """A probing task: ``items``, split by ``group`` into folds; ``by_group`` makes each group a fold of its own."""

    name: str
    items: Sequence[Item]
    by_group: bool = False

    def folds(self) -> Iterator[tuple[np.ndarray, np.ndarray]]:
        """(training items, test items) of each fold, as indices."""
        fold = self._folds(len({item.group for item in self.items}) if self.by_group else FOLDS, "")
        for number in sorted(set(fold)):
            train = [n for n, item in enumerate(self.items) if item.trainable and fold[n] != number]
            test = [n for n, item in enumerate(self.items) if item.testable and fold[n] == number]
            if test:
                yield np.array(train), np.array(test)

    def inner(self, train: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Split a training part once more, by group, for whatever has to be chosen."""
        held = {group for group in {self.items[n].group for n in train} if _hash(f"inner {group}") % 4 == 0}
        if not held or len(held) == len({self.items[n].group for n in train}):
            held = {min(self.items[n].group for n in train)}
        inside = np.array([self.items[n].group in held for n in train])
        return train[~inside], train[inside]

    def _folds(self, count: int, salt: str) -> list[int]:
        groups = sorted({item.group for item in self.items}, key=lambda group: _hash(salt + group))
        place = {group: number % count for number, group in enumerate(groups)}
        return [place[item.group] for item in self.items]


def _hash(text: str) -> int:
    return int.from_bytes(hashlib.sha256(text.encode()).digest()[:8])


def _frequent(items: list[Item], least: int) -> list[Item]:
    """Those whose label has at least so many groups."""
    counts = Counter(label for label, _ in {(item.label, item.group) for item in items})
    return [item for item in items if counts[item.label] >= least]


def _picture(image: Image) -> Document:
    return Document([image], name=image.name)


def emoji_groups() -> Probe:
    """The group of an emoji never seen, by a hand never seen: learned on Google's drawings, tested on Twitter's."""
    items = [
        Item(_picture(d.image), d.group, d.emoji, d.vendor == "google", d.vendor == "twitter")
        for d in emoji.drawings()
        if not d.variant and d.group != "Component"
    ]
    return Probe("emoji-groups", items)


def emoji_names() -> Probe:
    """The group of an emoji, from its name."""
    items = {
        d.emoji: Item(Document([d.name], name=d.name), d.group, d.emoji)
        for d in emoji.drawings()
        if not d.variant and d.group != "Component"
    }
    return Probe("emoji-names", list(items.values()))


def clip_art_categories() -> Probe:
    """The category of a piece of clip art, of those with 60 pieces at least; pieces of one title stay together."""
    items = [
        Item(_picture(c.image), c.category, c.title or c.image.name)
        for c in openclipart.clip_art()
        if c.category not in ("unsorted", "special")
    ]
    return Probe("clip-art-categories", _frequent(items, 60))


def stamp_categories() -> Probe:
    """The category of a stamp never seen."""
    items = [Item(_picture(s.image), s.category, s.name) for s in stamps.stamps() if s.image is not None]
    return Probe("stamp-categories", _frequent(items, 20))


def stamp_captions() -> Probe:
    """The category of a stamp, from its English caption; stamps of one caption stay together."""
    items = [
        Item(Document([s.captions["en"]], name=s.name), s.category, s.captions["en"].lower())
        for s in stamps.stamps()
        if "en" in s.captions
    ]
    return Probe("stamp-captions", _frequent(items, 20))


def from_file(path: str) -> Probe:
    """The records of a JSON Lines file with labels; records of one medium stay together.

    Raises:
        DataError: bad records, or fewer than two labels.
    """
    examples = evaluation_examples(path)
    groups = keys_of(examples)
    items = [Item(e.document(), e.target, group) for e, group in zip(examples, groups, strict=True)]
    if len({item.label for item in items}) < 2 or len(set(groups)) < 2 * FOLDS:
        raise DataError(f"{path}: a probe needs two labels, and {2 * FOLDS} different records at least.")
    return Probe(path, items)


def spoken_letters() -> Probe:
    """The letter that is read, by voices never heard: each language, with its one voice, is tested apart."""
    items = [
        Item(Document([r.sound], name=r.sound.name), r.text, r.language)
        for r in klettres.readings()
        if r.kind == "letter" and len(r.text) == 1 and "A" <= r.text <= "Z"
    ]
    return Probe("spoken-letters", _frequent(items, 5), by_group=True)


def spoken_stamps(language: str = "fr") -> Probe:
    """The category of a stamp never heard of, from its spoken caption; one language, so that voices tell nothing."""
    items = [
        Item(Document([s.spoken[language]], name=s.name), s.category, s.name)
        for s in stamps.stamps()
        if language in s.spoken
    ]
    return Probe(f"spoken-stamps-{language}", _frequent(items, 20))


PROBES: dict[str, Callable[[], Probe]] = {
    "emoji-groups": emoji_groups,
    "emoji-names": emoji_names,
    "clip-art-categories": clip_art_categories,
    "stamp-categories": stamp_categories,
    "stamp-captions": stamp_captions,
    "spoken-letters": spoken_letters,
    "spoken-stamps-fr": spoken_stamps,
}
