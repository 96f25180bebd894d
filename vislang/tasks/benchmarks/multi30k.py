"""Multi30k (Elliott et al. 2016, 2017; Barrault et al. 2018): English captions of Flickr30k, to be translated."""

from __future__ import annotations

import re
from collections.abc import Sequence
from pathlib import Path
from typing import ClassVar

from vislang.data.problems import DataError
from vislang.document import Document
from vislang.example import Example, Prediction, Text, Wording
from vislang.tasks.benchmark import Benchmark
from vislang.tasks.files import image_in, read_text
from vislang.tasks.translation import Translation


class Multi30k(Translation, Benchmark):
    """``data/task1`` of the authors' repository: ``raw/SPLIT.en.gz`` and ``raw/SPLIT.<language>.gz`` (packed or not),
    and ``image_splits/SPLIT.txt`` with the names of the images, line by line.

    The id of a sentence is its line, from 0. ``vislang eval`` also scores a model without the images, as its blind
    figures. Published figures are often of lower-case, tokenized text and other programs; they cannot be compared with
    those of sacreBLEU.

    Attributes:
        language: the target language, as in the names of the files.
    """

    media = frozenset({"image", "text"})
    splits = ("train", "val", "test_2016_flickr", "test_2017_flickr", "test_2017_mscoco", "test_2018_flickr")
    files = "raw/SPLIT.en.gz, raw/SPLIT.<language>.gz, image_splits/SPLIT.txt; images in images/ or flickr30k-images/"
    language: ClassVar[str]

    def find_splits(self) -> dict[str, Path]:
        """The splits with an English file."""
        if not self.folder.is_dir():
            raise DataError(f"{self.folder}: no such folder. Give the folder with the official files.")
        inside = self.folder / "data" / "task1"
        self.root = inside if inside.is_dir() else self.folder
        self.split_files = {}
        for path in sorted((self.root / "raw").glob("*.en*")):
            if match := re.fullmatch(r"(.+)\.en(?:\.gz)?", path.name):
                if match[1] in self.split_files:
                    raise DataError(f"{path}: the split {match[1]} is there twice, packed and unpacked. Remove one.")
                self.split_files[match[1]] = path
        if not self.split_files:
            raise DataError(f"{self.folder}: contains no split. Required files: {self.files}.")
        return self.split_files

    def read(self, split: str) -> list[Example]:
        """The sentences of a split, in the official order; without a file of translations, they have no target."""
        path = self.split_files[split]
        packed = path.with_name(f"{split}.{self.language}.gz")
        translated = next((file for file in (packed, packed.with_suffix("")) if file.exists()), None)
        if translated is None and not split.startswith("test"):
            raise DataError(f"{packed}: no such file. Give the translations of {path.name}.")
        english, names = _lines(path), self.root / "image_splits" / f"{split}.txt"
        # Those of MS COCO are followed by the number of a caption.
        images = [name.partition("#")[0].strip() for name in _lines(names)]
        references = None if translated is None else _lines(translated)
        for file, lines in ((names, images), (translated, references)):
            if lines is not None and len(lines) != len(english):
                raise DataError(f"{file}: {len(lines):,} lines for the {len(english):,} of {path.name}.")
        return [
            Example(
                str(number),
                Document(
                    [image_in(self.folder, images[number], f"flickr30k-images/{images[number]}"), text],
                    name=f"{path.name}, {number}",
                ),
                None if references is None else Text((references[number],)),
                group=images[number],
                source=f"{path.name}, {number}",
                task=self.name,
                wording=self.wording,
            )
            for number, text in enumerate(english)
        ]

    def read_official(self, path: Path, examples: Sequence[Example]) -> list[Prediction]:
        """A translation a line, in the order of the sentences."""
        lines = _lines(path)
        if len(lines) != len(examples):
            raise DataError(f"{path}: {len(lines):,} lines for {len(examples):,} sentences.")
        return [Prediction(example.id, line) for example, line in zip(examples, lines, strict=True)]

    def submission(self, examples: Sequence[Example], predictions: Sequence[Prediction]) -> tuple[str, str]:
        """The format of :meth:`read_official`."""
        lines = [" ".join(str(p.answer or "").split()) for p in predictions]
        return f"{self.name}.txt", "\n".join(lines) + "\n"


class Multi30kGerman(Multi30k):
    """English to German."""

    name = "multi30k-de"
    about = "translate the caption of a photograph into German"
    language = "de"
    wording = Wording("Translate into German: {text}")


class Multi30kFrench(Multi30k):
    """English to French."""

    name = "multi30k-fr"
    about = "translate the caption of a photograph into French"
    language = "fr"
    wording = Wording("Translate into French: {text}")


class Multi30kCzech(Multi30k):
    """English to Czech."""

    name = "multi30k-cs"
    about = "translate the caption of a photograph into Czech"
    language = "cs"
    wording = Wording("Translate into Czech: {text}")


def _lines(path: Path) -> list[str]:
    """The lines of a file. Other characters that look like the end of a line are part of a sentence."""
    return [line.strip() for line in read_text(path).removesuffix("\n").split("\n")]
