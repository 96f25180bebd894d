"""NLVR2 (Suhr et al. 2019): is a sentence true of two images?"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from vislang.data.fields import one_of, text_field
from vislang.data.problems import RecordError
from vislang.document import Document
from vislang.example import Example, Label, Prediction, Wording
from vislang.metrics.by_kind import score_of
from vislang.metrics.figure import Figures, share
from vislang.tasks.benchmark import Benchmark, must_have_target
from vislang.tasks.files import each, image_in, read_lines, read_rows, written_csv


class NLVR2(Benchmark):
    """``train.json``, ``dev.json``, ``test1.json``: one record per line; images by the identifier without its last
    part."""

    name = "nlvr2"
    about = "sentences that are true of two photographs, or not"
    kind = "label"
    media = frozenset({"image", "several images", "text"})
    images = 2
    metrics = ("accuracy", "consistency")
    splits = ("train", "dev", "test1")
    labels = ("True", "False")
    patterns = (r"(.+)\.json", r"(.+)\.jsonl")
    files = "SPLIT.json (one record per line), images as <identifier without its last part>-img0.png and -img1.png"
    wording = Wording(
        'Is it true of the two images that "{text}"?',
        {"True": "yes", "False": "no"},
        {"True": "{text}", "False": "not true: {text}"},
    )

    def read(self, split: str) -> list[Example]:
        """The sentences of a split, in the official order; a hidden test split has no labels."""
        path = self.split_files[split]

        def example(record: Mapping[str, Any]) -> Example:
            identifier = text_field(record, "identifier")
            if len(identifier.split("-")) != 4:
                raise RecordError(f"identifier {identifier!r} does not have four parts, such as dev-850-0-1.")
            pair = identifier.rpartition("-")[0]
            images = [image_in(self.folder, f"{pair}-img{side}.png") for side in (0, 1)]
            source = f"{path.name}, {identifier}"
            prompt = Document([*images, text_field(record, "sentence")], name=source)
            # The authors' program ignores the case of labels.
            target = None
            if "label" in record:
                target = Label(one_of(text_field(record, "label").capitalize(), self.labels))
            return Example(identifier, prompt, target, (), pair, source, self.name, self.wording)

        return each(path, read_lines(path), example)

    def together(self, example: Example) -> str:
        """The sentence, which occurs with several pairs of images."""
        split, group, _, sentence = example.id.split("-")
        return f"{split}-{group}-{sentence}"

    def score(self, examples: Sequence[Example], predictions: Sequence[Prediction]) -> Figures:
        """``accuracy``; and ``consistency``, the share of sentences that are judged correctly with all their pairs."""
        sentences: dict[str, list[bool]] = defaultdict(list)
        for example, prediction in zip(examples, predictions, strict=True):
            must_have_target(example)
            sentences[self.together(example)].append(bool(score_of(prediction.answer, example)))
        return {
            "accuracy": share(sum(map(sum, sentences.values())), len(examples)),
            "consistency": share(sum(map(all, sentences.values())), len(sentences)),
        }

    def read_official(self, path: Path, examples: Sequence[Example]) -> list[Prediction]:
        """Lines of ``identifier,True`` or ``identifier,False``."""

        def predict(row: list[str]) -> Prediction:
            if len(row) != 2:
                raise RecordError(f"{len(row)} cells; a line is identifier,True or identifier,False.")
            return Prediction(row[0].strip(), one_of(row[1].strip().capitalize(), self.labels))

        return each(path, read_rows(path), predict)

    def submission(self, examples: Sequence[Example], predictions: Sequence[Prediction]) -> tuple[str, str]:
        """The format of :meth:`read_official`."""
        return "nlvr2_predictions.csv", written_csv((p.id, p.answer) for p in predictions)
