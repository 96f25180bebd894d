"""Search through the server: the API, and the page in a real browser."""

from __future__ import annotations

from base64 import b64decode
from io import BytesIO
from pathlib import Path

import pytest
from PIL import Image as Pillow

from tests.browser import browse, show_at
from tests.models.test_saved_models import SAVED
from tests.serve.reader import Page
from tests.serve.running import call, data_url, running
from vislang.commands.serve import indexed
from vislang.document import Image
from vislang.errors import UserError
from vislang.models.loading import load
from vislang.search.build import build
from vislang.search.embedder import open_embedder
from vislang.search.query import Query, Searcher
from vislang.serve.limits import Limits
from vislang.serve.served import Served

RED = "a red shape"


@pytest.fixture
def index(dual, photos) -> Path:
    folder = photos.parent / "photos.index"
    build(photos, folder, open_embedder(dual))
    return folder


@pytest.fixture
def address(index):
    with running({}, Limits(images=1), indexes={"photos": Searcher(index)}) as found:
        yield found


def ask(address, query=RED, **fields):
    return call(address, "/v1/search", {"index": "photos", "query": query, **fields})


def test_indexes_are_listed(address):
    (card,) = call(address, "/v1/indexes").json["data"]
    assert card == {"id": "photos", "object": "index", "images": 12, "queries": ["text", "image"]}
    assert call(address, "/v1/models").json["data"] == []
    error = call(address, "/v1/embeddings", {"model": "any", "input": "a text"}).error
    assert error["message"] == "there is no such model; this server has none."


def test_results_are_those_of_the_index(address, index, photos):
    reply = ask(address, top_n=5).json
    expected = Searcher(index).search(Query(RED), 5)
    assert [(own["name"], own["score"]) for own in reply["results"]] == [
        (own.name, pytest.approx(own.score, abs=1e-6)) for own in expected.found
    ]
    assert (reply["score_kind"], reply["marks"], reply["ended"]) == ("similarity", 0, False)
    assert all(own["thumbnail"] is None for own in reply["results"])
    picture = photos / expected.found[0].name
    reply = ask(address, {"image": data_url(picture.read_bytes())}, top_n=1, thumbnail=16).json
    assert reply["results"][0]["name"] == expected.found[0].name
    small = Pillow.open(BytesIO(b64decode(reply["results"][0]["thumbnail"].partition(",")[2])))
    assert small.size == (16, 16)


def test_marks_correct_and_are_kept_until_they_are_forgotten(address, index):
    first, *others = [own["name"] for own in ask(address).json["results"]]
    reply = ask(address, right=[first], wrong=others[-2:]).json
    assert (reply["score_kind"], reply["marks"]) == ("probability", 3)
    assert {own["name"]: own["mark"] for own in reply["results"]}[first] == "right"
    # What is marked as right stays, even beside others that look the same and are wrong.
    assert first in [own["name"] for own in ask(address, wrong=others[:2]).json["results"]]
    again = Searcher(index).search(Query(RED), 20)
    assert again.marks == 5
    assert [own["name"] for own in ask(address).json["results"]] == [own.name for own in again.found]
    reply = ask(address, forget=True).json
    assert (reply["marks"], [own["name"] for own in reply["results"]]) == (0, [first, *others])


def test_a_served_model_ranks_results_again(index, dual, flamingo, photos):
    """All images of the index are ranked, with the scores of ``/v1/rerank``; the best are returned."""
    models = {"pictures": Served("pictures", load(flamingo)), "dual": Served("dual", load(dual))}
    with running(models, Limits(images=12), indexes={"photos": Searcher(index)}) as address:
        reply = ask(address, rerank="pictures", top_n=3).json
        assert reply["score_kind"] == "log_likelihood"
        images = sorted(photos.rglob("*.png"))
        documents = [{"image": data_url(path.read_bytes())} for path in images]
        whole = call(address, "/v1/rerank", {"model": "pictures", "query": RED, "documents": documents}).json
        best = {str(images[own["index"]].relative_to(photos)): own["relevance_score"] for own in whole["results"][:3]}
        assert {own["name"]: own["score"] for own in reply["results"]} == pytest.approx(best, abs=1e-4)
        by_image = ask(address, {"image": documents[0]["image"]}, rerank="pictures").json
        assert by_image["score_kind"] == "similarity"
        assert len(by_image["results"]) == 12
        assert ask(address, rerank="dual", right=["red-0.png"]).json["score_kind"] == "similarity"
        error = ask(address, rerank="none").error
        assert (error["param"], error["code"]) == ("rerank", "model_not_found")
        (photos / "red-0.png").write_bytes(b"not an image any more")
        error = ask(address, rerank="pictures").error
        assert (error["param"], error["code"]) == ("rerank", "invalid_image")
        assert str(photos) not in error["message"]


def test_a_model_that_cannot_rank_is_an_error(index):
    labels = Served("labels", load(SAVED / "data2vec-v2"))
    with running({"labels": labels}, indexes={"photos": Searcher(index)}) as address:
        error = ask(address, rerank="labels").error
        assert error["param"] == "rerank"
        assert "does not compare these" in error["message"]


@pytest.mark.parametrize(
    ("body", "status", "message"),
    [
        ({"index": "none"}, 404, "there is no such index; the indexes are photos."),
        ({"query": " "}, 400, "the text is empty."),
        ({"right": ["red-0.png"], "wrong": ["red-0.png"]}, 400, "red-0.png: marked as right and as wrong. Mark it"),
        ({"right": ["a\0b"]}, 400, "a\0b: is not in the index. Mark a result by its name."),
        ({"wrong": ["../../etc/passwd"]}, 400, "../../etc/passwd: is not in the index. Mark a result by its name."),
        ({"right": ["x" * 5000]}, 400, f"{'x' * 5000}: is not in the index. Mark a result by its name."),
        ({"top_n": 0}, 400, "top_n: Input should be greater than or equal to 1."),
        ({"query": {"image": "photos/a.png"}}, 400, "an image is a data: URL in base64, such as data:image/png;"),
    ],
)
def test_mistakes(address, index, body, status, message):
    reply = call(address, "/v1/search", {"index": "photos", "query": RED, **body})
    assert reply.status == status
    assert reply.error["message"].startswith(message)
    assert str(index) not in reply.error["message"]
    assert ask(address).json["marks"] == 0


def test_an_index_of_a_tower_is_searched_by_images_only(towers, photos):
    folder = photos.parent / "tower.index"
    build(photos, folder, open_embedder(towers[1]))
    with running({}, indexes={"photos": Searcher(folder)}) as address:
        assert call(address, "/v1/indexes").json["data"][0]["queries"] == ["image"]
        assert "can be searched by an image only" in ask(address).error["message"]
        (photos / "red-0.png").write_bytes(b"not an image any more")
        reply = ask(address, {"image": data_url((photos / "blue-1.png").read_bytes())}, thumbnail=32).json
        gone = {own["name"]: own["thumbnail"] for own in reply["results"]}
        assert gone.pop("red-0.png") is None
        assert all(gone.values())


def test_names_of_indexes():
    assert indexed(["a/photos.index", "old=b/photos.index"]) == {
        "photos": Path("a/photos.index"),
        "old": Path("b/photos.index"),
    }
    for given in (["a/photos", "b/photos"], ["photos="]):
        with pytest.raises(UserError, match="Write NAME=FOLDER"):
            indexed(given)


def test_the_page(address, index, photos, tmp_path):
    """A text, marks by mouse and keyboard, an image, and mistakes; in a narrow and a wide window."""
    from selenium.webdriver.common.keys import Keys

    with browse(f"{address}/", tmp_path) as browser:
        page = Page(browser, address)
        page.until("the indexes are listed", lambda: page.one("#search").is_displayed())
        assert not page.one("#query").is_displayed()
        for control in page.all("#search button, #search input, #search select"):
            if control.is_displayed():
                assert control.accessible_name, control.get_attribute("outerHTML")
        page.one("#find").click()
        assert page.one("#search-error").text == "Write a text, or choose an image."

        def names():
            return [shown.get_attribute("alt") for shown in page.all("#found img")]

        page.one("#search-text").send_keys(f"{RED}\n")
        page.until("results are shown", names)
        expected = [own.name for own in Searcher(index).search(Query(RED), 24).found]
        assert names() == expected
        assert page.one("#found-note").text == "12 images."
        page.all("#found .wrong")[0].send_keys(Keys.ENTER)
        page.until("the search is corrected", lambda: "corrected by 1 mark" in page.one("#found-note").text)
        assert Searcher(index).search(Query(RED), 24).marks == 1
        for width in (400, 1280):
            show_at(browser, width)
            wide = "return document.documentElement.scrollWidth - document.documentElement.clientWidth"
            assert browser.execute_script(wide) <= 0
        page.one("#forget").click()
        page.until("the marks are gone", lambda: names() == expected)
        page.one("#search-image input").send_keys(str(photos / "blue-1.png"))
        page.until("the image is shown", lambda: page.one("#search-image .drop img").is_displayed())
        page.one("#find").click()
        assert page.one("#search-error").text == "Search by a text or by an image: remove one of them."
        page.one("#search-text").clear()
        page.one("#find").click()
        by_image = Searcher(index).search(Query(image=Image(photos / "blue-1.png")), 24).found
        page.until("results are shown", lambda: names() == [own.name for own in by_image])
        assert [entry for entry in browser.get_log("browser") if entry["level"] == "SEVERE"] == []
