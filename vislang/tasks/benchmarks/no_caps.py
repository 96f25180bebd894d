"""NoCaps (Agrawal et al. 2019): captions of images with objects that MS COCO's captions do not mention."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from vislang.data.fields import field, id_field, one_of, text_field, whole_field
from vislang.data.problems import DataError, RecordError
from vislang.document import Document
from vislang.example import Example, Prediction, Text
from vislang.metrics.captions import COCO_METRICS
from vislang.metrics.figure import Figures
from vislang.tasks.captioned import Captioned
from vislang.tasks.files import each, image_in, keyed, listed, read_json

DOMAINS = ("in-domain", "near-domain", "out-domain")
"""Whether an image shows only COCO's objects, both them and others, or only others."""


class NoCaps(Captioned):
    """``nocaps_val_4500_captions.json`` and ``nocaps_test_image_info.json``, which has no captions. There is no
    training split: models learn from MS COCO."""

    name = "nocaps"
    about = "captions of photographs with objects that COCO's captions do not mention"
    metrics = (*COCO_METRICS, *(f"cider_d_{domain.replace('-', '_')}" for domain in DOMAINS))
    splits = ("val", "test")
    patterns = (r"nocaps_(val|test)_.*\.json",)
    files = "nocaps_val_4500_captions.json, nocaps_test_image_info.json, images as val/<file_name> and test/<file_name>"

    def __init__(self, folder: Path):
        super().__init__(folder)
        self._domains: dict[str, str] = {}

    def read(self, split: str) -> list[Example]:
        """The images of a split, in the official order."""
        path = self.split_files[split]
        content = read_json(path)
        images = listed(path, content, "images")
        captions: dict[str, list[str]] = {}
        if "annotations" in content or split == "val":
            noted = keyed(
                path,
                listed(path, content, "annotations"),
                lambda r: (id_field(r, "id"), (id_field(r, "image_id"), text_field(r, "caption"))),
            )
            for picture, caption in noted.values():
                captions.setdefault(picture, []).append(caption)

        def example(record: Mapping[str, Any]) -> Example:
            number, file = str(whole_field(record, "id")), text_field(record, "file_name")
            source = f"{path.name}, {number}"
            target = None
            if captions:
                if number not in captions:
                    raise RecordError(f"image {number} has no captions in the annotations.")
                target = Text(tuple(captions[number]))
                self._domains[number] = one_of(field(record, "domain"), DOMAINS)
            prompt = Document([image_in(self.folder, f"{split}/{file}", file)], name=source)
            return Example(number, prompt, target, (), file, source, self.name)

        examples = each(path, images, example)
        if extra := captions.keys() - {example.id for example in examples}:
            named = ", ".join(sorted(extra)[:5])
            raise DataError(f"{path}: captions of {len(extra)} images that are not there: {named}.")
        return examples

    def score(self, examples: Sequence[Example], predictions: Sequence[Prediction]) -> Figures:
        """The figures of all images, and ``cider_d`` of each domain.

        The program of the challenge's server is not published. Here the images of a domain are scored as a set of
        their own, so that the weights of n-grams are counted among them.
        """
        figures = super().score(examples, predictions)
        for domain in DOMAINS:
            own = [n for n, example in enumerate(examples) if self._domains[example.id] == domain]
            # CIDEr-D of a single image is always 0.
            if len(own) > 1:
                found = super().score([examples[n] for n in own], [predictions[n] for n in own])
                figures[f"cider_d_{domain.replace('-', '_')}"] = found["cider_d"]
        return figures
