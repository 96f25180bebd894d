"""Pictures of things by kind, from emoji, stamps and clip art: what composed sets are made of.

A kind is a word for what a picture shows, such as "fruit". The subgroups of emoji and the folders of stamps and clip
art say which pictures are of a kind. Each picture belongs to one split, so no picture of a test is in training, while
the words are the same.
"""

from __future__ import annotations

import hashlib
import os
import random
import re
import tempfile
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from itertools import accumulate
from pathlib import Path

from PIL import Image as Pillow

from vislang.cache import cache_folder, cache_path, writing
from vislang.data.fetch import EMOJI, OPENCLIPART, STAMPS, DataSet
from vislang.data.sets import emoji
from vislang.data.sets.openclipart import pixels
from vislang.document import Image

Box = tuple[int, int, int, int]
"""Left, top, right and bottom, in pixels."""

DATA_SETS = (EMOJI, STAMPS, OPENCLIPART)
LICENCE = f"GPL-2 with stamps; emoji: {EMOJI.licence}; clip art: {OPENCLIPART.licence}"

SHARES = {"train": 0.6, "val": 0.15, "test": 0.25}
"""The share of the pictures of each kind in each split."""

SIDE = 64
"""Pictures are scaled to this many pixels, the size of the emoji, before they are placed."""

LEFT_OUT = ("weapons",)
"""Names of folders inside others that have no pictures of their kind."""

MOST_PIXELS = 4_000_000
"""Larger pictures of clip art are left out; they take long to read, and none shows more."""


@dataclass(frozen=True)
class Kind:
    """A kind of thing.

    Attributes:
        name: the word for it.
        emoji: subgroups of emoji.
        stamps, clip_art: folders, each with all that they contain.
    """

    name: str
    emoji: tuple[str, ...] = ()
    stamps: tuple[str, ...] = ()
    clip_art: tuple[str, ...] = ()


KINDS = {
    kind.name: kind
    for kind in (
        Kind("fruit", ("food-fruit",), ("food/fruit",), ("food/fruit",)),
        Kind("vegetable", ("food-vegetable",), ("food/vegetables",), ("food/vegetables",)),
        Kind("sweet", ("food-sweet",), ("food/dessert",), ("food/desserts",)),
        Kind("drink", ("drink",), (), ("food/beverages",)),
        Kind("mammal", ("animal-mammal",), ("animals/mammals",), ("animals/mammals",)),
        Kind("bird", ("animal-bird",), ("animals/birds",), ("animals/birds",)),
        Kind("fish", ("animal-marine",), ("animals/fish",), ("animals/fish",)),
        Kind("insect", ("animal-bug",), ("animals/insects",), ("animals/bugs",)),
        Kind("vehicle", ("transport-ground",), ("vehicles/auto", "vehicles/emergency"), ("transportation/vehicles",)),
        Kind("aircraft", ("transport-air",), ("vehicles/flight",)),
        Kind("boat", ("transport-water",), ("vehicles/ship",)),
        Kind("building", ("place-building",), ("town/houses",), ("buildings/homes",)),
        Kind("toy", ("game",), (), ("recreation/toys",)),
        Kind("sports gear", ("sport",), ("sports",), ("recreation/sports",)),
        Kind("instrument", ("musical-instrument",), ("hobbies/music",)),
        Kind("decoration", ("event",), ("seasonal/christmas", "seasonal/halloween"), ("recreation/party",)),
        Kind("tool", ("tool",), ("household/tools",), ("tools",)),
        Kind("book", ("book-paper",), (), ("education/books",)),
        Kind("computer", ("computer",), (), ("computer/hardware",)),
        Kind("stationery", ("office", "writing"), ("household/arttools",), ("office",)),
    )
}
"""The kinds by name."""

PEOPLE = Kind("person", ("person", "person-role", "person-fantasy"))
"""People; only emoji are of one size and style."""


@dataclass(frozen=True)
class Picture:
    """A picture of a thing.

    Attributes:
        name: the set and the path of the picture in it.
        image: with a transparent ground, or with one of its own.
        family: pictures of a family are alike, and are in the same split.
    """

    name: str
    image: Image
    family: str


class Things:
    """The pictures of a split.

    Args:
        split: one of :data:`SHARES`.

    Raises:
        DataError: emoji, stamps or clip art were not fetched.
    """

    def __init__(self, split: str):
        self.split = split
        self._emoji = [d for d in emoji.drawings() if d.vendor == "google" and not d.variant]
        self._own = {kind.name: self._of(kind) for kind in (*KINDS.values(), PEOPLE)}
        self._scaled: dict[Picture, Pillow.Image] = {}

    def of(self, kind: str) -> list[Picture]:
        """The pictures of a kind, in the order of their names."""
        return self._own[kind]

    @property
    def people(self) -> list[Picture]:
        """Pictures of people."""
        return self._own[PEOPLE.name]

    def _of(self, kind: Kind) -> list[Picture]:
        """Whole families, in the order of their hashes, fill one split after the other."""
        found = [Picture(f"emoji {d.emoji}", d.image, d.emoji) for d in self._emoji if d.subgroup in kind.emoji]
        found += _files(STAMPS, "tuxpaint-stamps-default", "usr/share/tuxpaint/stamps", kind.stamps)
        found += _files(OPENCLIPART, "openclipart-png", "usr/share/openclipart/png", kind.clip_art)
        families: dict[str, list[Picture]] = {}
        for picture in found:
            families.setdefault(picture.family, []).append(picture)
        own, taken = [], 0.0
        for family in sorted(families, key=lambda name: hashlib.sha256(name.encode()).digest()):
            middle = (taken + len(families[family]) / 2) / len(found)
            ends = accumulate(SHARES.values())
            # The last end may be slightly less than 1.
            split = next((split for split, end in zip(SHARES, ends, strict=True) if middle < end), "test")
            own += families[family] if split == self.split else []
            taken += len(families[family])
        return sorted(own, key=lambda picture: picture.name)

    def paste(self, onto: Pillow.Image, picture: Picture, middle: tuple[float, float], side: float) -> Box:
        """Draw a picture.

        Args:
            onto: the image to draw on.
            picture: what is drawn.
            middle: of the picture, in pixels of the image.
            side: its longer side, in pixels.

        Returns:
            Where it is.
        """
        if picture not in self._scaled:
            self._scaled[picture] = scaled(picture)
        source = self._scaled[picture]
        scale = side / max(source.size)
        width, height = (max(1, round(length * scale)) for length in source.size)
        left, top = round(middle[0] - width / 2), round(middle[1] - height / 2)
        shown = source.resize((width, height), Pillow.Resampling.BICUBIC)
        onto.paste(shown, (left, top), shown)
        return left, top, left + width, top + height


def _files(data_set: DataSet, package: str, root: str, folders: Iterable[str]) -> list[Picture]:
    """The pictures of folders. Those whose file names begin with the same word are a family: they are often versions
    of one drawing."""
    inside = data_set.path(package, root)
    found = []
    for folder in folders:
        for path in sorted((inside / folder).rglob("*.png")):
            if path.parent.name in LEFT_OUT:
                continue
            word = re.match(r"[^\W\d_]*", path.stem)
            assert word is not None
            if pixels(path) <= MOST_PIXELS:
                family = f"{data_set.name} {folder} {word[0] or path.stem}"
                found.append(Picture(f"{data_set.name} {path.relative_to(inside).as_posix()}", Image(path), family))
    return found


def scaled(picture: Picture) -> Pillow.Image:
    """A picture without its transparent edges, as large as fits into a square of :data:`SIDE` pixels, with an alpha
    channel."""
    with Pillow.open(str(picture.image.source)) as opened:
        made = opened.convert("RGBA")
    made = made.crop(made.getchannel("A").getbbox())
    scale = SIDE / max(made.size)
    return made.resize([max(1, round(length * scale)) for length in made.size], Pillow.Resampling.BICUBIC)


def ground(rng: random.Random) -> tuple[int, int, int]:
    """A pale colour."""
    return rng.randrange(200, 256), rng.randrange(200, 256), rng.randrange(200, 256)


def drawn_once(name: str, draw: Callable[[Path], None]) -> Path:
    """The folder of a composed set in the cache. If it is not there it is drawn first, wholly or not at all.

    Args:
        name: of the folder; another version of the rules needs another one.
        draw: writes the files into an empty folder.

    Raises:
        DataError: the pictures were not fetched.
        UserError: the folder cannot be written.
    """
    folder = cache_path("composed", name)
    if folder.is_dir():
        return folder
    parent = cache_folder("composed")
    with writing(folder), tempfile.TemporaryDirectory(dir=parent, prefix=f".{name}-") as unfinished:
        whole = Path(unfinished) / "whole"
        whole.mkdir()
        draw(whole)
        # Another process may have drawn the same meanwhile.
        if not folder.is_dir():
            os.replace(whole, folder)
    return folder
