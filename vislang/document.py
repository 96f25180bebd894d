"""Document: the one form in which anything enters a model, and the one module that decodes media.

A caption pair, a question about an image, a prompt with examples and a web page are all Documents: text and
media in the order in which they are read. Media are lazy; they are opened when a model asks for them, within
limits that hold for every path into the library.
"""

from __future__ import annotations

import errno
import hashlib
import io
import warnings
from collections.abc import Iterable
from dataclasses import dataclass, replace
from functools import cached_property
from itertools import islice
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from vislang.errors import UserError

if TYPE_CHECKING:
    import numpy as np
    import PIL.Image

MAX_PIXELS = 40_000_000
"""Images with more pixels are an error, before they are decoded."""

MAX_SECONDS = 3600.0
"""Longer recordings are an error, before they are decoded."""

SILENCE = 1e-4
"""A recording whose every sample is below this share of full scale is silent."""

CLIPPED = 0.01
"""A share of samples at full scale above which a recording counts as clipped."""

FORMATS = ("JPEG", "PNG", "WEBP", "GIF", "BMP", "TIFF")
"""Image formats that are decoded; everything else is an error."""


WHITE = (255, 255, 255)
"""What transparent parts of an image are laid over, by default."""


class MediaError(UserError):
    """A medium that cannot be used; the message names the medium and the remedy."""


@dataclass(frozen=True)
class Slice:
    """A file inside of another that does not compress it, a tar say: where it lies, and what it is called there."""

    path: Path
    offset: int
    size: int
    name: str


@dataclass(frozen=True)
class Medium:
    """Something to look at or listen to: a path or the encoded bytes.

    Args:
        source: path of a file, a part of one, or the bytes of one.
    """

    source: Path | str | bytes | Slice

    @property
    def name(self) -> str:
        """What to call it in a message."""
        if isinstance(self.source, Slice):
            return f"{self.source.path}: {self.source.name}"
        return f"<{len(self.source)} bytes>" if isinstance(self.source, bytes) else str(self.source)

    def read(self) -> bytes:
        """The encoded bytes.

        Raises:
            MediaError: the file is missing, empty or cannot be read.
        """
        if isinstance(self.source, bytes):
            data = self.source
        else:
            try:
                data = _read(self.source)
            except FileNotFoundError:
                raise MediaError(
                    f"{self.name}: no such file. Check the path; paths in a JSON Lines file are relative to that file."
                ) from None
            except OSError as error:
                raise MediaError(
                    f"{self.name}: cannot be read ({error.strerror}). Give a file that you may read."
                ) from None
            except ValueError as error:
                # A NUL in it, say.
                raise MediaError(f"{self.name!r}: no usable path ({error}).") from None
        if not data:
            raise MediaError(f"{self.name}: the file is empty. Copy it again from its origin.")
        return data

    @property
    def is_there(self) -> bool:
        """Whether there is anything to be read; models that read region files do without."""
        if isinstance(self.source, bytes):
            return True
        return (self.source.path if isinstance(self.source, Slice) else Path(self.source)).is_file()

    @cached_property
    def content_hash(self) -> str:
        """SHA-256 of the encoded bytes: two copies of a file share it, an edited file does not."""
        return hashlib.sha256(self.read()).hexdigest()


def _read(source: Path | str | Slice) -> bytes:
    if not isinstance(source, Slice):
        path = Path(source)
        if path.exists() and not path.is_file() and not path.is_dir():
            # Opening a named pipe would wait for ever.
            raise OSError(errno.EINVAL, "a pipe or a device, not a regular file")
        return path.read_bytes()
    with source.path.open("rb") as file:
        file.seek(source.offset)
        return file.read(source.size)


@dataclass(frozen=True)
class Image(Medium):
    """A still image; of an animation, the first frame."""

    def decode(self, max_pixels: int = MAX_PIXELS, background: tuple[int, int, int] = WHITE) -> PIL.Image.Image:
        """The image in RGB, upright.

        Args:
            max_pixels: an image with more pixels is an error; its header is read before it is decoded.
            background: what transparent parts are laid over (red, green, blue).

        Raises:
            MediaError: missing, empty, of no known format, truncated, or too large.
        """
        data = self.read()
        with warnings.catch_warnings():
            # Our own limit is stricter than the one Pillow warns at, and a damaged EXIF block is no user's concern.
            warnings.simplefilter("ignore")
            return self._decode(data, max_pixels, background)

    @cached_property
    def size(self) -> tuple[int, int]:
        """Width and height in pixels, upright, by the header alone.

        Raises:
            MediaError: missing, empty, or of no known format.
        """
        from PIL import ExifTags

        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            with self._opened(self.read(), MAX_PIXELS) as opened:
                # Orientations from 5 on lie on their side.
                turned = opened.getexif().get(ExifTags.Base.Orientation, 1) >= 5
                return opened.size[::-1] if turned else opened.size

    def _opened(self, data: bytes, max_pixels: int) -> PIL.Image.Image:
        from PIL import Image as Pillow
        from PIL import UnidentifiedImageError

        try:
            opened = Pillow.open(io.BytesIO(data), formats=FORMATS)
        except UnidentifiedImageError:
            raise MediaError(
                f"{self.name}: not an image of a known format. Convert it to one of {', '.join(FORMATS)}."
            ) from None
        except Pillow.DecompressionBombError:
            raise MediaError(_too_large(self.name, "far more", max_pixels)) from None
        except (OSError, ValueError, SyntaxError) as error:
            raise MediaError(f"{self.name}: broken image header ({error}). Copy it again from its origin.") from None
        if opened.width * opened.height > max_pixels:
            opened.close()
            raise MediaError(_too_large(self.name, f"{opened.width} x {opened.height}", max_pixels))
        return opened

    def _decode(self, data: bytes, max_pixels: int, background: tuple[int, int, int]) -> PIL.Image.Image:
        from PIL import ImageOps

        with self._opened(data, max_pixels) as opened:
            try:
                upright = ImageOps.exif_transpose(opened)
                return _to_rgb(upright, background)
            except (OSError, ValueError, SyntaxError, EOFError, IndexError) as error:
                raise MediaError(
                    f"{self.name}: truncated or damaged image ({error}). Copy it again from its origin."
                ) from None


@dataclass(frozen=True)
class Video(Medium):
    """A moving image without its sound."""

    def decode(
        self, frames_per_second: float = 1.0, max_frames: int = 32, max_pixels: int = MAX_PIXELS
    ) -> list[PIL.Image.Image]:
        """Frames in RGB, in order: one every ``1 / frames_per_second`` seconds, the first among them.

        Of a longer video as many as ``max_frames``, evenly spaced over the whole.

        Args:
            frames_per_second: how often to look.
            max_frames: the most frames to return, at least one.
            max_pixels: a video whose frames have more pixels is an error, before one is decoded.

        Raises:
            MediaError: missing, empty, of no known format, damaged, without a single frame, or too large.
        """
        try:
            import av
        except ImportError:
            raise MediaError(f"{self.name}: video needs PyAV. Run: pip install 'vislang[video]'") from None
        try:
            with av.open(io.BytesIO(self.read()), "r") as container:
                if not container.streams.video:
                    raise MediaError(f"{self.name}: no moving image in it. Give a video, or its sound as audio.")
                stream = container.streams.video[0]
                if stream.width * stream.height > max_pixels:
                    raise MediaError(_too_large(self.name, f"{stream.width} x {stream.height}", max_pixels))
                stream.thread_type = "AUTO"
                sampled = _every(container.decode(stream), 1 / frames_per_second, max_frames)
        except av.FFmpegError as error:
            raise MediaError(
                f"{self.name}: not a video of a known format, or damaged ({error.strerror}). Convert it to MP4 or WebM."
            ) from None
        if not sampled:
            raise MediaError(f"{self.name}: a video without frames. Record it again, or leave it out.")
        return sampled


def _every(frames: Iterable[Any], seconds: float, most: int) -> list[PIL.Image.Image]:
    """Of a video's frames one each so many seconds; where that makes too many, every second of them, and so on."""
    if most == 1:
        return [frame.to_image() for frame in islice(frames, 1)]
    kept: list[tuple[float, PIL.Image.Image]] = []
    start: float | None = None
    for number, frame in enumerate(frames):
        # Some formats tell no times; then a frame counts as a 25th of a second.
        time = float(frame.time) if frame.time is not None else number / 25
        start = time if start is None else start
        if time - start >= len(kept) * seconds - 1e-6:
            kept.append((time, frame.to_image()))
            if len(kept) == 2 * most:
                # The video is long: half of what was kept is dropped, and from here on half as much is.
                kept, seconds = kept[::2], 2 * seconds
    if len(kept) > most:
        spaced = [round(number * (len(kept) - 1) / max(1, most - 1)) for number in range(most)]
        kept = [kept[index] for index in spaced]
    return [image for _, image in kept]


class AudioNotice(UserWarning):
    """Something about a recording that does not keep it from being used; shown once each."""


@dataclass(frozen=True)
class Audio(Medium):
    """A recording of sound."""

    def decode(self, rate: int = 16_000, max_seconds: float = MAX_SECONDS) -> np.ndarray:
        """The waveform: (samples,) float32 between -1 and 1, one channel.

        Channels are averaged. Another rate is resampled, and clipped sound used as it is; both with a notice.

        Args:
            rate: samples a second of the result.
            max_seconds: a longer recording is an error; its header is read before it is decoded.

        Raises:
            MediaError: missing, empty, of no known format, damaged, too long, silent, or with values that are no
                numbers.
        """
        try:
            import soundfile
        except ImportError:
            raise MediaError(
                f"{self.name}: sound needs soundfile and soxr. Run: pip install 'vislang[audio]'"
            ) from None
        try:
            with soundfile.SoundFile(io.BytesIO(self.read())) as file:
                if file.frames > max_seconds * file.samplerate:
                    raise MediaError(
                        f"{self.name}: {file.frames / file.samplerate:.0f} seconds, over the limit of "
                        f"{max_seconds:.0f}. Cut it into pieces."
                    )
                samples, original = file.read(dtype="float32", always_2d=True), file.samplerate
        except soundfile.LibsndfileError as error:
            raise MediaError(
                f"{self.name}: not a sound of a known format, or damaged ({error.error_string.strip()}) "
                "Convert it to WAV, FLAC, OGG or MP3."
            ) from None
        return self._checked(samples.mean(axis=1), original, rate)

    def _checked(self, samples: np.ndarray, original: int, rate: int) -> np.ndarray:
        import numpy as np

        if not len(samples):
            raise MediaError(f"{self.name}: no samples in it. Record it again, or leave it out.")
        if not np.isfinite(samples).all():
            raise MediaError(f"{self.name}: some samples are no numbers. Export it again from its origin.")
        if np.abs(samples).max() < SILENCE:
            raise MediaError(f"{self.name}: silent. Record it again, or leave it out.")
        if (np.abs(samples) >= 0.999).mean() > CLIPPED:
            warnings.warn(
                f"{self.name}: clipped, more than {CLIPPED:.0%} of its samples are at full scale; used as it is.",
                AudioNotice,
                stacklevel=3,
            )
        if original != rate:
            import soxr

            warnings.warn(f"sound at {original:,} Hz is resampled to {rate:,} Hz.", AudioNotice, stacklevel=3)
            samples = soxr.resample(samples, original, rate)
        return samples


@dataclass(frozen=True)
class Absent:
    """The position of a medium that was taken away: text around it stays, there is nothing to look at."""


@dataclass(frozen=True)
class Learned:
    """Text that a model is to learn to say, where it stands: a caption, an answer, the words of a page."""

    text: str


@dataclass(frozen=True)
class EndOfChunk:
    """The end of what belongs together: an example's answer, the text between two images of a page."""


Part = str | Image | Video | Audio | Absent | Learned | EndOfChunk


MediaSide = Literal["before", "after", "either"]


@dataclass(frozen=True)
class Document:
    """Text and media in reading order.

    Args:
        parts: strings and media.
        target: the text that should follow, where one is known: an answer, a caption.
        name: what to call the document in a message, such as its file and line.
        media_side: whether text attends to the medium before it or to the one after it. ``either`` draws one of the
            two each time the document is trained on, because web pages show an image before or after they mention it.

    Raises:
        TypeError: a part is neither text nor a medium.
    """

    parts: tuple[Part, ...]
    target: str | None = None
    name: str = ""
    media_side: MediaSide = "before"

    def __init__(
        self, parts: Iterable[Part], target: str | None = None, name: str = "", media_side: MediaSide = "before"
    ):
        parts = tuple(parts)
        for part in parts:
            if not isinstance(part, Part):
                raise TypeError(f"{name or 'Document'}: a part is a {type(part).__name__}; give text or media.")
        object.__setattr__(self, "parts", parts)
        object.__setattr__(self, "target", target)
        object.__setattr__(self, "name", name)
        object.__setattr__(self, "media_side", media_side)

    @property
    def media(self) -> tuple[Medium, ...]:
        """The media, in order; absent ones left out."""
        return tuple(part for part in self.parts if isinstance(part, Medium))

    def without_media(self) -> Document:
        """The same document with its media taken away and their positions kept: what a blind reader has."""
        return replace(self, parts=tuple(Absent() if isinstance(p, Medium) else p for p in self.parts))

    def without_target(self) -> Document:
        """The same document as a prompt: nothing of it is to be learned."""
        parts: list[Part] = []
        for part in self.parts:
            before = parts[-1] if parts else None
            parts.append(set_off(part.text, before) if isinstance(part, Learned) else part)
        return replace(self, parts=tuple(parts), target=None)


def set_off(text: str, before: Part | None) -> str:
    """The target text, with a space before it, unless the text that it follows ends with one or there is nothing."""
    apart = before is None or (isinstance(before, str) and before[-1:].isspace())
    return text.strip() if apart else f" {text.strip()}"


def _too_large(name: str, size: str, max_pixels: int) -> str:
    return (
        f"{name}: {size} pixels, over the limit of {max_pixels:,}. Scale the image down "
        "(or raise the limit where you trust the file)."
    )


def _to_rgb(image: PIL.Image.Image, background: tuple[int, int, int]) -> PIL.Image.Image:
    """Convert any mode to RGB without losing what is in it."""
    from PIL import Image as Pillow

    if image.mode.startswith("I") or image.mode == "F":
        # Pillow clips 16-bit grey to 8 bits; scale instead. TIFF's 32-bit modes are read the same way.
        import numpy as np

        values = np.asarray(image, dtype=np.float64)
        top = 65535.0 if values.max(initial=0) > 255 else 255.0
        image = Pillow.fromarray((values.clip(0, top) / top * 255).astype(np.uint8))
    if image.mode in ("RGBA", "LA", "PA") or "transparency" in image.info:
        image = image.convert("RGBA")
        image = Pillow.alpha_composite(Pillow.new("RGBA", image.size, background), image)
    return image.convert("RGB")
