"""CMU-MOSI (Zadeh et al. 2016) and CMU-MOSEI (Zadeh et al. 2018): how positive a speaker in a video is."""

from __future__ import annotations

import ast
from collections.abc import Iterator
from pathlib import Path
from typing import ClassVar, NamedTuple

import numpy as np

from vislang.data.csd import Segments, read_csd
from vislang.data.fields import field, finite_text, id_field, one_of, text_field
from vislang.data.problems import DataError, RecordError
from vislang.document import Audio, Document, Medium
from vislang.example import Example, Value, Wording
from vislang.tasks.benchmarks.sentiment import STRONGEST, Sentiment
from vislang.tasks.files import each, one_file, read_csv, read_text, video_in

MODES = {"train": "train", "valid": "val", "test": "test"}
"""The names of the official splits in the files, and here."""

SHORTEST = 1e-5
"""Seconds; CMU's tools ignore shorter segments and overlaps."""


class Clip(NamedTuple):
    """A labelled piece of a video.

    Attributes:
        name: its id.
        video: the id of the video.
        clip: the number by which its files are named; None if no file says it.
        text: the words.
        score: how positive it is.
    """

    name: str
    video: str
    clip: str | None
    text: str
    score: float


class MOSI(Sentiment):
    """The labels are in one of two editions. Clips are ``Raw/<video_id>/<clip_id>.mp4``, or those of CMU's own archive,
    ``Raw/Video/Segmented/<video_id>_<clip_id>.mp4`` and ``Raw/Audio/WAV_16000/Segmented/<video_id>_<clip_id>.wav``.

    * MMSA's (Yu et al. 2021): ``label.csv`` with the columns ``video_id``, ``clip_id``, ``text``, ``label`` and
      ``mode``, the official split.
    * CMU's: a ``.csd`` file of labels, one of words, and the Python file of its SDK with the official splits, which are
      lists of videos. The n-th labelled segment of a video is its clip n, from 1. The text has the words that overlap
      with the segment, without silences. As in CMU's tools, videos in no list, and segments without words, are in no
      split.

    The id of a clip is ``<video_id>_<clip_id>``.

    Attributes:
        parts: what a prompt contains, of ``video``, ``audio`` and ``text``.
        labels_file, words_file, folds_file: the names of CMU's files, in the folder or in one inside it.
    """

    name = "cmu-mosi"
    about = "how positive a speaker is, from the video and the words"
    media = frozenset({"video", "text"})
    files = (
        "label.csv, or CMU_MOSI_Opinion_Labels.csd, CMU_MOSI_TimestampedWords.csd and cmu_mosi_std_folds.py; "
        "Raw/<video_id>/<clip_id>.mp4"
    )
    parts: ClassVar[tuple[str, ...]] = ("video", "text")
    labels_file: ClassVar[str] = "CMU_MOSI_Opinion_Labels.csd"
    words_file: ClassVar[str] = "CMU_MOSI_TimestampedWords.csd"
    folds_file: ClassVar[str] = "cmu_mosi_std_folds.py"

    def find_splits(self) -> dict[str, list[Clip]]:
        """The splits, from the file of labels."""
        self._clips: dict[str, list[Clip]] = {}
        of_cmu = any(True for pattern in _here_or_inside(self.labels_file) for _ in self.folder.glob(pattern))
        if of_cmu and not (self.folder / "label.csv").is_file():
            self.path = self._official(self.labels_file)
            self._read_csd()
        else:
            self.path = one_file(self.folder, "label.csv", required=self.files)
            each(self.path, read_csv(self.path), self._read_row)
        return {split: self._clips[split] for split in MODES.values() if split in self._clips}

    def _official(self, name: str) -> Path:
        return one_file(self.folder, *_here_or_inside(name), required=self.files)

    def _read_row(self, row: dict[str, str]) -> None:
        video, clip = id_field(row, "video_id"), id_field(row, "clip_id")
        split = MODES[one_of(field(row, "mode"), tuple(MODES))]
        name, score = f"{video}_{clip}", finite_text(field(row, "label"), "label")
        self._clips.setdefault(split, []).append(Clip(name, video, clip, text_field(row, "text"), score))

    def _read_csd(self) -> None:
        words_path = self._official(self.words_file)
        words, labels = read_csd(words_path), read_csd(self.path)
        for split, videos in _folds(self._official(self.folds_file)).items():
            for video in (video for video in videos if video in labels):
                if video not in words:
                    raise DataError(f"{words_path}: has no words of {video}, which {self.path.name} labels.")
                self._clips.setdefault(split, []).extend(self._segments(video, labels[video], words[video]))
        if not any(self._clips.values()):
            raise DataError(f"{self.path}: labels none of the videos in {self.folds_file}. Give files of one data set.")

    def _segments(self, video: str, labels: Segments, words: Segments) -> Iterator[Clip]:
        for number, (interval, features) in enumerate(zip(labels.intervals, labels.features, strict=True)):
            text = _words_in(words, interval)
            if text and interval[1] - interval[0] >= SHORTEST:
                name, clip = self._named(video, number, interval)
                yield Clip(name, video, clip, text, float(features[0]))

    def _named(self, video: str, number: int, interval: np.ndarray) -> tuple[str, str | None]:
        """The id of the segment of a video with an index, and the number in the names of its files."""
        return f"{video}_{number + 1}", str(number + 1)

    def read(self, split: str) -> list[Example]:
        """The clips of a split, in the order of the file."""
        return each(self.path, self._clips[split], self._example)

    def _example(self, own: Clip) -> Example:
        if not abs(own.score) <= STRONGEST:
            raise RecordError(f"label of {own.name} is {own.score:g}, not from {-STRONGEST} to {STRONGEST}.")
        source = f"{self.path.name}, {own.name}"
        found: dict[str, Medium | str] = {"text": own.text}
        if "video" in self.parts:
            found["video"] = self._video(own)
        if "audio" in self.parts:
            beside = self.folder / "Raw" / own.video / f"{_number(own)}.wav"
            archive = self.folder / "Raw/Audio/WAV_16000/Segmented" / f"{own.video}_{_number(own)}.wav"
            found["audio"] = Audio(beside if beside.exists() else archive)
        prompt = Document([found[part] for part in self.parts], name=source)  # type: ignore[misc]
        return Example(own.name, prompt, Value(own.score), (), own.video, source, self.name, self.wording)

    def _video(self, own: Clip) -> Medium:
        clip = _number(own)
        beside = (self.folder / "Raw" / own.video / f"{clip}.mp4").exists()
        archives = ("Raw/Video/Segmented", "Raw/Videos/Segmented/Combined", f"Raw/{own.video}")
        places = (f"Raw/{own.video}",) if beside else archives
        return video_in(self.folder, places, clip if beside else f"{own.video}_{clip}", ".mp4")


class MOSIText(MOSI):
    """The words alone."""

    name = "cmu-mosi-text"
    about = "how positive a speaker is, from the words"
    media = frozenset({"text"})
    files = MOSI.files.partition(";")[0]
    parts = ("text",)


class MOSIAudio(MOSI):
    """The voice alone."""

    name = "cmu-mosi-audio"
    about = "how positive a speaker is, from the voice"
    media = frozenset({"audio"})
    files = f"{MOSIText.files}; Raw/Audio/WAV_16000/Segmented/<video_id>_<clip_id>.wav or Raw/<video_id>/<clip_id>.wav"
    parts = ("audio",)
    wording = Wording("How positive is this voice, as a number from -3 to 3?")


class _MOSEI(MOSI):
    """The larger set. Its ``.csd`` file labels some clips of a video, in another order, and beside the sentiment six
    emotions, which are not read. The number of a clip is that of the line with its times in
    ``Raw/Transcript/Segmented/Combined/<video_id>.txt``; only clips need it. The id of the segment with the index i is
    ``<video_id>[i]``, as in CMU's tools, and with ``label.csv`` ``<video_id>_<clip_id>``."""

    labels_file = "CMU_MOSEI_Labels.csd"
    words_file = "CMU_MOSEI_TimestampedWords.csd"
    folds_file = "cmu_mosei_std_folds.py"

    def _named(self, video: str, number: int, interval: np.ndarray) -> tuple[str, str | None]:
        name = f"{video}[{number}]"
        if self.parts == ("text",):
            return name, None
        path = self.folder / "Raw/Transcript/Segmented/Combined" / f"{video}.txt"
        for line in read_text(path).splitlines():
            # The words may contain the separator; the id of a video does not.
            _, clip, *times = line.split("___")[:4]
            if [round(float(time), 4) for time in times] == [round(float(time), 4) for time in interval]:
                return name, clip
        raise DataError(f"{path}: no line has the times of {name}, {interval[0]:g} to {interval[1]:g}.")


class MOSEI(_MOSEI):
    """The video and the words."""

    name = "cmu-mosei"
    files = MOSI.files.replace("MOSI_Opinion", "MOSEI").replace("MOSI", "MOSEI").replace("mosi", "mosei")


class MOSEIText(_MOSEI):
    """The words alone."""

    name = "cmu-mosei-text"
    about, media, parts = MOSIText.about, MOSIText.media, MOSIText.parts
    files = MOSEI.files.partition(";")[0]


class MOSEIAudio(_MOSEI):
    """The voice alone."""

    name = "cmu-mosei-audio"
    about, media, parts = MOSIAudio.about, MOSIAudio.media, MOSIAudio.parts
    files = f"{MOSEIText.files};{MOSIAudio.files.partition(';')[2]}"
    wording = MOSIAudio.wording


def _here_or_inside(name: str) -> tuple[str, str]:
    return name, f"*/{name}"


def _number(own: Clip) -> str:
    assert own.clip is not None
    return own.clip


def _words_in(words: Segments, interval: np.ndarray) -> str:
    """The words that overlap with an interval, without silences (``sp``)."""
    overlap = np.minimum(words.intervals[:, 1], interval[1]) - np.maximum(words.intervals[:, 0], interval[0])
    found = (as_word(word) for word in words.features[overlap > SHORTEST, 0])
    return " ".join(word for word in found if word and word != "sp")


def as_word(word: bytes | str) -> str:
    """A word of a computational sequence as text."""
    return (word.decode("utf-8", "replace") if isinstance(word, bytes) else str(word)).strip()


def _folds(path: Path) -> dict[str, list[str]]:
    """The ids of the videos of each split, from the Python file of CMU's SDK, which is read and not run.

    Raises:
        DataError: it has no such lists, or two of them share a video.
    """
    try:
        assignments = {
            target.id: ast.literal_eval(node.value)
            for node in ast.parse(read_text(path)).body
            if isinstance(node, ast.Assign)
            for target in node.targets
            if isinstance(target, ast.Name) and target.id.startswith("standard_")
        }
        found = {split: list(map(str, assignments[f"standard_{name}_fold"])) for name, split in MODES.items()}
    except (SyntaxError, ValueError, TypeError, KeyError) as error:
        raise DataError(
            f"{path}: has no lists standard_train_fold, standard_valid_fold and standard_test_fold ({error}). Give the "
            "file of CMU's SDK."
        ) from None
    videos = [video for own in found.values() for video in own]
    if twice := sorted({video for video in videos if videos.count(video) > 1})[:1]:
        raise DataError(f"{path}: the video {twice[0]} is listed twice.")
    return found
