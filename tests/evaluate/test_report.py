"""The page: its content, and how a real browser shows it."""

import re

import pytest

from tests.browser import browse
from vislang.cli import main


@pytest.fixture
def page(recipe, pictures, tmp_path):
    file = pictures / "my.jsonl"
    # A question that tries to be markup.
    file.write_text(file.read_text().replace("what color?", "what <b id='leak'>color</b>?", 4))
    assert main(["train", str(recipe), "--out", str(tmp_path / "run"), "--hold_out", "0.5"]) == 0
    return tmp_path / "run" / "report.html"


def test_it_stands_alone(page):
    source = page.read_text(encoding="utf-8")
    loaded = re.findall(r'(?:src|href)="([^"]*)"', source)
    assert loaded
    assert all(address.startswith(("data:", "#")) for address in loaded)
    assert "@import" not in source
    assert "<script" not in source


def test_a_browser_shows_it_whole(page, tmp_path):
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
        for expected in ("Wrong answers", "Right answers", "tanh(gate)", "images taken away", "Seed 0", "torch "):
            assert expected in text
        configuration = browser.find_element(By.TAG_NAME, "details")
        assert not configuration.find_element(By.TAG_NAME, "pre").is_displayed()
        configuration.find_element(By.TAG_NAME, "summary").click()
        assert "FlamingoRecipe" in configuration.find_element(By.TAG_NAME, "pre").text
