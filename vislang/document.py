"""Document: text and media in reading order, the input of every model. This is the only module that decodes media.

A captioned image, a question about an image, a prompt with examples and a web page are all Documents. Media are lazy:
they are decoded when a model needs them, with the same limits everywhere.
"""

from __future__ import annotations

import errno
import hashlib
import io
import math
import warnings
from collections.abc import Iterable
from dataclasses import dataclass, replace
from functools import cached_property
from itertools import islice
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, NamedTuple, Protocol

from vislang.errors import UserError

if TYPE_CHECKING:
    import numpy as np
    import PIL.Image

MAX_PIXELS = 40_000_000
"""Images with more pixels are an error; the header is checked before decoding."""

MAX_SECONDS = 3600.0
"""Longer recordings are an error; the header is checked before decoding."""

SILENCE = 1e-4
"""A recording is silent if all its samples are below this share of full scale."""

CLIPPED = 0.01
"""A recording is clipped if more than this share of its samples is at full scale."""

FORMATS = ("JPEG", "PNG", "WEBP", "GIF", "BMP", "TIFF")
"""Image formats that are decoded; others are an error."""


WHITE = (255, 255, 255)
"""The default background of transparent images."""

MARK_COLOURS = ((200, 30, 30), (30, 90, 200), (20, 130, 50), (150, 50, 170), (190, 100, 0), (0, 125, 135), (90, 90, 90))
"""Colours of the boxes that are drawn on an image, in turn; white text is readable on each."""


class MediaError(UserError):
    """A medium that cannot be used; the message names the medium and the remedy.

    Attributes:
        kind: the kind of fault, by which bad records are counted.
    """

    kind = "damaged media"


class MissingMedium(MediaError):
    """A medium whose file does not exist."""

    kind = "missing media"


class Stored(Protocol):
    """A file without a path of its own: inside another file, or at a web address. It can be compared and hashed."""

    @property
    def name(self) -> str:
        """The name in messages."""
        ...

    @property
    def is_there(self) -> bool:
        """Whether the file exists."""
        ...

    def read(self) -> bytes:
        """The content of the file.

        Raises:
            OSError: it cannot be read.
        """
        ...


@dataclass(frozen=True)
class _OnDisk:
    """What files on disk have in common."""

    path: Path

    @property
    def name(self) -> str:
        """See :class:`Stored`."""
        return str(self.path)

    @property
    def is_there(self) -> bool:
        """See :class:`Stored`."""
        return self.path.is_file()


@dataclass(frozen=True)
class Slice(_OnDisk):
    """A file inside an uncompressed archive such as a tar.

    Attributes:
        path: the archive.
        offset, size: position and size of the file in the archive, in bytes.
        member: the name of the file in the archive.
        origin: the name of the archive in messages, if it is not ``path``.
    """

    offset: int
    size: int
    member: str
    origin: str = ""

    @property
    def name(self) -> str:
        """See :class:`Stored`."""
        return f"{self.origin or self.path}: {self.member}"

    def read(self) -> bytes:
        """See :class:`Stored`."""
        with self.path.open("rb") as file:
            file.seek(self.offset)
            return file.read(self.size)


class Mark(NamedTuple):
    """A named box in an image; its edges in pixels."""

    name: str
    left: float
    top: float
    right: float
    bottom: float


@dataclass(frozen=True)
class Marked(_OnDisk):
    """An image with boxes and their names drawn on it, so that a text can refer to what they contain.

    Colours follow from the order of the marks. Models that read regions also read one for each mark.

    Attributes:
        path: the image.
        marks: the boxes.
        width, height: the size of the image that the boxes refer to, in pixels.
    """

    marks: tuple[Mark, ...]
    width: float
    height: float

    def read(self) -> bytes:
        """See :class:`Stored`; the image with its marks, as a bitmap.

        Raises:
            MediaError: the image is missing or damaged.
        """
        from PIL import ImageDraw, ImageFont

        image = Image(self.path).decode()
        across, down = image.width / self.width, image.height / self.height
        pen, line = ImageDraw.Draw(image), max(1, min(image.size) // 150)
        font = ImageFont.load_default(max(8, min(image.size) // 30))
        for number, mark in enumerate(self.marks):
            colour = MARK_COLOURS[number % len(MARK_COLOURS)]
            left, top = mark.left * across, mark.top * down
            pen.rectangle((left, top, mark.right * across, mark.bottom * down), outline=colour, width=line)
            pen.rectangle(pen.textbbox((left + line, top + line), mark.name, font=font), fill=colour)
            pen.text((left + line, top + line), mark.name, fill=WHITE, font=font)
        file = io.BytesIO()
        image.save(file, "BMP")
        return file.getvalue()


@dataclass(frozen=True)
class Facing(_OnDisk):
    """An image on a path, with the direction in which the camera looks, in radians.

    Attributes:
        path: the image.
        heading, elevation: direction of the step that led to the place of the image.
        next_heading: heading of the step that leads on; at the end, ``heading``.
    """

    heading: float
    elevation: float
    next_heading: float

    def read(self) -> bytes:
        """See :class:`Stored`."""
        return self.path.read_bytes()

    def direction(self) -> tuple[float, ...]:
        """Sine and cosine of heading, elevation and next heading, as of VLN-BERT (Majumdar et al. 2020)."""
        angles = (self.heading, self.elevation, self.next_heading)
        return tuple(value for angle in angles for value in (math.sin(angle), math.cos(angle)))


@dataclass(frozen=True)
class InMemory:
    """A file whose content is in memory, such as a part of a request.

    Attributes:
        name: the name in messages.
        content: the content.
    """

    name: str
    content: bytes

    @property
    def is_there(self) -> bool:
        """See :class:`Stored`."""
        return True

    def read(self) -> bytes:
        """See :class:`Stored`."""
        return self.content


@dataclass(frozen=True)
class Medium:
    """An image, video or recording, given as a path, as encoded bytes, or as a stored file.

    Args:
        source: the path of a file, the encoded bytes, or a file without a path of its own.
    """

    source: Path | str | bytes | Stored

    @property
    def name(self) -> str:
        """The name of the medium in messages."""
        if isinstance(self.source, bytes):
            return f"<{len(self.source)} bytes>"
        return str(self.source) if isinstance(self.source, Path | str) else self.source.name

    def read(self) -> bytes:
        """The encoded bytes.

        Raises:
            MissingMedium: there is no such file.
            MediaError: the file is empty or cannot be read.
        """
        if isinstance(self.source, bytes):
            data = self.source
        else:
            try:
                data = _read(self.source)
            except FileNotFoundError:
                raise MissingMedium(
                    f"{self.name}: no such file. Check the path. In a JSON Lines file, paths are relative to that file."
                ) from None
            except OSError as error:
                raise MediaError(f"{self.name}: cannot be read ({error.strerror}). Give a readable file.") from None
            except UserError:
                raise
            except ValueError as error:
                # The path contains a NUL character, for example.
                raise MediaError(f"{self.name!r}: not a valid path ({error}).") from None
        if not data:
            raise MediaError(f"{self.name}: the file is empty. Copy the original again.")
        return data

    @property
    def is_there(self) -> bool:
        """Whether the file exists. Models that use region files do not need the image itself."""
        if isinstance(self.source, bytes):
            return True
        return Path(self.source).is_file() if isinstance(self.source, Path | str) else self.source.is_there

    @cached_property
    def content_hash(self) -> str:
        """SHA-256 of the encoded bytes: equal for copies of a file."""
        return hashlib.sha256(self.read()).hexdigest()

    def pictures(self) -> list[PIL.Image.Image]:
        """Images that show the medium to a reader; a recording has none.

        Raises:
            MediaError: it cannot be used.
        """
        return []

    def _repr_html_(self) -> str:
        """The medium in a notebook."""
        from vislang.notebook import medium

        return medium(self.name, self.pictures)


def _read(source: Path | str | Stored) -> bytes:
    if not isinstance(source, Path | str):
        return source.read()
    path = Path(source)
    if path.exists() and not path.is_file() and not path.is_dir():
        # Opening a named pipe would block.
        raise OSError(errno.EINVAL, "a pipe or a device, not a regular file")
    return path.read_bytes()


@dataclass(frozen=True)
class Image(Medium):
    """A still image, or the first frame of an animation."""

    def decode(self, max_pixels: int = MAX_PIXELS, background: tuple[int, int, int] = WHITE) -> PIL.Image.Image:
        """The image in RGB, upright.

        Args:
            max_pixels: an image with more pixels is an error; the header is checked before decoding.
            background: the colour behind transparent parts (red, green, blue).

        Raises:
            MediaError: the image is missing, empty, of an unknown format, truncated or too large.
        """
        data = self.read()
        with warnings.catch_warnings():
            # Our limit is stricter than Pillow's, and users need not know about damaged EXIF data.
            warnings.simplefilter("ignore")
            return self._decode(data, max_pixels, background)

    @cached_property
    def size(self) -> tuple[int, int]:
        """Width and height in pixels, upright, from the header.

        Raises:
            MediaError: the image is missing, empty or of an unknown format.
        """
        from PIL import ExifTags

        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            with self._opened(self.read(), MAX_PIXELS) as opened:
                # Orientations 5 to 8 are rotated by 90 degrees.
                turned = opened.getexif().get(ExifTags.Base.Orientation, 1) >= 5
                return opened.size[::-1] if turned else opened.size

    def pictures(self) -> list[PIL.Image.Image]:
        """See :meth:`Medium.pictures`."""
        return [self.decode()]

    def _opened(self, data: bytes, max_pixels: int) -> PIL.Image.Image:
        from PIL import Image as Pillow
        from PIL import UnidentifiedImageError

        try:
            opened = Pillow.open(io.BytesIO(data), formats=FORMATS)
        except UnidentifiedImageError:
            raise MediaError(
                f"{self.name}: not an image, or of an unknown format. Convert it to {' or '.join(FORMATS[:2])}."
            ) from None
        except Pillow.DecompressionBombError:
            raise MediaError(_too_large(self.name, "too many", max_pixels)) from None
        except (OSError, ValueError, SyntaxError) as error:
            raise MediaError(f"{self.name}: damaged image header ({error}). Copy the original again.") from None
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
                    f"{self.name}: truncated or damaged image ({error}). Copy the original again."
                ) from None


@dataclass(frozen=True)
class Video(Medium):
    """A video, without its sound."""

    def decode(
        self, frames_per_second: float = 1.0, max_frames: int = 32, max_pixels: int = MAX_PIXELS
    ) -> list[PIL.Image.Image]:
        """Frames in RGB, in order: the first one, then one every ``1 / frames_per_second`` seconds.

        If that gives more than ``max_frames``, they are evenly spaced over the whole video instead.

        Args:
            frames_per_second: sampling rate.
            max_frames: greatest number of frames, at least 1.
            max_pixels: a video whose frames have more pixels is an error; the header is checked before decoding.

        Raises:
            MediaError: the video is missing, empty, of an unknown format, damaged, without frames or too large.
        """
        try:
            import av
        except ImportError:
            raise MediaError(f"{self.name}: videos need PyAV. Run: pip install 'vislang[video]'") from None
        try:
            with av.open(io.BytesIO(self.read()), "r") as container:
                if not container.streams.video:
                    raise MediaError(f"{self.name}: contains no video stream. Give a video, or use it as audio.")
                stream = container.streams.video[0]
                if stream.width * stream.height > max_pixels:
                    raise MediaError(_too_large(self.name, f"{stream.width} x {stream.height}", max_pixels))
                stream.thread_type = "AUTO"
                sampled = _every(container.decode(stream), 1 / frames_per_second, max_frames)
        except av.FFmpegError as error:
            raise MediaError(
                f"{self.name}: not a video, of an unknown format, or damaged ({error.strerror}). Convert it to MP4 or "
                "WebM."
            ) from None
        if not sampled:
            raise MediaError(f"{self.name}: a video without frames. Leave it out.")
        return sampled

    def pictures(self) -> list[PIL.Image.Image]:
        """See :meth:`Medium.pictures`; four frames at most."""
        return self.decode(max_frames=4)


def _every(frames: Iterable[Any], seconds: float, most: int) -> list[PIL.Image.Image]:
    """One frame per interval of ``seconds``; whenever that gives twice too many, the interval is doubled."""
    if most == 1:
        return [frame.to_image() for frame in islice(frames, 1)]
    kept: list[tuple[float, PIL.Image.Image]] = []
    start: float | None = None
    for number, frame in enumerate(frames):
        # Frames without a time stamp are taken to last 1/25 s.
        time = float(frame.time) if frame.time is not None else number / 25
        start = time if start is None else start
        if time - start >= len(kept) * seconds - 1e-6:
            kept.append((time, frame.to_image()))
            if len(kept) == 2 * most:
                # The video is long: drop every other frame, and double the interval.
                kept, seconds = kept[::2], 2 * seconds
    if len(kept) > most:
        spaced = [round(number * (len(kept) - 1) / max(1, most - 1)) for number in range(most)]
        kept = [kept[index] for index in spaced]
    return [image for _, image in kept]


class AudioNotice(UserWarning):
    """A recording has a flaw but can be used; each message is shown once."""


@dataclass(frozen=True)
class Audio(Medium):
    """A sound recording."""

    def decode(self, rate: int = 16_000, max_seconds: float = MAX_SECONDS) -> np.ndarray:
        """The waveform: (samples,) float32 between -1 and 1, one channel.

        Channels are averaged. Other sampling rates are resampled with a warning. Clipped sound gets a warning.

        Args:
            rate: sampling rate of the result, in Hz.
            max_seconds: a longer recording is an error; the header is checked before decoding.

        Raises:
            MediaError: the recording is missing, empty, of an unknown format, damaged, too long, silent, or has samples
                that are not finite.
        """
        try:
            import soundfile
        except ImportError:
            raise MediaError(
                f"{self.name}: recordings need soundfile and soxr. Run: pip install 'vislang[audio]'"
            ) from None
        try:
            with soundfile.SoundFile(io.BytesIO(self.read())) as file:
                if file.frames > max_seconds * file.samplerate:
                    raise MediaError(
                        f"{self.name}: {file.frames / file.samplerate:.0f} seconds, and the limit is "
                        f"{max_seconds:.0f}. Cut it into pieces."
                    )
                samples, original = file.read(dtype="float32", always_2d=True), file.samplerate
        except soundfile.LibsndfileError as error:
            raise MediaError(
                f"{self.name}: not a recording, of an unknown format, or damaged ({error.error_string.strip()}) "
                "Convert it to WAV, FLAC, OGG or MP3."
            ) from None
        return self._checked(samples.mean(axis=1), original, rate)

    def _checked(self, samples: np.ndarray, original: int, rate: int) -> np.ndarray:
        import numpy as np

        if not len(samples):
            raise MediaError(f"{self.name}: contains no samples. Leave it out.")
        if not np.isfinite(samples).all():
            raise MediaError(f"{self.name}: some samples are NaN or infinite. Export it again.")
        if np.abs(samples).max() < SILENCE:
            raise MediaError(f"{self.name}: silent. Leave it out.")
        if (np.abs(samples) >= 0.999).mean() > CLIPPED:
            warnings.warn(
                f"{self.name}: clipped, more than {CLIPPED:.0%} of its samples are at full scale; used unchanged.",
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
    """The position of a medium that was removed. The text around it stays."""


@dataclass(frozen=True)
class Learned:
    """Text that a model learns to generate in this position: a caption, an answer, the text of a page."""

    text: str


@dataclass(frozen=True)
class EndOfChunk:
    """The end of a chunk: of an example in a prompt, or of the text that belongs to an image of a page."""


Part = str | Image | Video | Audio | Absent | Learned | EndOfChunk


MediaSide = Literal["before", "after", "either"]


@dataclass(frozen=True)
class Document:
    """Text and media in reading order.

    Args:
        parts: strings and media.
        target: the text that should follow, if it is known: an answer, a caption.
        name: name of the document in messages, such as its file and line.
        media_side: whether text attends to the medium before it or to the one after it. ``either`` draws one of the
            two each time the document is trained on, because web pages show an image before or after they mention it.

    Raises:
        TypeError: a part is neither a string nor a medium.
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
                raise TypeError(f"{name or 'Document'}: a part is a {type(part).__name__}, not a string or a medium.")
        object.__setattr__(self, "parts", parts)
        object.__setattr__(self, "target", target)
        object.__setattr__(self, "name", name)
        object.__setattr__(self, "media_side", media_side)

    @property
    def media(self) -> tuple[Medium, ...]:
        """The media in order, without absent ones."""
        return tuple(part for part in self.parts if isinstance(part, Medium))

    def without_media(self) -> Document:
        """The same document with each medium replaced by :class:`Absent`."""
        return replace(self, parts=tuple(Absent() if isinstance(p, Medium) else p for p in self.parts))

    def without_target(self) -> Document:
        """The same document as a prompt: without a target, and with Learned text as plain text."""
        parts: list[Part] = []
        for part in self.parts:
            before = parts[-1] if parts else None
            parts.append(set_off(part.text, before) if isinstance(part, Learned) else part)
        return replace(self, parts=tuple(parts), target=None)

    def _repr_html_(self) -> str:
        """The parts in a notebook, in reading order; text that is learned is bold."""
        from vislang.notebook import Html, block, note, text

        shown: list[Html] = []
        for part in self.parts:
            if isinstance(part, Medium):
                shown.append(Html(part._repr_html_()))
            elif isinstance(part, EndOfChunk):
                shown.append(Html("<br>"))
            elif isinstance(part, Learned):
                shown.append(text(f" {part.text}", strong=True))
            else:
                shown.append(note("[removed] ") if isinstance(part, Absent) else text(part))
        if self.target is not None:
            shown.append(text(f" {self.target}", strong=True))
        return block(*([block(note(self.name))] if self.name else []), *shown)


def set_off(text: str, before: Part | None) -> str:
    """A target text with a leading space, unless nothing or a space precedes it."""
    apart = before is None or (isinstance(before, str) and before[-1:].isspace())
    return text.strip() if apart else f" {text.strip()}"


def _too_large(name: str, size: str, max_pixels: int) -> str:
    return (
        f"{name}: {size} pixels, and the limit is {max_pixels:,}. Scale the image down, or raise the limit if you "
        "trust the file."
    )


def _to_rgb(image: PIL.Image.Image, background: tuple[int, int, int]) -> PIL.Image.Image:
    """Convert an image of any mode to RGB."""
    from PIL import Image as Pillow

    if image.mode.startswith("I") or image.mode == "F":
        # Pillow would clip 16-bit grey to 8 bits, so scale it first. TIFF's 32-bit modes are treated in the same way.
        import numpy as np

        values = np.asarray(image, dtype=np.float64)
        top = 65535.0 if values.max(initial=0) > 255 else 255.0
        image = Pillow.fromarray((values.clip(0, top) / top * 255).astype(np.uint8))
    if image.mode in ("RGBA", "LA", "PA") or "transparency" in image.info:
        image = image.convert("RGBA")
        image = Pillow.alpha_composite(Pillow.new("RGBA", image.size, background), image)
    return image.convert("RGB")
