"""``vislang search`` in an index: by text and image, ranked again, corrected by marks, and mistakes."""

from __future__ import annotations

import json
import shutil
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pytest

from vislang.cli import main
from vislang.document import Document, Image
from vislang.example import Example
from vislang.models.loading import load
from vislang.search import nearest
from vislang.search.build import build
from vislang.search.embedder import open_embedder
from vislang.search.index import Index
from vislang.search.marks import Mark, add_marks, read_marks
from vislang.search.nearest import best, search, similarities, write_graph


@pytest.fixture
def index(photos, dual, tmp_path) -> str:
    build(photos, tmp_path / "index", open_embedder(dual))
    return str(tmp_path / "index")


def answer_of(capsys, *words: str) -> dict:
    assert main(["search", *words, "--json"]) == 0
    return json.loads(capsys.readouterr().out)


def names(answer: dict) -> list[str]:
    return [image["image"].rpartition("/")[2] for image in answer["images"]]


def test_a_text_finds_its_images_in_the_order_of_the_model(index, dual, photos, capsys):
    answer = answer_of(capsys, index, "a red shape", "-n", "3")
    assert (answer["schema"], answer["text"], answer["ended"]) == (1, "a red shape", False)
    assert len(answer["images"]) == 3
    assert all(name.startswith("red") for name in names(answer))
    # The same as the comparison of all images without an index.
    whole = answer_of(capsys, dual, "a red shape", str(photos), "-n", "3")
    assert [image["image"] for image in whole["images"]] == [image["image"] for image in answer["images"]]
    for own, other in zip(answer["images"], whole["images"], strict=True):
        assert own["score"] == pytest.approx(other["score"], abs=2e-3)


def test_an_image_finds_itself(index, photos, tmp_path, capsys):
    shutil.copy(photos / "red-4.png", tmp_path / "q.png")
    answer = answer_of(capsys, index, "--image", str(tmp_path / "q.png"), "-n", "3")
    assert answer["image"] == str(tmp_path / "q.png")
    # The three red ones are nearly equal to this model.
    assert "red-4.png" in names(answer)
    assert answer["images"][0]["score"] == pytest.approx(1, abs=2e-3)


def test_a_second_model_ranks_the_first_results_again(index, dual, photos, capsys):
    reranked = answer_of(capsys, index, "a red shape", "--rerank", dual)
    model = load(dual)
    for image in reranked["images"]:
        score = model.match_all([Image(image["image"])], ["a red shape"]).item()
        assert image["score"] == pytest.approx(score, abs=2e-3)
    scores = [image["score"] for image in reranked["images"]]
    assert scores == sorted(scores, reverse=True)


def test_a_flamingo_ranks_results_by_the_likelihood_of_the_text(index, flamingo, photos, capsys):
    text = "a red shape"
    right = str(photos / "red-0.png")
    reranked = answer_of(capsys, index, text, "-n", "5", "--rerank", flamingo, "--right", right)
    model = load(flamingo)
    likelihoods = {}
    # All are among the results that are ranked again; marks may end them earlier.
    for path in sorted(photos.rglob("*.png")):
        image = Image(path)
        ((score,),) = model.rank([model.prompts.render(Example("1", Document([image])))], [text])
        likelihoods[str(path)] = score.log_likelihood / score.tokens
    found = {image["image"]: image["score"] for image in reranked["images"]}
    assert found == pytest.approx({name: likelihoods[name] for name in found}, abs=1e-3)
    assert list(found.values()) == sorted(found.values(), reverse=True)
    assert len(set(found.values())) > 1
    assert (reranked["score_kind"], reranked["marks"]) == ("log_likelihood", 1)
    capsys.readouterr()
    assert main(["search", index, text, "--rerank", flamingo]) == 0
    assert "log-likelihood per token" in " ".join(capsys.readouterr().out.split())


def test_the_best_of_a_second_model_need_not_be_the_first_ones_best(index, flamingo, capsys):
    """It ranks more results than are shown."""
    whole = answer_of(capsys, index, "a red shape", "-n", "12", "--rerank", flamingo)
    few = answer_of(capsys, index, "a red shape", "-n", "2", "--rerank", flamingo)
    assert few["images"] == whole["images"][:2]
    assert names(few) != names(answer_of(capsys, index, "a red shape", "-n", "2"))


def test_a_flamingo_compares_an_image_by_its_features(index, flamingo, photos, capsys):
    query = photos / "blue-1.png"
    reranked = answer_of(capsys, index, "--image", str(query), "--rerank", flamingo)
    model = load(flamingo)
    paths = [image["image"] for image in reranked["images"]]
    vectors = model.embed([Document([Image(path)]) for path in (query, *paths)])
    unit = vectors / vectors.norm(dim=-1, keepdim=True)
    assert [image["score"] for image in reranked["images"]] == pytest.approx((unit[1:] @ unit[0]).tolist(), abs=1e-3)
    assert reranked["score_kind"] == "similarity"
    assert paths[0] == str(query)


def test_a_text_that_is_too_long_for_the_second_model(index, flamingo, capsys):
    assert main(["search", index, "red " * 200, "--rerank", flamingo]) == 2
    assert "does not fit" in capsys.readouterr().err


def test_marks_move_results_end_them_and_are_kept(index, photos, capsys):
    first = answer_of(capsys, index, "a red shape", "-n", "12")
    assert first["marks"] == 0
    # Another colour is what this person means by it.
    meant = names(first)[-1].partition("-")[0]
    wanted = sorted(photos.rglob(f"{meant}-*.png"))
    marks = ["--right", str(wanted[0]), "--wrong", str(photos / "red-0.png"), "--wrong", str(photos / "red-4.png")]
    marked = answer_of(capsys, index, "a red shape", "-n", "12", *marks)
    assert marked["marks"] == 3
    places = [names(first).index(wanted[1].name), names({"images": marked["images"]}).index(wanted[1].name)]
    assert places[1] < places[0]
    assert "red-0.png" not in names(marked)
    assert marked["ended"]
    again = answer_of(capsys, index, "a red shape", "-n", "12")
    assert again == marked
    # Marks are those of one query, and of the content that was marked.
    assert answer_of(capsys, index, "a shape", "-n", "12")["marks"] == 0
    assert answer_of(capsys, index, "a red shape", "-n", "12", "--forget") == first
    assert answer_of(capsys, index, "a red shape", "-n", "12") == first


def test_marks_of_several_at_once_are_all_kept(index):
    """A server and a command, for example, may mark at the same time."""
    opened = Index(Path(index))
    rows = list(opened.all_rows())

    def mark(number):
        own = rows[number % len(rows)]
        add_marks(opened, [Mark(f"query {number}", own.name, own.sha256, right=True)])

    with ThreadPoolExecutor(8) as pool:
        list(pool.map(mark, range(40)))
    assert all(len(read_marks(opened, f"query {number}")) == 1 for number in range(40))


def test_the_table_says_where_results_end(index, photos, capsys):
    red = [word for path in sorted(photos.rglob("red-*.png")) for word in ("--right", str(path))]
    assert main(["search", index, "a red shape", *red, "--wrong", str(next(iter(photos.rglob("*-1.png"))))]) == 0
    said = " ".join(capsys.readouterr().out.split())
    assert "corrected by 4 marks" in said
    assert "Nothing more here" in said


def test_images_that_are_gone_are_left_out_with_a_note(index, photos, capsys):
    (photos / "red-4.png").unlink()
    assert main(["search", index, "a red shape", "--json"]) == 0
    said = capsys.readouterr()
    assert "red-4.png" not in names(json.loads(said.out))
    assert "1 of the results are no longer there" in said.err


def test_the_product_is_exact_in_any_chunks(monkeypatch):
    rng = np.random.default_rng(0)
    vectors = rng.standard_normal((1000, 24)).astype(np.float16)
    query = rng.standard_normal(24).astype(np.float32)
    expected = vectors.astype(np.float64) @ query
    for values in (24, 24 * 7, 2**19):
        monkeypatch.setattr(nearest, "CHUNK_VALUES", values)
        np.testing.assert_allclose(similarities(vectors, query), expected, atol=1e-4)
    assert list(best(np.array([1, 3, 3, 2, 3], np.float32), 3)) == [1, 2, 4]
    assert list(best(np.array([1, 3, 2, 3], np.float32), 9)) == [1, 3, 2, 0]


def test_a_graph_is_searched_and_without_usearch_all_rows_are(index, monkeypatch, tmp_path, dual):
    opened = Index(tmp_path / "index")
    write_graph(opened)
    query = open_embedder(dual).text("a red shape")
    expected = search(opened, query, 3, exact=True)
    monkeypatch.setattr(nearest, "similarities", only_few(nearest.similarities))
    for found, wanted in zip(search(opened, query, 3), expected, strict=True):
        np.testing.assert_allclose(found, wanted, atol=1e-6)
    monkeypatch.undo()
    notes: list[str] = []
    monkeypatch.setattr(nearest, "has_usearch", lambda: False)
    rows, _ = search(opened, query, 3, note=notes.append)
    assert list(rows) == list(expected[0])
    assert "pip install 'vislang[search]'" in notes[0]


def only_few(whole):
    def few(vectors, query):
        assert len(vectors) <= 3, "all rows were compared"
        return whole(vectors, query)

    return few


def test_index_makes_a_graph_above_a_number_of_images(photos, dual, tmp_path, capsys):
    words = ["index", str(photos), "-o", str(tmp_path / "index"), "--model", dual]
    assert main(words) == 0
    assert not list((tmp_path / "index").glob("graph-*"))
    assert main([*words, "--graph-above", "10"]) == 0
    assert list((tmp_path / "index").glob("graph-1.usearch"))
    assert "up to date" in capsys.readouterr().out


def truncate(index):
    with next(index.glob("vectors-*.npy")).open("r+b") as file:
        file.truncate(200)


def not_numbers(index):
    path = next(index.glob("vectors-*.npy"))
    vectors = np.load(path)
    vectors[3] = np.nan
    np.save(path, vectors)


def bad_mark(index):
    (index / "marks.jsonl").write_text("nothing\n")


@pytest.mark.parametrize(
    ("damage", "words", "message"),
    [
        (None, ["INDEX", "x", "--model", "TOWER"], "is another model"),
        (None, ["INDEX", "--image", "none.png"], "none.png: no such file"),
        (None, ["INDEX"], "give a text or --image FILE"),
        (None, ["INDEX", "x", "--image", "RED"], "give a text or --image FILE"),
        (None, ["INDEX", " "], "the search text is empty"),
        (None, ["INDEX", "a red shape", "-n", "0"], "--top is 0"),
        (None, ["INDEX", "a red shape", "--right", "none.png"], "none.png: is not in"),
        (None, ["INDEX", "a red shape", "--right", "RED", "--wrong", "RED"], "marked as right and as wrong"),
        (None, ["INDEX", "a red shape", "--rerank", "TOWER"], "vision"),
        (None, ["none", "a red shape"], "none: no such folder"),
        (None, ["PHOTOS", "a red shape"], "is not an index"),
        (None, ["INDEX", "a red shape", "PHOTOS", "--exact"], "--exact: only used with an index"),
        (truncate, ["INDEX", "a red shape"], "the index is damaged (vectors-1.npy has 200 bytes instead of"),
        (not_numbers, ["INDEX", "a red shape"], "the index is damaged (a vector is not a number)"),
        (lambda index: (index / "rows-1.jsonl").unlink(), ["INDEX", "a red shape"], "rows-1.jsonl is missing"),
        (lambda index: (index / "index.json").write_text("{"), ["INDEX", "a red shape"], "the index is damaged"),
        (bad_mark, ["INDEX", "a red shape"], "marks.jsonl:1: not a mark"),
    ],
)
def test_mistakes_are_one_line_errors(index, photos, towers, tmp_path, capsys, damage, words, message):
    if damage is not None:
        damage(tmp_path / "index")
    named = {"INDEX": index, "TOWER": towers[1], "PHOTOS": str(photos), "RED": str(photos / "red-0.png")}
    assert main(["search", *(named.get(word, word) for word in words)]) == 2
    error = capsys.readouterr().err
    assert message in error
    assert len(error.splitlines()) == 1


def test_a_text_needs_a_model_of_texts(photos, towers, tmp_path, capsys):
    build(photos, tmp_path / "index", open_embedder(towers[1]))
    assert main(["search", str(tmp_path / "index"), "red"]) == 2
    assert "has no vectors of texts" in capsys.readouterr().err
    assert main(["search", str(tmp_path / "index"), "--image", str(photos / "red-0.png")]) == 0
