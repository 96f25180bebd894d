"""LibriSpeech (Panayotov et al. 2015): read English speech and its transcripts."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np

from vislang.data.problems import DataError, RecordError
from vislang.document import Audio, Document
from vislang.example import Example, Prediction, Text
from vislang.metrics.figure import Figures
from vislang.metrics.items import Items
from vislang.metrics.sequences import transcripts, word_error_rates
from vislang.tasks.benchmark import Benchmark, must_have_target
from vislang.tasks.files import keyed, read_text


class LibriSpeech(Benchmark):
    """The folder ``LibriSpeech`` of the archives: ``SPLIT/<reader>/<chapter>/<id>.flac``, and in each chapter
    ``<reader>-<chapter>.trans.txt``. The id of a recording is that of its line."""

    name = "librispeech"
    about = "transcripts of read English speech"
    kind = "text"
    media = frozenset({"audio"})
    metrics = ("word_error_rate", "character_error_rate")
    splits = (
        *("train-clean-100", "train-clean-360", "train-other-500"),
        *("dev-clean", "dev-other", "test-clean", "test-other"),
    )
    files = "SPLIT/<reader>/<chapter>/<reader>-<chapter>.trans.txt and <id>.flac"

    def find_splits(self) -> dict[str, Path]:
        """The splits, which are folders."""
        if not self.folder.is_dir():
            raise DataError(f"{self.folder}: no such folder. Give the folder with the official files.")
        inside = self.folder / "LibriSpeech"
        root = inside if inside.is_dir() else self.folder
        self.split_files = {path.name: path for path in sorted(root.iterdir()) if any(path.glob("*/*/*.trans.txt"))}
        if not self.split_files:
            raise DataError(f"{self.folder}: contains no split. Required files: {self.files}.")
        return self.split_files

    def read(self, split: str) -> list[Example]:
        """The recordings of a split, by reader, chapter and number."""
        return [
            example
            for path in sorted(self.split_files[split].glob("*/*/*.trans.txt"))
            for example in self._chapter(split, path)
        ]

    def _chapter(self, split: str, path: Path) -> list[Example]:
        said = keyed(path, [line for line in read_text(path).splitlines() if line.strip()], _line)
        recorded = {file.stem for file in path.parent.glob("*.flac")}
        if extra := sorted(recorded - said.keys()):
            raise DataError(f"{path}: has no line for {extra[0]}, which is recorded. Download it again.")
        reader = path.name.partition("-")[0]
        return [
            Example(
                name,
                Document([Audio(path.parent / f"{name}.flac")], name=f"{split}, {name}"),
                Text((words,)),
                group=reader,
                source=f"{split}, {name}",
                task=self.name,
            )
            for name, words in said.items()
        ]

    def score(self, examples: Sequence[Example], predictions: Sequence[Prediction]) -> Figures:
        """See :func:`vislang.metrics.sequences.transcripts`."""
        return transcripts(*_both(examples, predictions))

    def score_each(self, examples: Sequence[Example], predictions: Sequence[Prediction]) -> Items:
        """The word error rate of each transcript; one without an error is right."""
        rates = word_error_rates(*_both(examples, predictions))
        return Items("word_error_rate", rates, np.equal(rates, 0))

    def read_official(self, path: Path, examples: Sequence[Example]) -> list[Prediction]:
        """Lines of id and transcript, the format of the references."""
        found = keyed(path, [line for line in read_text(path).splitlines() if line.strip()], _line)
        return [Prediction(name, words) for name, words in found.items()]

    def submission(self, examples: Sequence[Example], predictions: Sequence[Prediction]) -> tuple[str, str]:
        """The format of :meth:`read_official`, in capitals."""
        lines = [f"{p.id} {' '.join(str(p.answer or '').upper().split())}".rstrip() for p in predictions]
        return "librispeech.trans.txt", "\n".join(lines) + "\n"


def _line(line: str) -> tuple[str, str]:
    """The id and the words of a line."""
    name, _, words = line.strip().partition(" ")
    if len(name.split("-")) != 3:
        raise RecordError(f"{line[:60]!r} does not begin with an id such as 84-121123-0000.")
    return name, words.strip()


def _both(examples: Sequence[Example], predictions: Sequence[Prediction]) -> tuple[list[str], list[str]]:
    """What was predicted and what was said, in lower case with single spaces."""
    truth = []
    for example in examples:
        must_have_target(example)
        assert isinstance(example.target, Text)
        truth.append(example.target.references[0])
    return [" ".join(str(p.answer or "").lower().split()) for p in predictions], truth
