"""Small packages of emoji, stamps and clip art, from which composed sets are drawn; each kind has its own colour."""

from __future__ import annotations

import io
import json

from PIL import Image as Pillow

from tests.data.test_fetch import lay_out
from vislang.data.fetch import EMOJI, OPENCLIPART, STAMPS
from vislang.data.sets import things

EACH = 8
"""Emoji of each subgroup."""

COLOURS = {name: (40 + 10 * number, 255 - 12 * number, 7 * number) for number, name in enumerate(things.KINDS)}
"""The colour of each kind."""

PERSON = (0, 0, 0)


def lay_out_things() -> None:
    """Write the packages into the cache of the test."""
    colours = {subgroup: COLOURS[kind.name] for kind in things.KINDS.values() for subgroup in kind.emoji}
    colours |= dict.fromkeys(things.PEOPLE.emoji, PERSON)
    records, files = [], {}
    for number, (subgroup, colour) in enumerate(colours.items()):
        for own in range(EACH):
            code = f"{0x10000 + EACH * number + own:X}"
            record = {"name": f"{subgroup} {own}", "unified": code, "image": f"{code.lower()}.png", "short_name": "x"}
            records.append({**record, "category": "Objects", "subcategory": subgroup})
            files[f"emoji-datasource-google/package/img/google/64/{code.lower()}.png"] = png(colour)
    lay_out(EMOJI, {"emoji-datasource-google/package/emoji.json": json.dumps(records), **files})
    fruit, bird = png(COLOURS["fruit"]), png(COLOURS["bird"])
    stamps = "tuxpaint-stamps-default/usr/share/tuxpaint/stamps"
    lay_out(STAMPS, {f"{stamps}/food/fruit/{name}.png": fruit for name in ("apple", "applecore", "pear")})
    clip_art = "openclipart-png/usr/share/openclipart/png"
    lay_out(OPENCLIPART, {f"{clip_art}/animals/birds/{name}.png": bird for name in ("owl_01", "owl_bw", "kiwi", "7up")})


def png(colour: tuple[int, int, int]) -> bytes:
    """A square of a colour with transparent edges."""
    picture = Pillow.new("RGBA", (12, 12), (0, 0, 0, 0))
    picture.paste((*colour, 255), (2, 2, 10, 10))
    file = io.BytesIO()
    picture.save(file, "PNG")
    return file.getvalue()
