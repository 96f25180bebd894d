"""Emoji: the same pictures by two vendors, with names and groups."""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path

from vislang.data.fetch import EMOJI
from vislang.document import Document, Image
from vislang.example import Example, Text

VENDORS = ("google", "twitter")


@dataclass(frozen=True)
class Drawing:
    """One drawing.

    Attributes:
        image: 64 x 64 pixels, transparent around the drawing.
        vendor: who drew it.
        emoji: the code points of the emoji that it shows, or that it is a skin tone of; split by this.
        name: in words.
        group: one of nine, such as ``Food & Drink`` (and ``Component``, five skin tones).
        subgroup: a finer one.
        variant: whether it is a skin tone of the emoji.
    """

    image: Image
    vendor: str
    emoji: str
    name: str
    group: str
    subgroup: str
    variant: bool

    @property
    def id(self) -> str:
        """The vendor and the code points of the drawing."""
        return f"{self.vendor}/{Path(str(self.image.source)).stem}"


def drawings() -> list[Drawing]:
    """All drawings, in the order of their code points.

    Raises:
        DataError: the set was not fetched.
    """
    records = json.loads(EMOJI.path("emoji-datasource-google", "package", "emoji.json").read_text(encoding="utf-8"))
    found = []
    for record in sorted(records, key=lambda record: record["unified"]):
        variants = sorted(record.get("skin_variations", {}).values(), key=lambda variant: variant["unified"])
        for vendor in VENDORS:
            folder = EMOJI.path(f"emoji-datasource-{vendor}", "package", "img", vendor, "64")
            for number, drawn in enumerate([record, *variants]):
                file = folder / drawn["image"]
                if file.is_file():
                    found.append(
                        Drawing(
                            Image(file),
                            vendor,
                            record["unified"],
                            (record["name"] or record["short_name"]).lower(),
                            record["category"],
                            record["subcategory"],
                            number > 0,
                        )
                    )
    return found


def pictures(*vendors: str) -> list[Example]:
    """The drawings of vendors, skin tones included, without a target."""
    return [Example(d.id, Document([d.image], name=d.image.name)) for d in drawings() if d.vendor in vendors]


def named(vendor: str, without: tuple[str, ...] = ()) -> list[Example]:
    """A vendor's drawings with the name of each; none of some groups."""
    return [
        Example(d.id, Document([d.image], name=d.image.name), Text((d.name,)))
        for d in drawings()
        if d.vendor == vendor and not d.variant and d.group not in without
    ]
