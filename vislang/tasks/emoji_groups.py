"""Groups of emoji as classes: three that are kept for tests, and episodes of all others, to learn from examples.

An episode is a question after examples that say what its classes are called. Whatever was learned of the drawings, the
names are new each time, so that only the examples tell them (Vinyals et al. 2016; Tsimpoukelli et al. 2021).
"""

from __future__ import annotations

import hashlib
import random

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


def part_of(text: str) -> float:
    """A number from 0 to 1 that follows from the text alone."""
    return int.from_bytes(hashlib.sha256(text.encode()).digest()[:4]) / 2**32


def episodes(count: int = EPISODES) -> list[Example]:
    """Questions after examples, by Google's hand: the classes are subgroups, half of the time under their own names.

    The right class is always among the examples.

    Raises:
        DataError: the emoji were not fetched.
    """
    classes: dict[str, list[emoji.Drawing]] = {}
    for drawing in emoji.drawings():
        known = drawing.group not in NEW_GROUPS and drawing.group != "Component"
        if known and drawing.vendor == "google" and not drawing.variant:
            classes.setdefault(drawing.subgroup, []).append(drawing)
    large = {name: drawings for name, drawings in classes.items() if len(drawings) >= 9}
    return [_episode(large, number) for number in range(count)]


def _episode(classes: dict[str, list[emoji.Drawing]], number: int) -> Example:
    chance = random.Random(f"episode {number}")
    chosen = chance.sample(sorted(classes), chance.choice(CLASSES))
    coded = chance.sample(NAMES, len(chosen))
    own = chance.random() < 0.5
    names = {name: name.replace("-", " ") if own else code for name, code in zip(chosen, coded, strict=True)}
    # One of each class first, so that none is missing; then as it comes.
    order = chosen + [chance.choice(chosen) for _ in range(SHOTS - len(chosen))]
    asked = chance.choice(chosen)
    drawn = {name: chance.sample(classes[name], min(len(classes[name]), order.count(name) + 1)) for name in chosen}
    query = drawn[asked].pop()
    shots = [Shot(drawn[name][place % len(drawn[name])].image, names[name]) for place, name in enumerate(order)]
    chance.shuffle(shots)
    return Example(f"emoji-episodes:{number}", (names[asked],), query.image, shots=tuple(shots))
