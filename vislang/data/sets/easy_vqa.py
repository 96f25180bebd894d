"""easy-VQA: 48,248 questions about one coloured shape an image, with an official split.

The data ship in the PyPI package ``easy-vqa`` (MIT licence): 4,000 + 1,000 images of 64 x 64 pixels,
38,575 + 9,673 questions of 107 different wordings, 13 answers.
"""

from __future__ import annotations

import importlib.util
import json
from pathlib import Path

from vislang.data.problems import DataError
from vislang.document import Document, Image
from vislang.example import Answers, Example

NAME = "easy-vqa"


def is_here() -> bool:
    """Whether the package is installed."""
    return importlib.util.find_spec("easy_vqa") is not None


def easy_vqa(split: str) -> list[Example]:
    """The questions of a split, ``train`` or ``test``, in the official order.

    Raises:
        DataError: the package is not installed.
    """
    # Found, not imported: the package's own reader offers no more than this.
    spec = importlib.util.find_spec("easy_vqa")
    if spec is None or not spec.submodule_search_locations:
        raise DataError(f"{NAME}: not installed. Run: pip install easy-vqa==1.0")
    folder = Path(spec.submodule_search_locations[0]) / "data" / split
    records = json.loads((folder / "questions.json").read_text(encoding="utf-8"))
    images = {number: Image(folder / "images" / f"{number}.png") for _, _, number in records}
    found = []
    for count, (question, answer, number) in enumerate(records, start=1):
        name = f"{NAME}/{split}:{count}"
        found.append(Example(name, Document([images[number], question], name=name), Answers({answer: 1.0})))
    return found
