"""The page: its content, and how a real browser shows it."""

import json
import re

import pytest

from tests import tiny
from tests.browser import browse, must_be_readable, show_at
from vislang.cli import main


@pytest.fixture(scope="module")
def page(towers, tmp_path_factory):
    folder = tmp_path_factory.mktemp("report")
    tiny.draw_pictures(folder)
    file = folder / "my.jsonl"
    # A question with markup.
    file.write_text(file.read_text().replace("what color?", "what <b id='leak'>color</b>?", 4))
    recipe = tiny.write_recipe(folder / "tiny.yaml", *towers)
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("VISLANG_CACHE", str(folder / "cache"))
        assert main(["train", str(recipe), "--out", str(folder / "run"), "--hold_out", "0.5"]) == 0
    return folder / "run" / "report.html"


def test_it_is_self_contained(page):
    source = page.read_text(encoding="utf-8")
    loaded = re.findall(r'(?:src|href)="([^"]*)"', source)
    assert loaded
    assert all(address.startswith(("data:", "#")) for address in loaded)
    assert "@import" not in source
    assert "<script" not in source


def test_a_browser_shows_all_of_it(page, tmp_path):
    from selenium.webdriver.common.by import By

    with browse(page, tmp_path) as browser:
        images = browser.find_elements(By.TAG_NAME, "img")
        assert len(images) >= 2
        for image in images:
            assert browser.execute_script("return arguments[0].naturalWidth", image) > 0
            assert image.get_attribute("alt")
        plots = browser.find_elements(By.CSS_SELECTOR, ".plots svg")
        assert len(plots) == 3
        assert all(plot.size["width"] > 200 and plot.size["height"] > 100 for plot in plots)
        assert browser.find_elements(By.ID, "leak") == [], "a question became markup"
        text = browser.find_element(By.TAG_NAME, "body").text
        for expected in (
            "my: wrong answers",
            "my: correct answers",
            "tanh(gate)",
            "without images",
            "four times uniform or more",
            "samples/s",
            "of the matrix rate",
            "Seed 0",
            "torch ",
        ):
            assert expected in text
        configuration = browser.find_element(By.CSS_SELECTOR, "details:has(pre)")
        assert not configuration.find_element(By.TAG_NAME, "pre").is_displayed()
        configuration.find_element(By.TAG_NAME, "summary").click()
        assert "FlamingoRecipe" in configuration.find_element(By.TAG_NAME, "pre").text
        looks_right(browser)


def looks_right(browser):
    """Wide windows are used, type can be read, attention is not cut off, in narrow windows and in dark ones too."""
    inside = """return [...document.querySelectorAll(".card img")].every(image =>
        image.getBoundingClientRect().right <= image.closest(".card").getBoundingClientRect().right)"""
    smallest = """return Math.min(...[...document.querySelectorAll(".plot text, .plot li")].map(text =>
        text.tagName == "LI" ? parseFloat(getComputedStyle(text).fontSize)
        : parseFloat(getComputedStyle(text).fontSize) * Math.hypot(text.getScreenCTM().a, text.getScreenCTM().b)))"""
    for width in (1600, 400):
        for scheme in ("light", "dark"):
            show_at(browser, width, scheme)
            assert browser.execute_script(inside), f"an image is cut off at {width} pixels"
            assert browser.execute_script(smallest) >= 10
            page = browser.execute_script("return getComputedStyle(document.body).backgroundColor")
            assert page == ("rgb(255, 255, 255)" if scheme == "light" else "rgb(20, 25, 31)")
        plots = browser.execute_script("return document.querySelector('.plots').getBoundingClientRect().width")
        assert plots > 0.85 * width
    must_be_readable(browser)


def test_films_are_shown_frame_by_frame(pictures, towers, tmp_path):
    """A film has the same limited number of frames in each token's attention map as in the film itself."""
    from selenium.webdriver.common.by import By

    tiny.write_video(pictures / "long.mp4", list(range(0, 200, 20)))
    tiny.write_video(pictures / "short.mp4", [0, 200])
    records = [{"video": f"{name}.mp4", "question": "how long?", "answer": name} for name in ("long", "short")]
    records = [*records, {"parts": ["how many?"], "target": "two"}] * 2
    file = pictures / "films.jsonl"
    file.write_text("\n".join(json.dumps(record) for record in records))
    recipe = tiny.write_recipe(tmp_path / "films.yaml", *towers, steps=2, eval_every=0)
    more = ["--data", str(file), "--eval_data", str(file), "--hold_out", "0", "--model.bridge.frames", "4"]
    assert main(["train", str(recipe), "--out", str(tmp_path / "run"), *more]) == 0
    with browse(tmp_path / "run" / "report.html", tmp_path) as browser:
        strips = browser.find_elements(By.CSS_SELECTOR, ".card > .film")
        assert len(strips) == 4
        assert len(browser.find_elements(By.CSS_SELECTOR, ".card")) == 6, "a question of words alone has no strip"
        shown = {strip.find_element(By.TAG_NAME, "figcaption").text for strip in strips}
        assert shown == {"8 of 10 frames", "2 of 2 frames"}
        for strip in strips:
            sizes = {
                browser.execute_script("return [arguments[0].naturalWidth, arguments[0].naturalHeight].join()", image)
                for image in strip.find_elements(By.TAG_NAME, "img")
            }
            frames = int(strip.find_element(By.TAG_NAME, "figcaption").text.split()[0])
            assert sizes == {f"{168 * frames - 8},160"}
