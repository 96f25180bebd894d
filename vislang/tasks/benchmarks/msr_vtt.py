"""MSR-VTT (Xu et al. 2016): twenty captions for each of ten thousand short videos."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from vislang.data.fields import field, id_field, one_of, text_field
from vislang.data.problems import DataError, RecordError
from vislang.document import Document
from vislang.example import Example, Prediction, Text
from vislang.tasks.captioned import Captioned
from vislang.tasks.files import each, listed, read_json, video_in

SPLITS = {"train": "train", "validate": "val", "test": "test"}
"""The names of splits in the files, and here."""


class MSRVTT(Captioned):
    """``train_val_videodatainfo.json`` and ``test_videodatainfo.json``, or ``MSRVTT_data.json`` with both."""

    name = "msrvtt-captions"
    about = "captions of short videos"
    media = frozenset({"video"})
    splits = ("train", "val", "test")
    files = (
        "train_val_videodatainfo.json, test_videodatainfo.json, videos as TrainValVideo/<video_id>.mp4 and "
        "TestVideo/<video_id>.mp4"
    )

    def find_splits(self) -> dict[str, list[Example]]:
        """The splits, from the records of the files."""
        if not self.folder.is_dir():
            raise DataError(f"{self.folder}: no such folder. Give the folder with the official files.")
        found = sorted([*self.folder.glob("*videodatainfo*.json"), *self.folder.glob("MSRVTT_data.json")])
        if not found:
            raise DataError(f"{self.folder}: contains no split. Required files: {self.files}.")
        self._examples: dict[str, list[Example]] = {}
        for path in found:
            for split, example in self._read(path):
                self._examples.setdefault(split, []).append(example)
        return {split: self._examples[split] for split in self.splits if split in self._examples}

    def _read(self, path: Path) -> list[tuple[str, Example]]:
        """The videos of a file, with their splits."""
        content = read_json(path)
        captions: dict[str, list[str]] = {}

        def caption(record: Mapping[str, Any]) -> None:
            captions.setdefault(id_field(record, "video_id"), []).append(text_field(record, "caption"))

        each(path, listed(path, content, "sentences"), caption)

        def video(record: Mapping[str, Any]) -> tuple[str, Example]:
            name = id_field(record, "video_id")
            if name not in captions:
                raise RecordError(f"video {name} has no sentences.")
            source = f"{path.name}, {name}"
            medium = video_in(self.folder, ("TrainValVideo", "TestVideo", "videos", "videos/all"), name, ".mp4")
            prompt = Document([medium], name=source)
            example = Example(name, prompt, Text(tuple(captions[name])), (), name, source, self.name)
            return SPLITS[one_of(field(record, "split"), tuple(SPLITS))], example

        made = each(path, listed(path, content, "videos"), video)
        if extra := captions.keys() - {example.id for _, example in made}:
            named = ", ".join(sorted(extra)[:5])
            raise DataError(f"{path}: sentences of {len(extra)} videos that are not there: {named}.")
        return made

    def read(self, split: str) -> list[Example]:
        """The videos of a split, in the official order."""
        return self._examples[split]

    def read_official(self, path: Path, examples: Sequence[Example]) -> list[Prediction]:
        """``{"result": [{"video_id": ..., "caption": ...}, ...], ...}``, the challenge's format."""

        def predict(record: Mapping[str, Any]) -> Prediction:
            return Prediction(id_field(record, "video_id"), text_field(record, "caption"))

        return each(path, listed(path, read_json(path), "result"), predict)

    def submission(self, examples: Sequence[Example], predictions: Sequence[Prediction]) -> tuple[str, str]:
        """The format of :meth:`read_official`."""
        records = [{"video_id": p.id, "caption": "" if p.answer is None else str(p.answer)} for p in predictions]
        content = {"version": "VERSION 1.0", "result": records, "external_data": {"used": "false", "details": ""}}
        return "msrvtt_captions_results.json", json.dumps(content)
