"""Films of easy-VQA's images, one after the other: only their order shows what comes first and what comes last."""

from __future__ import annotations

import io
import random
import re
from collections import defaultdict
from collections.abc import Sequence
from fractions import Fraction

import PIL.Image

from vislang.data.problems import DataError
from vislang.data.sets.easy_vqa import easy_vqa
from vislang.document import Document, Image, Video
from vislang.example import Answers, Example, reference_text

NAME = "easy-vqa-films"
COUNTS = {"train": 3000, "test": 1000}
"""Films of each split; each has one question."""

LENGTHS = (2, 3, 4, 5, 6)
"""Frames of a film, one a second, each of another colour."""

FACTS = (
    re.compile(r"what is the (?P<color>\w+) shape\?"),
    re.compile(r"what (?:is the color of|color is) the (?:shape|(?P<shape>\w+))\?"),
    re.compile(r"what shape (?:is in the image|is present|does the image contain)\?"),
)
"""Questions of easy-VQA that show, together with their answer, what is in an image."""

ORDER = {"first": 0, "last": -1}


def films(split: str) -> list[Example]:
    """Questions about the colour or the shape of the first or the last frame, of easy-VQA's images of this split.

    Raises:
        DataError: easy-VQA, or what writes films, is missing.
    """
    shown = things(easy_vqa(split))
    colours = sorted({thing["color"] for thing in shown.values()})
    by_colour = {colour: [image for image in shown if shown[image]["color"] == colour] for colour in colours}
    pictures = {image: image.decode() for image in shown}
    made = []
    for number in range(1, COUNTS[split] + 1):
        name = f"{NAME}/{split}:{number}"
        rng = random.Random(name)
        images = [rng.choice(by_colour[colour]) for colour in rng.sample(colours, rng.choice(LENGTHS))]
        fact, which = rng.choice(("color", "shape")), rng.choice(list(ORDER))
        video = Video(film([pictures[image] for image in images]))
        prompt = Document([video, f"what {fact} comes {which}?"], name=name)
        made.append(Example(name, prompt, Answers({shown[images[ORDER[which]]][fact]: 1.0})))
    return made


def things(examples: Sequence[Example]) -> dict[Image, dict[str, str]]:
    """Colour and shape of each image, where its questions show both."""
    found: dict[Image, dict[str, str]] = defaultdict(dict)
    for example in examples:
        (image,), answer = example.media, reference_text(example)
        assert isinstance(image, Image)
        assert answer is not None
        for pattern in FACTS:
            if match := pattern.fullmatch(example.text):
                answered = "color" if pattern is FACTS[1] else "shape"
                known = {name: value for name, value in match.groupdict().items() if value is not None}
                found[image] |= {**known, answered: answer}
    return {image: facts for image, facts in found.items() if len(facts) == 2}


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
