"""SNLI-VE (Xie et al. 2019): does a sentence follow from an image, contradict it, or neither?"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from vislang.data.fields import field, id_field, one_of, text_field
from vislang.document import Document
from vislang.example import Example, Label, Prediction, Wording
from vislang.tasks.benchmark import Benchmark
from vislang.tasks.files import each, image_in, read_lines, written_lines


class SNLIVE(Benchmark):
    """``snli_ve_train.jsonl``, ``snli_ve_dev.jsonl``, ``snli_ve_test.jsonl``, and the images of Flickr30k."""

    name = "snli-ve"
    about = "sentences that follow from a photograph, contradict it, or neither"
    kind = "label"
    media = frozenset({"image", "text"})
    metrics = ("accuracy",)
    splits = ("train", "dev", "test")
    labels = ("entailment", "neutral", "contradiction")
    patterns = (r"snli_ve_(.+)\.jsonl", r"(.+)\.jsonl")
    files = "snli_ve_SPLIT.jsonl, images as <Flickr30K_ID>.jpg"
    wording = Wording(
        '"{text}" Does this follow from the image?',
        {"entailment": "yes", "neutral": "maybe", "contradiction": "no"},
        {"entailment": "{text}", "neutral": "perhaps {text}", "contradiction": "no: {text}"},
    )

    def read(self, split: str) -> list[Example]:
        """The sentences of a split, in the official order."""
        path = self.split_files[split]

        def example(record: Mapping[str, Any]) -> Example:
            # The released files spell the first key in several ways.
            key = next((key for key in ("Flickr30K_ID", "Flikr30kID") if key in record), "Flickr30kID")
            picture, name = id_field(record, key), id_field(record, "pairID")
            source = f"{path.name}, {name}"
            image = image_in(self.folder, f"{picture.removesuffix('.jpg')}.jpg")
            prompt = Document([image, text_field(record, "sentence2")], name=source)
            target = Label(one_of(field(record, "gold_label"), self.labels))
            return Example(name, prompt, target, (), picture, source, self.name, self.wording)

        return each(path, read_lines(path), example)

    def read_official(self, path: Path, examples: Sequence[Example]) -> list[Prediction]:
        """A record a line: ``{"pairID": ..., "prediction": "entailment"}``."""

        def predict(record: Mapping[str, Any]) -> Prediction:
            return Prediction(id_field(record, "pairID"), one_of(field(record, "prediction"), self.labels))

        return each(path, read_lines(path), predict)

    def submission(self, examples: Sequence[Example], predictions: Sequence[Prediction]) -> tuple[str, str]:
        """The format of :meth:`read_official`."""
        return "snli_ve_predictions.jsonl", written_lines({"pairID": p.id, "prediction": p.answer} for p in predictions)
