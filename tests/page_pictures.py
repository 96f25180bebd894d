"""Makes pictures of the server's page with a Flamingo and easy-VQA: ``python -m tests.page_pictures MODEL DIR``.

They show light and dark pages in wide and narrow windows.
"""

from __future__ import annotations

import argparse
import base64
import io
import tempfile
from pathlib import Path

import PIL.Image

import vislang
from tests.browser import browse, show_at
from tests.serve.reader import Page
from tests.serve.running import running
from vislang.data.sources import load_source
from vislang.example import Example, reference_text
from vislang.serve.served import Served

SHOTS = ("what color is the shape?", "what color is the shape?", "what shape is in the image?")
QUESTION = "what color is the shape?"


def asked(examples: list[Example], question: str, skip: int = 0) -> Example:
    """An example with this question."""
    return [example for example in examples if example.text == question][skip]


def fill(page: Page, folder: Path) -> None:
    """Make three examples and a question, and press the buttons."""
    examples = load_source("easy-vqa:test")

    def saved(example: Example) -> Path:
        path = folder / f"{len(list(folder.iterdir()))}.png"
        example.media[0].decode().save(path)
        return path

    for number, text in enumerate(SHOTS):
        example = asked(examples, text, 3 * number)
        page.add(saved(example), reference_text(example) or "", text)
    page.question(saved(asked(examples, QUESTION, 11)), QUESTION)
    page.press("explain")


def photograph(browser, path: Path) -> None:
    """The whole page as a PNG of few colours."""
    width, height = browser.execute_script("return [window.innerWidth, document.body.offsetHeight]")
    whole = {"x": 0, "y": 0, "width": width, "height": height, "scale": 1}
    shot = browser.execute_cdp_cmd("Page.captureScreenshot", {"captureBeyondViewport": True, "clip": whole})
    image = PIL.Image.open(io.BytesIO(base64.b64decode(shot["data"])))
    image.convert("RGB").quantize(128).save(path, optimize=True)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("model")
    parser.add_argument("out", type=Path)
    options = parser.parse_args()
    options.out.mkdir(parents=True, exist_ok=True)
    models = {"demo": Served("demo", vislang.load(options.model))}
    with running(models) as address, tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        with browse(f"{address}/", folder) as browser:
            page = Page(browser, address)
            page.must_list()
            show_at(browser, 1400)
            photograph(browser, options.out / "empty.png")
            fill(page, folder)
            for width in (1400, 400):
                for scheme in ("light", "dark"):
                    show_at(browser, width, scheme)
                    photograph(browser, options.out / f"{scheme}-{width}.png")


if __name__ == "__main__":
    main()
