"""Groups of emoji as classes: three that are kept for tests, and episodes of all others, to learn from examples.

An episode is a question after examples that say what its classes are called. Whatever was learned of the drawings, the
names are new each time, so that only the examples tell them (Vinyals et al. 2016; Tsimpoukelli et al. 2021).
"""

from __future__ import annotations

import hashlib
import random
from collections import defaultdict

from vislang.data.example import Example
from vislang.data.sets import emoji
from vislang.prompt import Shot

NEW_GROUPS = ("Animals & Nature", "Food & Drink", "Travel & Places")
"""Groups that are classes of tests, and in no episode."""

NONSENSE = ("dax", "blick", "wug")
"""What tests call their classes where the names are to say nothing."""

NAMES = (
    "zop",
    "fep",
    "toma",
    "gazzer",
    "koba",
    "modi",
    "pilk",
    "rax",
    "sarn",
    "tulver",
    "vamp",
    "yim",
    "boma",
    "cheem",
)
"""What episodes call theirs."""

EPISODES, CLASSES, SHOTS = 12_000, (2, 3), 16
"""How many there are, of how many classes, after how many examples.

All have the same number, for the answers of the examples are learned too: each episode holds the shorter ones.
"""


Classes = dict[str, list[emoji.Drawing]]


def part_of(text: str) -> float:
    """A number from 0 to 1 that follows from the text alone."""
    return int.from_bytes(hashlib.sha256(text.encode()).digest()[:4]) / 2**32


def episodes(count: int = EPISODES) -> list[Example]:
    """Questions after examples, by Google's hand.

    The classes are subgroups, or as often whole groups; half of the time they go by their own names. No drawing comes
    twice in an episode, and the right class is always among the examples.

    Raises:
        DataError: the emoji were not fetched.
    """
    groups: Classes = defaultdict(list)
    subgroups: Classes = defaultdict(list)
    for drawing in emoji.drawings():
        known = drawing.group not in NEW_GROUPS and drawing.group != "Component"
        if known and drawing.vendor == "google" and not drawing.variant:
            groups[drawing.group.lower()].append(drawing)
            subgroups[drawing.subgroup.replace("-", " ")].append(drawing)
    large = {name: drawings for name, drawings in subgroups.items() if len(drawings) * min(CLASSES) > SHOTS}
    return [_episode(groups if number % 2 else large, number) for number in range(count)]


def _episode(classes: Classes, number: int) -> Example:
    chance = random.Random(f"episode {number}")
    chosen = chance.sample(sorted(classes), chance.choice(CLASSES))
    coded = dict(zip(chosen, chance.sample(NAMES, len(chosen)), strict=True))
    names = {name: name for name in chosen} if chance.random() < 0.5 else coded
    left = {name: chance.sample(classes[name], len(classes[name])) for name in chosen}
    asked = chance.choice(chosen)
    query = left[asked].pop()
    # One of each class first, so that none is missing; then as it comes.
    shown = list(chosen)
    while len(shown) < SHOTS:
        shown.append(chance.choice([name for name in chosen if len(left[name]) > shown.count(name)]))
    shots = [Shot(left[name].pop().image, names[name]) for name in shown]
    chance.shuffle(shots)
    return Example(f"emoji-episodes:{number}", (names[asked],), query.image, shots=tuple(shots))
