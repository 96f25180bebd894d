"""``vislang search`` and ``vislang classify``: find images by a text or an image, and choose labels of images."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from rich.table import Table

from vislang.commands.ask import checked
from vislang.commands.options import given, optional_positional, optional_positionals, positional, repeated
from vislang.console import console, messages, reporting
from vislang.data.problems import DataError, Problem
from vislang.document import Image
from vislang.errors import UserError
from vislang.metrics.figure import SCHEMA


@dataclass(frozen=True)
class Search:
    """Print the images that match a text or an image best, the best first.

    Give an index that vislang index made, or a model and images.

    Attributes:
        source: folder of an index; or with images, folder or Hub id of a dual encoder or a ViLBERT
        text: the text to search for
        images: without an index: images, or any data sources that contain images
        image: an image to search for, instead of a text
        rerank: a model that ranks the first results again
        right: an image of the index that is right; repeat it for more
        wrong: an image of the index that is wrong; repeat it for more
        forget: delete earlier marks of this query
        exact: compare all images of the index, even if there are more than a million
        model: folder of the model of the index, if it was moved
        top: number of images to print
        device: where the model runs: auto, cpu, cuda or mps
        json: print one JSON object
    """

    source: str = positional()
    text: str | None = optional_positional()
    images: list[str] = optional_positionals()
    image: Path | None = None
    rerank: str | None = None
    right: list[str] = repeated("FILE")
    wrong: list[str] = repeated("FILE")
    forget: bool = False
    exact: bool = False
    model: str | None = None
    top: int = 10
    device: str = "auto"
    json: bool = False

    def run(self) -> int:
        """Print the images; returns 0.

        Raises:
            UserError: a query, an index or a model is missing or cannot be used.
        """
        if self.top < 1:
            raise UserError(f"--top is {self.top}; it must be at least 1.")
        if self.images:
            return self._in_files()
        return self._in_index()

    def _in_index(self) -> int:
        if (self.text is None) == (self.image is None):
            raise UserError("give a text or --image FILE, one of them. See vislang search --help.")
        from vislang.commands.search_index import search_index, show
        from vislang.search.query import Query

        if self.text is not None:
            query = Query(text=checked(self.text, "the search text"))
        else:
            assert self.image is not None
            query = Query(image=Image(self.image))
        folder = Path(self.source)
        if not folder.is_dir():
            raise UserError(
                f"{folder}: no such folder. Give an index that vislang index made, or a model, a text and images."
            )
        results = search_index(
            folder,
            query,
            self.top,
            self.model,
            self.rerank,
            self.right,
            self.wrong,
            self.forget,
            self.exact,
            self.device,
        )
        show(folder, query, results, self.json)
        return 0

    def _in_files(self) -> int:
        if ignored := given(self, ("image", "rerank", "right", "wrong", "forget", "exact", "model")):
            raise UserError(f"{ignored}: only used with an index. Make one with vislang index.")
        text = checked(self.text or "", "the search text")
        model, images = opened(self.source, self.images, self.device)
        names = list(images.values())
        scores = compared(model, self.source, list(images), [text])[:, 0]
        order = scores.argsort(descending=True)[: self.top].tolist()
        found = [{"image": names[n], "score": round(scores[n].item(), 4)} for n in order]
        if self.json:
            print(json.dumps({"schema": SCHEMA, "text": text, "images": found}))
            return 0
        table = Table(title=f'"{text}" among {len(images):,} images', title_justify="left")
        table.add_column("score", justify="right")
        table.add_column("image", overflow="fold")
        for row in found:
            table.add_row(f"{row['score']:.4f}", str(row["image"]))
        console.print(table)
        return 0


@dataclass(frozen=True)
class Classify:
    """Print the label that matches each image best, without training on the labels.

    Attributes:
        model: folder of a dual encoder or a ViLBERT, or a Hub id
        images: images, or any data sources that contain images
        labels: possible labels with commas between them
        template: text that a label is put into, such as "a photo of a {}"
        device: where the model runs: auto, cpu, cuda or mps
        json: print one JSON object per line
    """

    model: str = positional()
    images: list[str] = positional()
    labels: str = ""
    template: str = "{}"
    device: str = "auto"
    json: bool = False

    def run(self) -> int:
        """Print the labels; returns 0."""
        labels = [label.strip() for label in self.labels.split(",") if label.strip()]
        if len(set(labels)) < 2:
            raise UserError("--labels: give two or more labels with commas between them.")
        if self.template.count("{}") != 1:
            raise UserError(f"--template {self.template!r}: write {{}} once, in the position of the label.")
        model, images = opened(self.model, self.images, self.device)
        scores = compared(model, self.model, list(images), [self.template.replace("{}", label) for label in labels])
        best = scores.argmax(dim=-1).tolist()
        if self.json:
            for name, row, index in zip(images.values(), scores.tolist(), best, strict=True):
                ranked = {label: round(score, 4) for label, score in zip(labels, row, strict=True)}
                print(json.dumps({"schema": SCHEMA, "image": name, "label": labels[index], "scores": ranked}))
            return 0
        table = Table()
        table.add_column("label")
        table.add_column("score", justify="right")
        table.add_column("image", overflow="fold")
        for name, row, index in zip(images.values(), scores.tolist(), best, strict=True):
            table.add_row(labels[index], f"{row[index]:.4f}", name)
        console.print(table)
        return 0


def compared(model: Any, source: str, images: list[Image], texts: list[str]) -> Any:
    """(images, texts) similarities.

    Raises:
        UserError: they are not numbers.
    """
    from vislang.models.base import must_be_numbers

    scores = model.match_all(images, texts)
    must_be_numbers(scores, source)
    return scores


def opened(source: str, files: Sequence[str], device: str = "auto") -> tuple[Any, dict[Image, str]]:
    """A model that compares images with texts, and the images of several sources with their names.

    Raises:
        UserError: the model cannot compare images with texts.
        DataError: the sources contain no image.
    """
    from vislang.data.sources import load_source

    problems: list[Problem] = []
    images: dict[Image, str] = {}
    for file in files:
        for example in load_source(file, problems=problems, targets=False):
            for image in example.media:
                if isinstance(image, Image):
                    # An image inside a record has no name of its own.
                    images.setdefault(image, example.name if isinstance(image.source, bytes) else image.name)
    for problem in problems:
        messages.print(f"skipped: {problem}", markup=False)
    if not images:
        raise DataError(f"{', '.join(files)}: no images found.")
    from vislang.capabilities import Matches
    from vislang.document import Document
    from vislang.example import Example
    from vislang.models.loading import load
    from vislang.train.device import device_of

    model: Any = load(source, device_of(device))
    if not isinstance(model, Matches):
        raise UserError(
            f"{source}: a {type(model).__name__} cannot compare images with texts. Give a dual encoder or a ViLBERT."
        )
    with reporting("finding regions") as report:
        model.prepare([Example(name, Document([image], name=name)) for image, name in images.items()], report)  # type: ignore[attr-defined]
    return model, images
