"""The pages of docs/learn/: runs their Python blocks, which check each formula and draw the figures.

``python -m tests.learn_pages`` runs all pages and writes their figures beside them. In a page,

* a block that starts with ```` ```python ```` is run, after the blocks before it and with their names;
* a block that starts with ```` ```python vislang.module.function ```` is an excerpt of the source of that function,
  class or method, without its docstring. A line ``...`` stands for lines that are left out.
"""

from __future__ import annotations

import ast
import base64
import contextlib
import io
import re
import textwrap
import xml.etree.ElementTree as ET
from itertools import zip_longest
from pathlib import Path
from typing import NamedTuple

import numpy as np
from PIL import Image

ROOT = Path(__file__).parents[1]
FOLDER = ROOT / "docs" / "learn"
PAGES = sorted(path for path in FOLDER.glob("*.md") if path.name != "README.md")
BLOCK = re.compile(r"^```python(?: +([\w.]+))?\n(.*?)^```", re.MULTILINE | re.DOTALL)


class Block(NamedTuple):
    """A Python block: the number of its first line in the page, what it is an excerpt of ("" if it is run), its
    text."""

    line: int
    source: str
    text: str


def python_blocks(page: Path) -> list[Block]:
    """The Python blocks of a page."""
    text = page.read_text(encoding="utf-8")
    return [Block(text.count("\n", 0, found.start(2)) + 1, found[1] or "", found[2]) for found in BLOCK.finditer(text)]


def run(page: Path, folder: Path) -> None:
    """Run the blocks of a page in order, with one namespace, in a folder that gets the figures."""
    names: dict[str, object] = {"__name__": page.stem}
    with contextlib.chdir(folder):
        for block in python_blocks(page):
            if not block.source:
                # Lines of a traceback are those of the page.
                exec(compile("\n" * (block.line - 1) + block.text, str(page), "exec"), names)


def lines_of(name: str) -> list[str]:
    """The source lines of a function, class or method, by its dotted name, without docstring."""
    parts = name.split(".")
    count = next(n for n in range(len(parts), 0, -1) if ROOT.joinpath(*parts[:n]).with_suffix(".py").is_file())
    text = ROOT.joinpath(*parts[:count]).with_suffix(".py").read_text(encoding="utf-8")
    node: ast.AST = ast.parse(text)
    for part in parts[count:]:
        node = next(child for child in ast.iter_child_nodes(node) if getattr(child, "name", None) == part)
    assert isinstance(node, ast.FunctionDef | ast.ClassDef), f"{name}: not a function, class or method"
    lines = text.splitlines()
    kept = lines[node.lineno - 1 : node.end_lineno]
    if ast.get_docstring(node) is not None:
        docstring = node.body[0]
        del kept[docstring.lineno - node.lineno : (docstring.end_lineno or 0) - node.lineno + 1]
    return textwrap.dedent("\n".join(kept)).splitlines()


def not_in_source(block: Block) -> str:
    """The first part of an excerpt that is not in the source; empty if all of it is there, in order."""
    source = lines_of(block.source)
    start = 0
    for part in re.split(r"^ *\.\.\.\n", block.text, flags=re.MULTILINE):
        wanted = textwrap.dedent(part).splitlines()
        ends = range(start + len(wanted), len(source) + 1)
        end = next((n for n in ends if _dedented(source[n - len(wanted) : n]) == wanted), None)
        if end is None:
            return part
        start = end
    return ""


def _dedented(lines: list[str]) -> list[str]:
    return textwrap.dedent("\n".join(lines)).splitlines()


class Tolerance(NamedTuple):
    """How far a figure may be from the committed one: positions in points, colours in levels of 255, and the share of
    an image's pixels whose colours may be further off."""

    points: float
    levels: float
    pixels: float


DRAWN = Tolerance(0.5, 12, 0.002)
"""The rounding of another processor or font library."""

TRAINED = Tolerance(6, 40, 0.02)
"""The same after a training, in which rounding adds up; an axis has a length of 150 to 300 points."""

NUMBER = re.compile(r"-?\d+(?:\.\d+)?(?:e-?\d+)?")
COLOUR = re.compile(r"#([0-9a-f]{2})([0-9a-f]{2})([0-9a-f]{2})\b")
NAME = re.compile(r"\b[A-Za-z_]*[0-9a-f]{10}\b|\b[a-z_]+\d*_\d+\b")
"""Names of parts of a drawing; matplotlib derives some from coordinates."""


def changed(drawn: str, kept: str, tolerance: Tolerance = DRAWN) -> str:
    """The first thing in which two SVG figures differ; empty if nothing does."""
    for one, other in zip_longest(ET.fromstring(drawn).iter(), ET.fromstring(kept).iter()):
        if one is None or other is None or one.tag != other.tag or set(one.attrib) != set(other.attrib):
            return "the figures have different parts"
        if (one.text or "").strip() != (other.text or "").strip():
            return f"the text {one.text!r} was {other.text!r}"
        for name, value in one.attrib.items():
            if not _alike(value, other.attrib[name], tolerance):
                return f"{one.tag.rpartition('}')[2]}: {name} {value[:80]!r} was {other.attrib[name][:80]!r}"
    return ""


def _alike(value: str, other: str, tolerance: Tolerance) -> bool:
    if value.startswith("data:image"):
        one, two = (np.asarray(_image(text), dtype=float) for text in (value, other))
        if one.shape != two.shape:
            return False
        return float((np.abs(one - two) > tolerance.levels).any(axis=-1).mean()) <= tolerance.pixels
    levels = [[int(part, 16) for found in COLOUR.findall(text) for part in found] for text in (value, other)]
    value, other = (NAME.sub("", COLOUR.sub("", text)) for text in (value, other))
    numbers = [[float(found) for found in NUMBER.findall(text)] for text in (value, other)]
    return (
        NUMBER.sub("", value) == NUMBER.sub("", other)
        and _near(levels, tolerance.levels)
        and _near(numbers, tolerance.points)
    )


def _near(values: list[list[float]], tolerance: float) -> bool:
    one, two = values
    return len(one) == len(two) and all(abs(a - b) <= tolerance for a, b in zip(one, two, strict=True))


def _image(data_url: str) -> Image.Image:
    return Image.open(io.BytesIO(base64.b64decode(data_url.partition(",")[2]))).convert("RGBA")


if __name__ == "__main__":
    for one in PAGES:
        run(one, FOLDER)
