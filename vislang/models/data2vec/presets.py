"""The data of the presets without their contents, for plans: they are not packaged.

The presets are in ``vislang/presets``: data2vec 2.0 on images, text and speech, base and large (Baevski et al. 2023,
arXiv 2212.07525).
"""

from __future__ import annotations

import io
import wave

import numpy as np
from PIL import Image as Pillow

from vislang.document import WHITE, Audio, Document, Image, InMemory
from vislang.example import Example
from vislang.models.data2vec.front_ends import ImageConfig, Modalities, TextConfig
from vislang.models.data2vec.inputs import SAMPLE_RATE

MODALITIES = {
    "imagenet": "image",
    "books-and-wikipedia": "text",
    "librispeech-960h": "speech",
    "libri-light": "speech",
}
"""The modality of each source that a preset names. A recipe with data of its own names files or a folder."""

SECONDS = 12.5
"""Length of a blank recording, about the mean of LibriSpeech."""


def blanks(source: str, modalities: Modalities, count: int) -> list[Example]:
    """As many blank examples of a source: white images, texts of one word, recordings of noise.

    Args:
        source: one of ``MODALITIES``.
        modalities: the front ends of the model, among which is the source's.
        count: number of examples.
    """
    config = modalities.present()[MODALITIES[source]]
    if isinstance(config, ImageConfig):
        return [_example(n, Image(InMemory(f"blank image {n}", _white(config.size)))) for n in range(count)]
    if isinstance(config, TextConfig):
        # A word is a token at least, so the model reads as many tokens as it can.
        return [_example(n, "a " * config.max_length) for n in range(count)]
    # Silence is an error.
    return [_example(n, Audio(InMemory(f"blank recording {n}", _noise(n)))) for n in range(count)]


def _example(number: int, part: str | Image | Audio) -> Example:
    name = f"blank {number}"
    return Example(name, Document([part], name=name))


def _white(size: int) -> bytes:
    file = io.BytesIO()
    Pillow.new("RGB", (size, size), WHITE).save(file, "PNG")
    return file.getvalue()


def _noise(seed: int) -> bytes:
    samples = np.random.default_rng(seed).integers(-9999, 9999, round(SECONDS * SAMPLE_RATE), dtype=np.int16)
    file = io.BytesIO()
    with wave.open(file, "wb") as writer:
        writer.setnchannels(1)
        writer.setsampwidth(2)
        writer.setframerate(SAMPLE_RATE)
        writer.writeframes(samples.tobytes())
    return file.getvalue()
