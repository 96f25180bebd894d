"""Makes a picture of the server's page with a trained Flamingo and easy-VQA:
``python -m tests.page_pictures MODEL OUT.png [--width 1400] [--dark] [--start]``.

For docs/figures/serve.png, MODEL is that of the demo (``runs/demo/model``).
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
        path = folder / f"{example.id}.png"
        example.media[0].decode().save(path)
        return path

    for number, text in enumerate(SHOTS):
        example = asked(examples, text, 3 * number)
        page.add(saved(example), reference_text(example) or "", text)
    page.question(saved(asked(examples, QUESTION, 11)), QUESTION)
    page.press("explain")


def photograph(browser, path: Path) -> None:
    """The whole page as a PNG of few colours."""
    shot = browser.execute_cdp_cmd("Page.captureScreenshot", {"captureBeyondViewport": True, "format": "png"})
    image = PIL.Image.open(io.BytesIO(base64.b64decode(shot["data"])))
    image.convert("RGB").quantize(128).save(path, optimize=True)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("model")
    parser.add_argument("out", type=Path)
    parser.add_argument("--width", type=int, default=1400)
    parser.add_argument("--dark", action="store_true")
    parser.add_argument("--start", action="store_true", help="the page before anything is filled in")
    options = parser.parse_args()
    models = {"demo": Served("demo", vislang.load(options.model))}
    with running(models) as address, tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        with browse(f"{address}/", folder) as browser:
            show_at(browser, options.width, "dark" if options.dark else "light")
            page = Page(browser, address)
            page.must_list()
            if not options.start:
                fill(page, folder)
            photograph(browser, options.out)


if __name__ == "__main__":
    main()
