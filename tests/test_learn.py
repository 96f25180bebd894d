"""docs/learn/: every block runs, every excerpt is in the source, and every figure is what the blocks draw."""

from __future__ import annotations

import re
import xml.etree.ElementTree as ET
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from tests.learn_pages import DRAWN, FOLDER, PAGES, ROOT, TRAINED, Block, changed, not_in_source, python_blocks, run
from vislang import figures

FIGURES = sorted(FOLDER.glob("*.svg"))
FROM_TRAINING = {"flamingo-gates.svg", "flamingo-attention.svg"}
LARGEST = 60_000
"""Bytes of a figure."""


def name_of(path: Path) -> str:
    return path.name


@pytest.mark.parametrize("page", PAGES, ids=name_of)
def test_the_blocks_of_a_page_run_and_draw_its_figures(page, tmp_path):
    run(page, tmp_path)
    drawn = {path.name: path.read_text(encoding="utf-8") for path in tmp_path.glob("*.svg")}
    assert set(drawn) == {path.name for path in FIGURES if path.name.startswith(f"{page.stem}-")}
    text = page.read_text(encoding="utf-8")
    for name, svg in drawn.items():
        assert f"]({name})" in text
        tolerance = TRAINED if name in FROM_TRAINING else DRAWN
        found = changed(svg, (FOLDER / name).read_text(encoding="utf-8"), tolerance)
        assert not found, f"{name}: {found}. Run python -m tests.learn_pages"


@pytest.mark.parametrize("page", PAGES, ids=name_of)
def test_code_is_read_without_scrolling(page):
    assert max(len(line) for block in python_blocks(page) for line in block.text.splitlines()) <= 97


def test_the_pages_are_three():
    assert [page.stem for page in PAGES] == ["data2vec", "flamingo", "vilbert"]
    assert len(FIGURES) == 9


@pytest.mark.parametrize("page", PAGES, ids=name_of)
def test_excerpts_are_lines_of_the_source(page):
    excerpts = [block for block in python_blocks(page) if block.source]
    assert len(excerpts) >= 4
    for excerpt in excerpts:
        missing = not_in_source(excerpt)
        assert not missing, f"{page.name}:{excerpt.line}: not in {excerpt.source}:\n{missing}"


def test_an_excerpt_that_is_not_in_the_source_is_found():
    def missing(text: str) -> str:
        return not_in_source(Block(1, "vislang.nn.averaging.annealed_decay", text))

    last = "    return end - (end - start) * (1 - update / anneal_steps)\n"
    assert missing("if update >= anneal_steps:\n    return end\n") == ""
    assert missing(f"    if update >= anneal_steps:\n...\n{last}") == ""
    assert missing("    if update > anneal_steps:\n        return end\n") != ""
    # Lines in another order, and lines that are left out without a mark.
    assert missing(f"{last}...\n    return end\n") != ""
    assert missing(f"    if update >= anneal_steps:\n{last}") != ""


def masked_picture(masked_patches: int, title: str = "") -> str:
    figure, (axes,) = figures.panels(1)
    mask = np.arange(196).reshape(14, 14) < masked_patches
    figures.draw_picture(axes, figures.masked(Image.new("RGB", (56, 56), "white"), mask), title)
    return figures.svg(figure)


def curve(end: float) -> str:
    figure, (axes,) = figures.panels(1)
    figures.draw_curves(axes, {"one": ([0, 1], [0, end]), "two": ([0, 1], [1, 1])}, "x", "y")
    return figures.svg(figure)


def test_the_same_figure_is_drawn_alike():
    assert masked_picture(1) == masked_picture(1)
    assert changed(masked_picture(1), masked_picture(1)) == ""


def test_a_figure_with_another_content_is_found():
    assert changed(masked_picture(2), masked_picture(1)) != ""
    assert changed(masked_picture(1, "b"), masked_picture(1, "a"), TRAINED) != ""
    kept = curve(0.9)
    assert changed(curve(0.8), kept) != ""
    assert changed(kept.replace(figures.BLUE.lower(), figures.GREEN.lower()), kept) != ""
    assert changed(kept.replace("</svg>", "<g/></svg>"), kept) != ""
    # A curve of a training may move a little.
    assert changed(curve(0.88), kept) != changed(curve(0.88), kept, TRAINED) == ""
    assert changed(curve(0.7), kept, TRAINED) != ""


@pytest.mark.parametrize("path", FIGURES, ids=name_of)
def test_figures_are_small_readable_and_in_safe_colours(path):
    text = path.read_text(encoding="utf-8")
    assert len(text) <= LARGEST
    root = ET.fromstring(text)
    assert root.get("width") == f"{figures.WIDTH * 72:g}pt"
    sizes = [float(size) for size in re.findall(r"(?:font-size:|font:[^;\"]*?)\s*([\d.]+)px", text)]
    # Points of the drawing are shown as points; a page's type has 12.
    assert sizes
    assert min(sizes) >= 7
    assert np.median(sizes) >= 10
    colours = {colour.upper() for colour in re.findall(r"#[0-9a-f]{6}\b", text)}
    coloured = {colour for colour in colours if len({colour[1:3], colour[3:5], colour[5:7]}) > 1}
    assert coloured <= set(figures.SERIES)


@pytest.mark.parametrize("page", PAGES, ids=name_of)
def test_the_pages_are_linked_from_the_guides(page):
    assert f"(learn/{page.name})" in (ROOT / "docs" / page.name).read_text(encoding="utf-8")
    assert f"({page.name})" in (FOLDER / "README.md").read_text(encoding="utf-8")
    assert "(docs/learn/README.md)" in (ROOT / "README.md").read_text(encoding="utf-8")
