"""Groups of emoji as classes: three that are kept for tests, and episodes of all others, to learn from examples.

An episode is a question after examples (shots) that name its classes. The names are new each time, so that they
follow from the shots only, whatever was learned of the drawings (Vinyals et al. 2016; Tsimpoukelli et al. 2021).
"""

from __future__ import annotations

import hashlib
import random
from collections import defaultdict

from vislang.data.sets import emoji
from vislang.document import Document
from vislang.example import Example, Text

NEW_GROUPS = ("Animals & Nature", "Food & Drink", "Travel & Places")
"""Groups that are classes of tests, and of no episode."""

NONSENSE = ("dax", "blick", "wug")
"""Names of the classes of tests where the names are to give nothing away."""

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
"""Names of the classes of episodes."""

EPISODES, CLASSES, SHOTS = 12_000, (2, 3), 16
"""Number of episodes, of classes, and of shots.

All have the same number of shots: since the answers of the shots are learned too, an episode contains the shorter ones.
"""


Classes = dict[str, list[emoji.Drawing]]


def part_of(text: str) -> float:
    """A number from 0 to 1 that is a function of the text."""
    return int.from_bytes(hashlib.sha256(text.encode()).digest()[:4]) / 2**32


def episodes(count: int = EPISODES) -> list[Example]:
    """Questions after shots, with Google's drawings.

    The classes are subgroups, or as often whole groups; half of the time they have their own names. No drawing comes
    twice in an episode, and the right class is always among the shots.

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
    rng = random.Random(f"episode {number}")
    chosen = rng.sample(sorted(classes), rng.choice(CLASSES))
    coded = dict(zip(chosen, rng.sample(NAMES, len(chosen)), strict=True))
    names = {name: name for name in chosen} if rng.random() < 0.5 else coded
    left = {name: rng.sample(classes[name], len(classes[name])) for name in chosen}
    right = rng.choice(chosen)
    query = left[right].pop()
    # One of each class first, so that none is missing; the rest at random.
    shown = list(chosen)
    while len(shown) < SHOTS:
        shown.append(rng.choice([name for name in chosen if len(left[name]) > shown.count(name)]))
    shots = [_named(left[name].pop(), names[name]) for name in shown]
    rng.shuffle(shots)
    prompt = Document([query.image], name=f"emoji-episodes:{number}")
    return Example(prompt.name, prompt, Text((names[right],)), shots=tuple(shots))


def _named(drawing: emoji.Drawing, name: str) -> Example:
    return Example(drawing.id, Document([drawing.image], name=drawing.image.name), Text((name,)))
