"""MSVD-QA and MSRVTT-QA (Xu et al. 2017): questions about short videos, made from their captions."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Mapping, Sequence
from typing import Any, ClassVar

from vislang.data.fields import id_field, text_field, whole_field
from vislang.data.problems import RecordError
from vislang.document import Document
from vislang.example import Answers, Example, Prediction
from vislang.metrics.by_kind import score_of
from vislang.metrics.figure import Figures, share
from vislang.tasks.benchmark import Benchmark, must_have_target
from vislang.tasks.files import each, keyed, read_json, read_text, video_in

ASKED = ("what", "who", "how", "when", "where")
"""First words of questions by which the authors report accuracy."""


FOLDERS = ("videos", "YouTubeClips", "TrainValVideo", "TestVideo")


class MSVDQA(Benchmark):
    """``train_qa.json``, ``val_qa.json`` and ``test_qa.json``. ``youtube_mapping.txt``, if it is there, names the file
    of each video.

    An answer is one word; it is right if it equals that word, after the clean-up of
    :func:`vislang.metrics.accuracy.normalize`.
    """

    name = "msvd-qa"
    about = "questions about short videos, answered in one word"
    kind = "answers"
    media = frozenset({"video", "text"})
    metrics = ("accuracy", *(f"accuracy_{word}" for word in ASKED))
    splits = ("train", "val", "test")
    patterns = (r"(train|val|test)_qa\.json",)
    files = "SPLIT_qa.json, youtube_mapping.txt, videos as videos/<name>.avi or YouTubeClips/<name>.avi"
    prefix: ClassVar[str] = "vid"
    ending: ClassVar[str] = ".avi"

    def _names(self) -> dict[str, str]:
        """The name of each video's file, by ``vid1`` and so on."""
        path = self.folder / "youtube_mapping.txt"
        if not path.exists():
            return {}

        def pair(line: str) -> tuple[str, str]:
            name, _, number = line.strip().rpartition(" ")
            if not name:
                raise RecordError(f"{line!r} is not the name of a video and its number.")
            return number, name

        return keyed(path, [line for line in read_text(path).splitlines() if line.strip()], pair)

    def read(self, split: str) -> list[Example]:
        """The questions of a split, in the official order."""
        path, names = self.split_files[split], self._names()

        def example(record: Mapping[str, Any]) -> Example:
            number, video = id_field(record, "id"), f"{self.prefix}{whole_field(record, 'video_id')}"
            if names and video not in names:
                raise RecordError(f"video {video} is not in youtube_mapping.txt.")
            source = f"{path.name}, {number}"
            medium = video_in(self.folder, FOLDERS, names.get(video, video), self.ending)
            prompt = Document([medium, text_field(record, "question")], name=source)
            target = Answers({text_field(record, "answer"): 1.0})
            return Example(number, prompt, target, (), video, source, self.name)

        return each(path, read_json(path), example)

    def score(self, examples: Sequence[Example], predictions: Sequence[Prediction]) -> Figures:
        """``accuracy``, and the same by the first word of the question."""
        right: dict[str, list[float]] = defaultdict(list)
        for example, prediction in zip(examples, predictions, strict=True):
            must_have_target(example)
            value = score_of(prediction.answer, example)
            right["accuracy"].append(value)
            word = example.text.partition(" ")[0].lower()
            if word in ASKED:
                right[f"accuracy_{word}"].append(value)
        return {name: share(sum(values), len(values)) for name, values in right.items()}


class MSRVTTQA(MSVDQA):
    """The same files about the videos of MSR-VTT."""

    name = "msrvtt-qa"
    files = "SPLIT_qa.json, videos as TrainValVideo/video<video_id>.mp4 and TestVideo/video<video_id>.mp4"
    prefix = "video"
    ending = ".mp4"
