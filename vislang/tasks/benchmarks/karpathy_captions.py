"""Captions of MS COCO (Chen et al. 2015) and Flickr30k (Young et al. 2014) in Karpathy's splits (2015)."""

from __future__ import annotations

from typing import ClassVar

from vislang.example import Example
from vislang.tasks.captioned import Captioned
from vislang.tasks.files import one_file
from vislang.tasks.retrieval import karpathy_splits


class COCOCaptions(Captioned):
    """``dataset_coco.json``; its split ``restval`` belongs to ``train``. The id of an image is its ``cocoid``."""

    name = "coco-captions"
    about = "captions of photographs of everyday scenes"
    splits: tuple[str, ...] = ("train", "val", "test")
    files = "dataset_coco.json, images by their filename, also in train2014/ and val2014/"
    split_file: ClassVar[str] = "dataset_coco.json"
    key: ClassVar[str] = "cocoid"

    def find_splits(self) -> dict[str, list[Example]]:
        """The splits, from the records of the one file."""
        one_file(self.folder, self.split_file, required=self.files)
        self._examples = karpathy_splits(self.folder, self.split_file, self.key, self.name)
        return self._examples

    def read(self, split: str) -> list[Example]:
        """The images of a split, in the official order."""
        return self._examples[split]


class Flickr30kCaptions(COCOCaptions):
    """``dataset_flickr30k.json``. The id of an image is its ``imgid``."""

    name = "flickr30k-captions"
    about = "captions of photographs of people"
    files = "dataset_flickr30k.json, images by their filename"
    split_file = "dataset_flickr30k.json"
    key = "imgid"
