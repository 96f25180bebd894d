"""Baseline features that are not learned: pixels, words and spectra."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence

import numpy as np
from PIL import Image as Pillow

from vislang.document import Audio, Document, Image

SIDE = 16
"""Side of the downscaled image whose pixels are the baseline, in pixels."""

MELS = 40
"""Number of mel bands."""


def raw_features(documents: Sequence[Document]) -> dict[str, np.ndarray]:
    """The baseline features of the documents' modality, by name: (documents, width), float32."""
    part = documents[0].parts[0]
    if isinstance(part, Image):
        return {f"pixels, {SIDE} x {SIDE}": np.stack([_pixels(document) for document in documents])}
    if isinstance(part, Audio):
        return {f"log-mel, {MELS} bands": np.stack([log_mel_statistics(document) for document in documents])}
    return {"bag of words": bag_of_words(["".join(map(str, document.parts)) for document in documents])}


def _pixels(document: Document) -> np.ndarray:
    (image,) = document.media
    assert isinstance(image, Image)
    small = image.decode().resize((SIDE, SIDE), Pillow.Resampling.BICUBIC)
    return np.asarray(small, dtype=np.float32).ravel() / 255


def bag_of_words(texts: Sequence[str]) -> np.ndarray:
    """For each text, which words occur in it, of those that occur in two or more texts; a zero each if none does."""
    from sklearn.feature_extraction.text import CountVectorizer

    analyze = CountVectorizer().build_analyzer()
    words = [set(analyze(text)) for text in texts]
    counts = Counter(word for own in words for word in own)
    kept = sorted(word for word, count in counts.items() if count > 1)
    return np.array([[word in own for word in kept] or [False] for own in words], dtype=np.float32)


def log_mel_statistics(document: Document) -> np.ndarray:
    """Mean and standard deviation over time of each band, in each third of the recording: (6 * MELS,)."""
    (sound,) = document.media
    assert isinstance(sound, Audio)
    spectrum = log_mel(sound.decode())
    thirds = np.array_split(spectrum, 3)
    return np.concatenate([part.mean(axis=0) for part in thirds] + [part.std(axis=0) for part in thirds])


def log_mel(samples: np.ndarray, rate: int = 16_000) -> np.ndarray:
    """Log energies in mel bands: (frames, MELS), 25 ms frames every 10 ms, with the mean over time subtracted."""
    window, hop, size = int(0.025 * rate), int(0.010 * rate), 512
    samples = np.pad(samples, (0, max(0, window - len(samples))))
    starts = np.arange(0, len(samples) - window + 1, hop)
    frames = samples[starts[:, None] + np.arange(window)] * np.hanning(window)
    power = np.abs(np.fft.rfft(frames, size)) ** 2
    energies = np.log(power @ _mel_bands(size, rate).T + 1e-10)
    return (energies - energies.mean(axis=0)).astype(np.float32)


def _mel_bands(size: int, rate: int) -> np.ndarray:
    """Triangles, evenly spaced on the mel scale (O'Shaughnessy 1987): (MELS, size / 2 + 1)."""
    top = 2595 * np.log10(1 + rate / 2 / 700)
    edges = 700 * (10 ** (np.linspace(0, top, MELS + 2) / 2595) - 1)
    frequencies = np.fft.rfftfreq(size, 1 / rate)
    rising = (frequencies - edges[:-2, None]) / (edges[1:-1] - edges[:-2])[:, None]
    falling = (edges[2:, None] - frequencies) / (edges[2:] - edges[1:-1])[:, None]
    return np.maximum(0, np.minimum(rising, falling))
