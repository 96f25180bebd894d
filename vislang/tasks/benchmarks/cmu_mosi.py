"""CMU-MOSI (Zadeh et al. 2016) and CMU-MOSEI (Zadeh et al. 2018): how positive a speaker in a video is."""

from __future__ import annotations

from typing import ClassVar

from vislang.data.fields import field, finite_text, id_field, one_of, text_field
from vislang.data.problems import RecordError
from vislang.document import Audio, Document, Medium
from vislang.example import Example, Value, Wording
from vislang.tasks.benchmarks.sentiment import STRONGEST, Sentiment
from vislang.tasks.files import each, one_file, read_csv, video_in

MODES = {"train": "train", "valid": "val", "test": "test"}
"""The names of the official splits in the file, and here."""


class MOSI(Sentiment):
    """``label.csv`` of MMSA's edition (Yu et al. 2021), with the columns ``video_id``, ``clip_id``, ``text``, ``label``
    and ``mode``, the official split. Clips are ``Raw/<video_id>/<clip_id>.mp4``, or those of CMU's own archive,
    ``Raw/Video/Segmented/<video_id>_<clip_id>.mp4`` and ``Raw/Audio/WAV_16000/Segmented/<video_id>_<clip_id>.wav``.

    CMU's ``.csd`` files with the same labels are not read. The id of a clip is ``<video_id>_<clip_id>``.

    Attributes:
        parts: what a prompt contains, of ``video``, ``audio`` and ``text``.
    """

    name = "cmu-mosi"
    about = "how positive a speaker is, from the video and the words"
    media = frozenset({"video", "text"})
    files = "label.csv, Raw/<video_id>/<clip_id>.mp4"
    parts: ClassVar[tuple[str, ...]] = ("video", "text")

    def find_splits(self) -> dict[str, list[dict[str, str]]]:
        """The splits, from the column ``mode``."""
        self.path = one_file(self.folder, "label.csv", required=self.files)
        self._rows: dict[str, list[dict[str, str]]] = {}

        def put(row: dict[str, str]) -> None:
            self._rows.setdefault(MODES[one_of(field(row, "mode"), tuple(MODES))], []).append(row)

        each(self.path, read_csv(self.path), put)
        return self._rows

    def read(self, split: str) -> list[Example]:
        """The clips of a split, in the order of the file."""
        return each(self.path, self._rows[split], self._example)

    def _example(self, row: dict[str, str]) -> Example:
        video, clip = id_field(row, "video_id"), id_field(row, "clip_id")
        name, score = f"{video}_{clip}", finite_text(field(row, "label"), "label")
        if abs(score) > STRONGEST:
            raise RecordError(f"label of {name} is {score:g}, not from {-STRONGEST} to {STRONGEST}.")
        source = f"{self.path.name}, {name}"
        found: dict[str, Medium | str] = {"text": text_field(row, "text")}
        if "video" in self.parts:
            own = self.folder / "Raw" / video / f"{clip}.mp4"
            places = (f"Raw/{video}",) if own.exists() else ("Raw/Video/Segmented", f"Raw/{video}")
            found["video"] = video_in(self.folder, places, clip if own.exists() else name, ".mp4")
        if "audio" in self.parts:
            beside = self.folder / "Raw" / video / f"{clip}.wav"
            archive = self.folder / "Raw" / "Audio" / "WAV_16000" / "Segmented" / f"{name}.wav"
            found["audio"] = Audio(beside if beside.exists() else archive)
        prompt = Document([found[part] for part in self.parts], name=source)  # type: ignore[misc]
        return Example(name, prompt, Value(score), (), video, source, self.name, self.wording)


class MOSIText(MOSI):
    """The words alone."""

    name = "cmu-mosi-text"
    about = "how positive a speaker is, from the words"
    media = frozenset({"text"})
    files = "label.csv"
    parts = ("text",)


class MOSIAudio(MOSI):
    """The voice alone."""

    name = "cmu-mosi-audio"
    about = "how positive a speaker is, from the voice"
    media = frozenset({"audio"})
    files = "label.csv, Raw/Audio/WAV_16000/Segmented/<video_id>_<clip_id>.wav or Raw/<video_id>/<clip_id>.wav"
    parts = ("audio",)
    wording = Wording("How positive is this voice, as a number from -3 to 3?")


class MOSEI(MOSI):
    """The same files of the larger set."""

    name = "cmu-mosei"


class MOSEIText(MOSIText):
    """The words alone."""

    name = "cmu-mosei-text"


class MOSEIAudio(MOSIAudio):
    """The voice alone."""

    name = "cmu-mosei-audio"
