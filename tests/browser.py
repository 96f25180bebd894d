"""A headless browser to test pages."""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

CHROMIUM = shutil.which("chromium")
DRIVER = shutil.which("chromedriver")


@contextmanager
def browse(page: Path | str, tmp_path: Path) -> Iterator:
    """The page, a file or an address, in chromium; errors in its log and horizontal scrolling fail the test."""
    if not (CHROMIUM and DRIVER):
        pytest.skip("no browser; install one: apt-get install chromium chromium-driver")
    from selenium import webdriver

    options = webdriver.ChromeOptions()
    options.binary_location = CHROMIUM
    for flag in (
        "--headless=new",
        "--no-sandbox",
        "--disable-gpu",
        "--disable-background-networking",
        "--disable-component-update",
        "--disable-sync",
        "--no-first-run",
        "--window-size=1280,2400",
        f"--user-data-dir={tmp_path / 'profile'}",
    ):
        options.add_argument(flag)
    options.set_capability("goog:loggingPrefs", {"browser": "ALL"})
    browser = webdriver.Chrome(options=options, service=webdriver.ChromeService(DRIVER))
    try:
        browser.get(page if isinstance(page, str) else page.as_uri())
        assert [entry for entry in browser.get_log("browser") if entry["level"] == "SEVERE"] == []
        yield browser
        for width in (1280, 400):
            show_at(browser, width)
            wide = "return document.documentElement.scrollWidth - document.documentElement.clientWidth"
            assert browser.execute_script(wide) <= 0, f"the page scrolls sideways in a window of {width} pixels"
    finally:
        browser.quit()


def show_at(browser, width: int, scheme: str = "light") -> None:
    """Show the page in a window of this width, to a reader who prefers light or dark pages."""
    size = {"width": width, "height": 1200, "deviceScaleFactor": 1, "mobile": False}
    browser.execute_cdp_cmd("Emulation.setDeviceMetricsOverride", size)
    prefers = {"features": [{"name": "prefers-color-scheme", "value": scheme}]}
    browser.execute_cdp_cmd("Emulation.setEmulatedMedia", prefers)


CONTRAST = """
const parts = text => text.match(/[\\d.]+/g).map(Number);
const light = ([r, g, b]) => [r, g, b].map(v => v / 255)
    .map(v => v <= 0.03928 ? v / 12.92 : ((v + 0.055) / 1.055) ** 2.4)
    .reduce((sum, v, i) => sum + v * [0.2126, 0.7152, 0.0722][i], 0);
const behind = element => {
    for (let e = element; e; e = e.parentElement) {
        const colour = parts(getComputedStyle(e).backgroundColor);
        if (colour.length < 4 || colour[3] > 0.99) return colour;
    }
    return [255, 255, 255];
};
const found = [];
for (const element of document.body.querySelectorAll("*")) {
    const words = [...element.childNodes].some(node => node.nodeType == 3 && node.data.trim());
    if (!words || !element.checkVisibility() || ["STYLE", "OPTION"].includes(element.tagName)) continue;
    const style = getComputedStyle(element);
    const ink = element.closest("svg") && style.fill.startsWith("rgb") ? style.fill : style.color;
    // Letters over an image have an outline.
    const outlined = style.paintOrder.startsWith("stroke") && style.stroke.startsWith("rgb");
    const ground = outlined ? parts(style.stroke) : behind(element.closest("svg") || element);
    const [one, two] = [light(parts(ink)), light(ground)].sort((a, b) => b - a);
    found.push([(one + 0.05) / (two + 0.05), element.tagName + ": " + element.textContent.trim().slice(0, 40)]);
}
return found.sort((a, b) => a[0] - b[0])[0];
"""


def must_be_readable(browser) -> None:
    """All text has a contrast of at least 4.5 to 1 with what is behind it (WCAG 2.2, criterion 1.4.3), and the page
    does not scroll sideways: light and dark, at both widths."""
    for width in (1400, 400):
        for scheme in ("light", "dark"):
            show_at(browser, width, scheme)
            ratio, where = browser.execute_script(CONTRAST)
            assert ratio >= 4.5, f"{where}: a contrast of {ratio:.1f} in the {scheme} page"
            wide = "return document.documentElement.scrollWidth - document.documentElement.clientWidth"
            assert browser.execute_script(wide) <= 0, f"the page scrolls sideways in a window of {width} pixels"
