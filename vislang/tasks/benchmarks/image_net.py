"""ImageNet (Russakovsky et al. 2015), and other sets of images in a folder for each class."""

from __future__ import annotations

import os
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import ClassVar

from vislang.data.fields import field, text_field
from vislang.data.problems import DataError, RecordError
from vislang.document import Document, Image
from vislang.example import Example, Label, Prediction, Wording
from vislang.metrics import by_kind
from vislang.metrics.figure import Figures, share
from vislang.tasks.benchmark import Benchmark
from vislang.tasks.files import each, image_in, keyed, read_csv, read_text

IMAGES = (".jpeg", ".jpg", ".png", ".webp", ".gif", ".bmp", ".tif", ".tiff")
"""Endings of images in the folder of a class, in any case."""

TOP = 5
"""The number of classes of which one may be right, for the second figure."""

CLASSES = "LOC_synset_mapping.txt"


class ImageNet(Benchmark):
    """Three layouts, by what is in the folder:

    * ``train/<class>/<image>`` and ``val/<class>/<image>``: any names of splits and classes;
    * ``LOC_train_solution.csv`` and ``LOC_val_solution.csv`` of Kaggle's edition, with ``ImageId`` and
      ``PredictionString``, whose first word is the class; images are in ``ILSVRC/Data/CLS-LOC``;
    * ``SPLIT.csv`` with ``filename`` and ``label``, as of mini-ImageNet; images are in ``images``.

    If ``LOC_synset_mapping.txt`` is there, the first name of each class is used in prompts and captions. The id of an
    image is its path below the split's folder, its ``ImageId``, or its ``filename``.
    """

    name = "imagenet"
    about = "photographs of objects, of a thousand classes"
    kind = "label"
    media = frozenset({"image"})
    metrics = ("accuracy", "accuracy_top_5")
    splits: tuple[str, ...] = ("train", "val")
    files = (
        "train/<class>/, val/<class>/; or LOC_train_solution.csv, LOC_val_solution.csv and ILSVRC/Data/CLS-LOC/; or "
        "SPLIT.csv with filename and label, and images/; also LOC_synset_mapping.txt with the names of the classes"
    )
    question: ClassVar[str] = "What is in this image?"

    def __init__(self, folder: Path):
        super().__init__(folder)
        names = self._names()
        classes = sorted({label for split in self.splits for label in self._classes(split)})
        if names and (unknown := [label for label in classes if label not in names]):
            raise DataError(f"{folder / CLASSES}: has no name for the class {unknown[0]}.")
        self.labels = tuple(classes)
        words = {label: names[label] for label in classes} if names else {}
        captions = {label: f"a photo of {words.get(label, label)}" for label in classes}
        self.wording = Wording(self.question, words, captions)  # type: ignore[misc]  # it depends on the folder

    def find_splits(self) -> dict[str, Path]:
        """The splits: files of labels, or folders of classes."""
        if not self.folder.is_dir():
            raise DataError(f"{self.folder}: no such folder. Give the folder with the official files.")
        kaggle = {name: self.folder / f"LOC_{name}_solution.csv" for name in ("train", "val")}
        found = {name: path for name, path in kaggle.items() if path.is_file()}
        found = found or {path.stem: path for path in sorted(self.folder.glob("*.csv"))}
        found = found or {path.name: path for path in sorted(self.folder.iterdir()) if any(_folders(path))}
        if not found:
            raise DataError(f"{self.folder}: contains no split. Required files: {self.files}.")
        self.split_files = found
        self._labelled: dict[str, list[tuple[str, str]]] = {}
        return found

    def _names(self) -> dict[str, str]:
        """The first name of each class; empty without the file."""
        path = self.folder / CLASSES
        if not path.exists():
            return {}

        def named(line: str) -> tuple[str, str]:
            label, _, names = line.strip().partition(" ")
            if not names.strip():
                raise RecordError(f"{line!r} is not a class and its names.")
            return label, names.partition(",")[0].strip()

        return keyed(path, [line for line in read_text(path).splitlines() if line.strip()], named)

    def _classes(self, split: str) -> set[str]:
        """The classes of a split."""
        path = self.split_files[split]
        return {each.name for each in _folders(path)} if path.is_dir() else {label for _, label in self._rows(split)}

    def _rows(self, split: str) -> list[tuple[str, str]]:
        """The ids and classes of a file of labels."""
        if split not in self._labelled:
            path = self.split_files[split]
            self._labelled[split] = each(path, read_csv(path), _labelled)
        return self._labelled[split]

    def read(self, split: str) -> list[Example]:
        """The images of a split, in the order of the file, or by class and name."""
        path = self.split_files[split]
        if path.is_dir():
            found = [
                (f"{label.name}/{image.name}", label.name, Image(image.path))
                for label in sorted(_folders(path), key=lambda entry: entry.name)
                for image in sorted(os.scandir(label.path), key=lambda entry: entry.name)
                if os.path.splitext(image.name)[1].lower() in IMAGES
            ]
        else:
            found = [(name, label, self._image(split, name, label)) for name, label in self._rows(split)]
        return [
            Example(
                name,
                Document([image], name=f"{path.name}, {name}"),
                Label(label),
                source=f"{path.name}, {name}",
                task=self.name,
                wording=self.wording,
            )
            for name, label, image in found
        ]

    def _image(self, split: str, name: str, label: str) -> Image:
        """The image of a row of a file of labels."""
        if self.split_files[split].name.startswith("LOC_"):
            place = f"{label}/{name}" if split == "train" else name
            return image_in(self.folder, f"ILSVRC/Data/CLS-LOC/{split}/{place}.JPEG", f"{split}/{place}.JPEG")
        return image_in(self.folder, name)

    def score(self, examples: Sequence[Example], predictions: Sequence[Prediction]) -> Figures:
        """``accuracy``, and ``accuracy_top_5`` if every prediction has scores of more than five classes."""
        figures = by_kind.score(examples, predictions)
        if all(len(prediction.scores) > TOP for prediction in predictions):
            hits = sum(
                isinstance(example.target, Label) and example.target.name in _best(prediction)
                for example, prediction in zip(examples, predictions, strict=True)
            )
            figures["accuracy_top_5"] = share(hits, len(examples))
        return figures


def _folders(path: Path) -> Iterator[os.DirEntry[str]]:
    """The folders in a folder, if it is one."""
    return (entry for entry in os.scandir(path) if entry.is_dir()) if path.is_dir() else iter(())


def _labelled(row: dict[str, str]) -> tuple[str, str]:
    """The id and the class of a row."""
    kaggle = "ImageId" in row
    name = text_field(row, "ImageId" if kaggle else "filename").strip()
    words = str(field(row, "PredictionString" if kaggle else "label")).split()
    if not name or not words or (not kaggle and len(words) != 1):
        raise RecordError("has no image or no class.")
    return name, words[0]


def _best(prediction: Prediction) -> set[object]:
    """The best classes of a prediction."""
    order = sorted(range(len(prediction.scores)), key=lambda n: -prediction.scores[n])
    return {prediction.candidates[n] for n in order[:TOP]}
