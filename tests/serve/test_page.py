"""The page at ``/`` in a real browser: examples, a streamed answer, attention, boxes, programs, keyboard, token."""

from __future__ import annotations

import json
import subprocess
import tarfile
from dataclasses import replace
from pathlib import Path
from urllib.parse import urlsplit

import numpy as np
import pytest

from tests.browser import browse, show_at
from tests.models.test_saved_models import IMAGES
from tests.serve.reader import COLOUR, Page
from tests.serve.running import call, data_url, running, said
from vislang.attention_maps import OPACITY, emphasis
from vislang.data.sources import load_source
from vislang.document import Image
from vislang.serve.page import PAGE
from vislang.serve.security import HEADERS, OPEN

MARKUP = "<img src=x>"
TOKEN = "s3cret"
FILES = [Path(str(image.source)) for image in IMAGES]


@pytest.fixture(scope="module")
def served(models):
    """The name of a model is markup, too."""
    chosen = {name: models[name] for name in ("flamingo", "vilbert")}
    with running({**chosen, MARKUP: replace(models["flamingo"], name=MARKUP)}) as address:
        yield address


@pytest.fixture(scope="module")
def downloads(tmp_path_factory) -> Path:
    return tmp_path_factory.mktemp("downloads")


@pytest.fixture(scope="module")
def browser(served, downloads, tmp_path_factory):
    with browse(f"{served}/", tmp_path_factory.mktemp("browser")) as opened:
        opened.set_script_timeout(10)
        opened.execute_cdp_cmd("Browser.setDownloadBehavior", {"behavior": "allow", "downloadPath": str(downloads)})
        allow_clipboard(opened, served)
        yield opened


def allow_clipboard(browser, address: str) -> None:
    permissions = {"permissions": ["clipboardReadWrite", "clipboardSanitizedWrite"], "origin": address}
    browser.execute_cdp_cmd("Browser.grantPermissions", permissions)


@pytest.fixture
def page(browser, served):
    shown = Page(browser, served)
    shown.must_list()
    yield shown
    assert [entry for entry in browser.get_log("browser") if entry["level"] == "SEVERE"] == []
    script = "return performance.getEntriesByType('resource').map(entry => entry.name)"
    loaded = [urlsplit(name) for name in browser.execute_script(script)]
    assert loaded
    assert {f"{url.scheme}://{url.netloc}" for url in loaded if url.scheme not in ("data", "blob")} == {served}


def sent(number: int, text: str = COLOUR) -> dict:
    image = {"type": "image_url", "image_url": {"url": data_url(IMAGES[number].read())}}
    return {"role": "user", "content": [image, {"type": "text", "text": text}]}


def test_an_answer_after_two_examples(page, served, capsys):
    """The answer, its attention and the copied programs are those of the same request from another client."""
    page.add(FILES[0], "red")
    page.add(FILES[1], "blue")
    page.question(FILES[2])
    page.press("ask")
    messages = [sent(0), said("red"), sent(1), said("blue"), sent(2)]
    expected = call(served, "/v1/chat/completions", {"model": "flamingo", "messages": messages}).json
    text = expected["choices"][0]["message"]["content"]
    # The browser shows no more than one space at an end of a line.
    assert page.one("#text").get_property("textContent") == text
    assert f"{expected['usage']['completion_tokens']} tokens after a prompt of" in page.one("#facts").text
    assert page.one("#text").get_attribute("aria-busy") == "false"

    curl = page.copied("curl")
    assert json.loads(curl.splitlines()[1])["messages"] == messages
    program = page.copied("python")
    asked = subprocess.run(["bash", "-c", curl], capture_output=True, text=True)
    assert "data: [DONE]" in asked.stdout, asked.stderr
    capsys.readouterr()
    exec(compile(program, "copied.py", "exec"), {})
    assert capsys.readouterr().out == f"{text}\n"

    page.press("explain")
    reply = call(served, "/v1/explain", {"model": "flamingo", "messages": messages, "leave_out": True}).json
    assert len(page.all(".tokens label")) == len(reply["tokens"])
    assert [title.text for title in page.all(".strip figcaption b")] == ["example 1", "example 2", "question"]
    assert len(page.all(".strip canvas")) == 3
    changes = [span.text for span in page.all(".effects span:last-child")]
    assert changes == [f"{'−' if change < 0 else '+'}{abs(change):.2f} nats" for change in reply["changes"]]
    gates = [value.text for value in page.all(".beside > div:first-child .value")]
    assert gates == [f"{own['attention']:.3f}" for own in reply["gates"]]
    # The arrow key chooses the next token, and the maps are drawn again.
    page.browser.execute_script("document.querySelector('.strip').firstChild.id = 'before'")
    page.one(".tokens input").send_keys("\ue014")
    assert page.all(".tokens input")[1].is_selected()
    assert not page.all("#before")
    opacities = page.browser.execute_script("""
        const canvas = document.querySelectorAll(".strip canvas")[2];
        const pixels = canvas.getContext("2d").getImageData(0, 0, canvas.width, canvas.height).data;
        return [...pixels].filter((_, index) => index % 4 === 3);
    """)
    expected = 255 * OPACITY * emphasis(np.array(reply["tokens"][1]["maps"][2]))
    assert expected.max() > 0
    assert opacities == pytest.approx(expected.ravel().tolist(), abs=1)


def test_texts_stay_texts(page):
    """Model output, names of models, examples and errors that look like HTML."""
    page.choose(MARKUP)
    page.add(FILES[0], MARKUP, MARKUP)
    page.question(FILES[1], MARKUP)
    page.one("#options").send_keys(f"{MARKUP}, red")
    page.press("ask")
    assert {name.text for name in page.all("#ranked .name")} == {MARKUP, "red"}
    shares = [float(value.text.partition(" %")[0]) for value in page.all("#ranked .value")]
    assert shares == sorted(shares, reverse=True)
    assert sum(shares) == pytest.approx(100, abs=0.2)
    page.press("explain")
    assert MARKUP in page.one(".effects b").text
    assert page.browser.title == "vislang"
    assert not page.all("img[src='x']")


def test_errors_are_beside_the_buttons(page):
    page.one("#ask").click()
    assert page.one("#error").text == "Choose an image, or write a question."
    page.one("#add").click()
    page.one("#ask").click()
    assert page.one("#error").text.startswith("Example 1 has no image and no question.")
    page.one("#cards .remove").click()
    page.question(FILES[0])
    page.one("#options").send_keys("red, red")
    page.one("#ask").click()
    page.until("the error is shown", lambda: page.one("#error").text == "give two or more different answers.")
    log = [entry["message"] for entry in page.browser.get_log("browser")]
    assert len(log) == 1
    assert "400" in log[0]


def test_boxes_and_co_attention_of_a_vilbert(page, served):
    page.choose("vilbert")
    assert not page.one("#examples").is_displayed()
    page.question(FILES[0], "the shape")
    page.press("ground")
    found = call(served, "/v1/ground", {"model": "vilbert", "messages": [sent(0, "the shape")], "top_n": 5}).json
    assert [value.text for value in page.all("#drawing .value")] == [f"{box['score']:.3f}" for box in found["boxes"]]
    best = page.all("#drawing rect")[-1]
    assert float(best.get_attribute("width")) == pytest.approx(
        found["boxes"][0]["box"]["right"] - found["boxes"][0]["box"]["left"], rel=1e-4
    )
    picture, box = page.one(".picture img").rect, best.rect
    assert picture["x"] - 3 <= box["x"] <= box["x"] + box["width"] <= picture["x"] + picture["width"] + 3
    page.press("explain")
    assert page.all(".strip rect")
    page.press("ask")
    assert page.all("#ranked .bar")


def test_the_keyboard_reorders_examples(page):
    from selenium.webdriver.common.keys import Keys

    for number, answer in enumerate(("one", "two", "three")):
        page.add(FILES[number], answer)
    button = page.all("#cards .earlier")[2]
    button.send_keys(Keys.ENTER)
    assert page.answers == ["one", "three", "two"]
    assert page.browser.switch_to.active_element == button
    assert page.one("#cards-message").text == "The example is now number 2 of 3."
    button.send_keys(Keys.SPACE)
    button.send_keys(Keys.ENTER)
    assert page.answers == ["three", "one", "two"]
    assert page.one("#cards-message").text == "This example is the first."
    assert page.one("#cards .answer").get_attribute("aria-label") == "Answer of example 1"
    page.all("#cards .remove")[0].send_keys(Keys.ENTER)
    assert page.answers == ["one", "two"]
    # All that can be pressed or filled in has a name, and Tab reaches it.
    for control in page.all("button, input, textarea, select"):
        if control.is_displayed():
            assert control.accessible_name, control.get_attribute("outerHTML")
            assert control.get_attribute("tabindex") is None
    # Dragging the last example by its handle over the first does the same.
    page.browser.execute_script("""
        const [first, last] = document.querySelectorAll("#cards .card");
        const dataTransfer = new DataTransfer();
        const event = (name) => new DragEvent(name, { bubbles: true, cancelable: true, dataTransfer });
        const send = (name, target) => target.dispatchEvent(event(name));
        send("dragstart", last.querySelector(".handle"));
        for (const name of ["dragover", "drop"]) send(name, first);
        send("dragend", last.querySelector(".handle"));
    """)  # fmt: skip
    assert page.answers == ["two", "one"]


def test_dropped_images_become_examples_and_examples_a_file(page, downloads, models, tmp_path):
    """Unpacked, it has the records from which a pack is made."""
    urls = [data_url(IMAGES[number].read()) for number in (0, 1)]
    page.browser.execute_script("""
        const dataTransfer = new DataTransfer();
        for (const url of arguments[0]) {
          const bytes = Uint8Array.from(atob(url.split(",")[1]), (letter) => letter.charCodeAt(0));
          dataTransfer.items.add(new File([bytes], "a.png", { type: "image/png" }));
        }
        const drop = new DragEvent("drop", { bubbles: true, cancelable: true, dataTransfer });
        document.getElementById("cards").dispatchEvent(drop);
    """, urls)  # fmt: skip
    page.until("two images are shown", lambda: len(page.all("#cards .drop.filled")) == 2)
    page.one("#save").click()
    assert page.one("#cards-message").text == "Example 1 has no answer."
    for field, answer in zip(page.all("#cards .answer"), ("rouge é", "blue"), strict=True):
        field.send_keys(answer)
    page.all("#cards .question")[0].send_keys(COLOUR)
    page.one("#save").click()
    saved = downloads / "examples.tar"
    page.until("the file is saved", saved.exists)
    with tarfile.open(saved) as tar:
        tar.extractall(tmp_path, filter="data")
    prompts = models["flamingo"].model.prompts
    examples = load_source(str(tmp_path / "examples.jsonl"))
    shown = prompts.examples(examples)
    assert [part for part in shown if isinstance(part, str)] == [
        "Question: what color? Answer:", " rouge é", "Caption:", " blue",
    ]  # fmt: skip
    assert [part.read() for part in shown if isinstance(part, Image)] == [IMAGES[n].read() for n in (0, 1)]


@pytest.mark.parametrize("width", [400, 1280])
def test_narrow_and_wide_windows(page, width):
    """After an answer with attention, nothing is wider than the window."""
    show_at(page.browser, width)
    page.add(FILES[0], "red " * 2)
    page.question(FILES[1])
    page.one("#options").send_keys("a" * 20 + ", red")
    page.press("ask")
    # Without the example, which leaves this small model too little room to be compared.
    page.one("#cards .remove").click()
    page.press("explain")
    wide = "return document.documentElement.scrollWidth - document.documentElement.clientWidth"
    assert page.browser.execute_script(wide) <= 0


def test_a_server_with_a_token(browser, models):
    """The page asks for it once; it opens the page's own files and nothing else."""
    with running({"flamingo": models["flamingo"]}, token=TOKEN) as address:
        for path in PAGE:
            reply = call(address, path)
            assert reply.status == 200
            assert reply.headers.items() >= {name.lower(): value for name, value in HEADERS.items()}.items()
            assert call(address, path, {}).status == 405
            assert TOKEN.encode() not in reply.content
        for path in ("/page", "/page/", "/page/../v1/models", "//", "/?/v1/models", "/page/none.js", "/index.html"):
            reply = call(address, path)
            assert reply.status == (200 if path.startswith("/?") else 401), path
        assert {"/health", *PAGE} == OPEN
        allow_clipboard(browser, address)
        page = Page(browser, address)
        for token in ("wrong", TOKEN):
            page.until("the token is asked for", lambda: page.one("#token").is_displayed())
            page.one("#token").send_keys(f"{token}\n")
            page.until("it was sent", lambda: page.all("#model option") or page.one("#token-message").text)
        page.must_list()
        page.question(FILES[0])
        page.press("ask")
        assert not page.one("#token-dialog").is_displayed()
        curl = page.copied("curl")
        assert "$VISLANG_TOKEN" in curl
        assert TOKEN not in curl
        browser.refresh()
        page.must_list()
        log = [entry["message"] for entry in browser.get_log("browser")]
        assert len(log) == 2
        assert all("401" in message for message in log)
