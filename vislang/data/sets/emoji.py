"""Emoji: the same pictures by two hands, with names and groups."""

from __future__ import annotations

import json
from dataclasses import dataclass

from vislang.data.fetch import EMOJI
from vislang.document import Image

VENDORS = ("google", "twitter")


@dataclass(frozen=True)
class Drawing:
    """One drawing.

    Attributes:
        image: 64 x 64 pixels, transparent around the drawing.
        vendor: whose hand.
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
