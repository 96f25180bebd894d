"""Films of easy-VQA's images, one after the other: only their order tells what comes first, and what last."""

from __future__ import annotations

import io
import random
import re
from collections import defaultdict
from collections.abc import Sequence
from fractions import Fraction

import PIL.Image

from vislang.data.example import Example
from vislang.data.jsonl import DataError
from vislang.document import Image, Video
from vislang.tasks.easy_vqa import easy_vqa

NAME = "easy-vqa-films"
COUNTS = {"train": 3000, "test": 1000}
"""Films of each split; of each one question is asked."""

LENGTHS = (2, 3, 4, 5, 6)
"""Frames of a film, one a second, each of another colour."""

FACTS = (
    re.compile(r"what is the (?P<color>\w+) shape\?"),
    re.compile(r"what (?:is the color of|color is) the (?:shape|(?P<shape>\w+))\?"),
    re.compile(r"what shape (?:is in the image|is present|does the image contain)\?"),
)
"""Questions of easy-VQA that tell what an image shows, by what they say and what is answered."""

ORDER = {"first": 0, "last": -1}


def films(split: str) -> list[Example]:
    """Questions after the colour or the shape of the first frame or the last, of easy-VQA's images of this split.

    Raises:
        DataError: easy-VQA, or what writes films, is missing.
        ValueError: there is no such split.
    """
    shown = things(easy_vqa(split))
    colours = sorted({thing["color"] for thing in shown.values()})
    by_colour = {colour: [image for image in shown if shown[image]["color"] == colour] for colour in colours}
    pictures = {image: image.decode() for image in shown}
    made = []
    for number in range(1, COUNTS[split] + 1):
        name = f"{NAME}/{split}:{number}"
        chance = random.Random(name)
        images = [chance.choice(by_colour[colour]) for colour in chance.sample(colours, chance.choice(LENGTHS))]
        asked, which = chance.choice(("color", "shape")), chance.choice(list(ORDER))
        video = Video(film([pictures[image] for image in images]))
        made.append(Example(name, (shown[images[ORDER[which]]][asked],), video, f"what {asked} comes {which}?"))
    return made


def things(examples: Sequence[Example]) -> dict[Image, dict[str, str]]:
    """Colour and shape of each image, as far as questions tell both."""
    found: dict[Image, dict[str, str]] = defaultdict(dict)
    for example in examples:
        for pattern in FACTS:
            if example.question is not None and (said := pattern.fullmatch(example.question)):
                answered = "color" if pattern is FACTS[1] else "shape"
                told = {name: value for name, value in said.groupdict().items() if value is not None}
                assert isinstance(example.image, Image)
                found[example.image] |= {**told, answered: example.target}
    return {image: told for image, told in found.items() if len(told) == 2}


def film(frames: Sequence[PIL.Image.Image]) -> bytes:
    """An MP4 file of frames of one size, one a second.

    Raises:
        DataError: PyAV is not installed.
    """
    try:
        import av
    except ImportError:
        raise DataError(f"{NAME}: needs PyAV. Run: pip install 'vislang[video]'") from None
    file = io.BytesIO()
    with av.open(file, "w", format="mp4") as container:
        stream = container.add_stream("mpeg4", rate=Fraction(1))
        stream.width, stream.height = frames[0].size
        stream.pix_fmt, stream.bit_rate = "yuv420p", 1_000_000
        for frame in frames:
            container.mux(stream.encode(av.VideoFrame.from_image(frame)))
        container.mux(stream.encode(None))
    return file.getvalue()
