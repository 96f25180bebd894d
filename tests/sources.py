"""A small source of every kind, in a folder."""

from __future__ import annotations

import base64
import io
import json
import tarfile
from pathlib import Path

from tests.data.test_fetch import lay_out
from tests.tasks.official import COLOURS, FOLDERS, draw, lines, write
from vislang.data.fetch import EMOJI

PICTURES = 16
"""Of each kind of source that holds pictures; a probe needs ten."""


def every_source(folder: Path) -> dict[str, str]:
    """What is typed for each kind of source, by a name for the kind."""
    photos = folder / "photos"
    for number in range(PICTURES):
        draw(photos / f"{number}.png", number)
    write(folder / "prose.txt", "\n\n".join(f"The {colour} dog sat. " * 40 for colour in COLOURS))
    colours = [COLOURS[n % 4] for n in range(PICTURES)]
    records = {
        "questions": [{"question": "what color?", "answer": colour} for colour in colours],
        "captions": [{"text": f"a {colour} shape"} for colour in colours],
        "labels": [{"label": colour} for colour in colours],
    }
    for name, own in records.items():
        pictured = [{"image": f"photos/{n}.png", **record} for n, record in enumerate(own)]
        write(folder / f"{name}.jsonl", lines(pictured))
    for number in range(2):
        _tar(folder / f"shard-{number}.tar", photos, colours, range(8 * number, 8 * number + 8))
    FOLDERS["snli-ve"](folder / "snli-ve")
    FOLDERS["vqa"](folder / "vqa")
    _pages(folder, photos, colours)
    return {
        "set": _emoji(folder),
        "benchmark": f"snli-ve:{folder / 'snli-ve'}",
        "split of a benchmark": f"vqa:{folder / 'vqa'}:val",
        "pages": f"pages:{folder / 'html'}",
        "mmc4": f"mmc4:{folder / 'mmc4.jsonl'}",
        "obelics": f"obelics:{folder / 'obelics.jsonl'}",
        "tars": f"{folder}/shard-*.tar",
        "folder": str(photos),
        "picture": str(photos / "0.png"),
        **{name: str(folder / f"{name}.jsonl") for name in records},
        "prose": str(folder / "prose.txt"),
    }


def _tar(path: Path, photos: Path, colours: list[str], numbers: range) -> None:
    with tarfile.open(path, "w") as tar:
        for number in numbers:
            picture = (photos / f"{number}.png").read_bytes()
            for name, data in ((f"{number}.png", picture), (f"{number}.txt", f"a {colours[number]} shape".encode())):
                info = tarfile.TarInfo(name)
                info.size = len(data)
                tar.addfile(info, io.BytesIO(data))


def _pages(folder: Path, photos: Path, colours: list[str]) -> None:
    for number in range(3):
        picture, text = (photos / f"{number}.png").read_bytes(), f"Here is a {colours[number]} shape."
        (folder / "html").mkdir(exist_ok=True)
        (folder / "html" / f"{number}.png").write_bytes(picture)
        write(folder / "html" / f"{number}.html", f"<p>{text}</p><img src='{number}.png'><p>It is one of three.</p>")
    packed = {"image_base64": base64.b64encode(picture).decode(), "matched_text_index": 0, "matched_sim": 0.9}
    write(folder / "mmc4.jsonl", lines([{"text_list": [text, "And that is all."], "image_info": [packed]}] * 2))
    write(folder / "obelics.jsonl", lines([{"texts": [text, None], "images": [None, "photos/0.png"]}] * 2))


def _emoji(folder: Path) -> str:
    """A packaged set as fetching leaves it, with a few drawings."""
    records, drawings = [], {}
    for number in range(PICTURES):
        code = f"1f4{number:02x}"
        about = {"name": f"SHAPE {number}", "short_name": f"{COLOURS[number % 4]} shape {number}"}
        place = {"unified": code.upper(), "image": f"{code}.png", "category": "Objects", "subcategory": "x"}
        records.append({**about, **place})
        drawn = (folder / "photos" / f"{number}.png").read_bytes()
        drawings |= {f"emoji-datasource-{v}/package/img/{v}/64/{code}.png": drawn for v in ("google", "twitter")}
    lay_out(EMOJI, {"emoji-datasource-google/package/emoji.json": json.dumps(records), **drawings})
    return "emoji-google-names"
