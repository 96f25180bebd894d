"""Composed sets as tasks: their generators write the format of a benchmark, so they are read and scored as it is."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, ClassVar

from vislang.data.fields import field, id_field, one_of, text_field
from vislang.data.sets import moods, reasons, walks
from vislang.document import Document, Image
from vislang.example import Example, Label, Prediction
from vislang.metrics.figure import Figures
from vislang.metrics.navigation import navigation
from vislang.tasks.benchmark import Benchmark
from vislang.tasks.benchmarks.mvsa import MVSA
from vislang.tasks.benchmarks.r2r import R2R
from vislang.tasks.benchmarks.vcr import VCR
from vislang.tasks.files import each, image_in, read_lines, splits_of


class Composed(Benchmark):
    """A composed set.

    Attributes:
        drawn: the folder of its files, which are drawn first if they are not in the cache.
    """

    prefer: ClassVar[tuple[str, ...]] = ("test",)
    drawn: ClassVar[Callable[[], Path]]

    @classmethod
    def opened(cls) -> Composed:
        """The task.

        Raises:
            DataError: the pictures that it is made of were not fetched.
            UserError: it cannot be written.
        """
        return cls(cls.drawn())


class SceneReasons(Composed, VCR):
    """Questions about composed scenes; see :mod:`vislang.data.sets.reasons`."""

    name = reasons.NAME
    about = "questions about scenes of drawings: the right answer of four, and the right reason of four"
    drawn = staticmethod(reasons.folder)

    def _image(
        self, record: Mapping[str, Any], picture: str, names: Sequence[str], texts: Sequence[Sequence[Any]]
    ) -> Image:
        # All people are marked, not only those that a question names, so its questions share an image.
        return super()._image(record, picture, names, [[list(range(len(names)))]])


class MapWalks(Composed, R2R):
    """Instructions on composed maps; see :mod:`vislang.data.sets.walks`."""

    name = walks.NAME
    about = "instructions on maps of drawings: the path that they describe, of six"
    images = walks.STEPS + 1
    drawn = staticmethod(walks.folder)

    def guesses(self, support: Sequence[Example], examples: Sequence[Example]) -> dict[str, Figures]:
        """Random candidates: the mean of all."""
        rows = []
        for example in examples:
            candidates = [Prediction(example.id, index) for index in range(len(example.choices))]
            scores = self._paths([example] * len(candidates), candidates)
            rows.append({name: sum(own[name] for own in scores) / len(scores) for name in self.metrics})
        return {"chance": navigation(rows)}


class PictureMoods(Composed, MVSA):
    """Composed posts; see :mod:`vislang.data.sets.moods`. The labels and their figures are those of MVSA."""

    name = moods.NAME
    about = "words about things that are there or gone: positive, neutral or negative"
    splits = tuple(moods.POSTS)
    patterns = (r"(.+)\.jsonl",)
    files = "SPLIT.jsonl with id, image, text and label"
    drawn = staticmethod(moods.folder)

    def find_splits(self) -> tuple[str, ...]:
        """The splits with a file."""
        self.split_files = splits_of(self.folder, self.files, *self.patterns)
        return tuple(self.split_files)

    def read(self, split: str) -> list[Example]:
        """The posts of a split, in the order of the file."""
        path = self.split_files[split]

        def example(record: Mapping[str, Any]) -> Example:
            name, image = id_field(record, "id"), text_field(record, "image")
            source, label = f"{path.name}, {name}", one_of(field(record, "label"), self.labels)
            prompt = Document([image_in(self.folder, image), text_field(record, "text")], name=source)
            return Example(name, prompt, Label(label), (), image, source, self.name, self.wording)

        return each(path, read_lines(path), example)


COMPOSED: dict[str, type[Composed]] = {made.name: made for made in (SceneReasons, MapWalks, PictureMoods)}
"""The composed sets by name."""
