"""The page of an evaluation: its gallery, calibration, breakdown and card; and how a real browser shows it."""

from __future__ import annotations

import json
import math
import re

import numpy as np
import pytest
from PIL import Image as Pillow

from tests.browser import browse, must_be_readable
from vislang.document import Document, Image
from vislang.evaluate.abstain import abstention
from vislang.evaluate.browse import OTHERS, WORST, browser_of, chosen, worst_first
from vislang.evaluate.card import card_of
from vislang.evaluate.evaluation import Evaluation
from vislang.evaluate.evaluation_page import write_evaluation_page
from vislang.evaluate.results import card_after, write_evaluation
from vislang.example import Answers, Choice, Example, Prediction, Text, Value
from vislang.metrics.items import Items, items
from vislang.tasks.task import ReadTask

COLOURS = ("red", "blue", "green")


@pytest.fixture(scope="module")
def made(tmp_path_factory):
    """An evaluation of 60 questions about 30 images, and its folder and page."""
    folder = tmp_path_factory.mktemp("evaluation")
    rng = np.random.default_rng(3)
    examples, predictions = [], []
    for number in range(60):
        colour = COLOURS[number // 2 % 3]
        picture = folder / f"{number // 2}.png"
        Pillow.new("RGB", (40, 30), colour).save(picture)
        words = f"what <b id='leak'>color</b> {number}?" if number % 2 else f"which colour is it, {number}?"
        examples.append(Example(f"q{number}", Document([Image(picture), words]), Answers({colour: 1.0})))
        probability = rng.uniform(0.4, 1.0)
        answer = colour if rng.random() < probability else COLOURS[(COLOURS.index(colour) + 1) % 3]
        others = [other for other in COLOURS if other != answer]
        scores = [math.log(probability), *(math.log((1 - probability) / 2) for _ in others)]
        prompt = f"<image: {picture.name}>Question: {words} Answer:"
        predictions.append(Prediction(f"q{number}", answer, (answer, *others), tuple(scores), "log_likelihood", prompt))
    task = ReadTask("colours", "", "answers", frozenset({"image"}), {"test": lambda *_: examples}, "test", None)
    figures = task.score(examples, predictions)
    chosen_when = abstention(task, examples, [[predictions]], 0.4)
    evaluation = Evaluation("colours", "rank", examples, predictions, figures, abstention=chosen_when)
    card = card_of(task, examples, (), model={"source": "mine"}, options={}, environment={"python": "3"})
    card = card_after(evaluation, task, card)
    write_evaluation(folder / "out", evaluation, task, {}, card)
    write_evaluation_page(folder / "page.html", "colours", task, evaluation, card, "vislang eval", {"torch": "2"})
    return folder, task, evaluation


def records(folder):
    return [json.loads(line) for line in (folder / "out" / "predictions.jsonl").read_text().splitlines()]


def test_the_worst_answers_come_first_and_of_them_the_surest(made):
    folder, _, _ = made
    page = (folder / "page.html").read_text(encoding="utf-8")
    shown = re.findall(r'<article class="card [^"]*" data-id="([^"]*)"', page)
    by_id = {record["id"]: record for record in records(folder)}
    assert set(shown) == set(by_id)
    keys = [(by_id[name]["score"], -max(by_id[name]["scores"])) for name in shown]
    assert keys == sorted(keys)
    assert keys[0][0] == 0
    assert keys[-1][0] == 1


def test_the_bins_are_those_of_the_predictions_file(made):
    folder, _, _ = made
    page = (folder / "page.html").read_text(encoding="utf-8")
    table = re.search(r'<table id="reliability".*?</table>', page, re.DOTALL)[0]
    shown = [re.findall("<td>(.*?)</td>", row) for row in table.split("<tr>")[2:]]
    by_bin: dict[int, list[tuple[float, bool]]] = {}
    for record in records(folder):
        weights = [math.exp(score) for score in record["scores"]]
        probability = weights[record["candidates"].index(record["answer"])] / sum(weights)
        by_bin.setdefault(math.ceil(10 * probability), []).append((probability, record["right"]))
    expected = []
    for number, own in sorted(by_bin.items()):
        mean, share = (sum(values) / len(own) for values in zip(*own, strict=True))
        interval = f"{10 * (number - 1)} to {10 * number} %"
        expected.append([interval, str(len(own)), f"{100 * mean:.1f} %", f"{100 * share:.1f} %"])
    assert [[*row[:3], row[3].partition(" (")[0]] for row in shown] == expected
    error = sum(abs(sum(p for p, _ in own) - sum(right for _, right in own)) for own in by_bin.values()) / len(
        records(folder)
    )
    assert f'<b id="calibration-error">{100 * error:.1f} %</b>' in page


def test_each_kind_of_question_has_its_score(made):
    folder, _, _ = made
    page = (folder / "page.html").read_text(encoding="utf-8")
    assert "accuracy by first words of the question" in page
    right = [record["right"] for record in records(folder) if int(record["id"][1:]) // 2 % 3 == 0]
    section = page[page.index("accuracy by reference answer") :]
    assert f'<td class="wide">red</td><td class="number">{100 * sum(right) / len(right):.1f} %</td>' in section


def test_a_browser_shows_and_filters_it(made, tmp_path):
    from selenium.webdriver.common.by import By

    folder, _, _ = made
    with browse(folder / "page.html", tmp_path) as browser:
        assert browser.find_elements(By.ID, "leak") == [], "a question became markup"
        assert all(
            browser.execute_script("return arguments[0].naturalWidth", image) > 0
            for image in browser.find_elements(By.CSS_SELECTOR, ".browser img")[:3]
        )

        def visible():
            script = "return [...document.querySelectorAll('.browser .card')].filter(card => card.checkVisibility())"
            return browser.execute_script(script)

        assert len(visible()) == 60
        wrong = sum(not record["right"] for record in records(folder))
        browser.find_element(By.ID, "show-wrong").click()
        assert len(visible()) == wrong
        browser.find_element(By.ID, "kind-1").click()
        assert 0 < len(visible()) < wrong
        assert len({card.text.split()[0] for card in visible()}) == 1
        for name in ("show-all", "kind-all"):
            browser.find_element(By.ID, name).click()
        assert len(visible()) == 60
        detail = visible()[0].find_element(By.TAG_NAME, "details")
        detail.find_element(By.TAG_NAME, "summary").click()
        assert detail.find_element(By.TAG_NAME, "pre").text.startswith("<image: ")
        must_be_readable(browser)


def test_nothing_is_loaded_from_outside(made):
    folder, _, _ = made
    page = (folder / "page.html").read_text(encoding="utf-8")
    loaded = re.findall(r'(?:src|href)="([^"]*)"', page)
    assert loaded
    assert all(address.startswith(("data:", "#")) for address in loaded)
    assert "<script" not in page
    card = json.loads((folder / "out" / "card.json").read_text())
    assert f"{card['prompts']['sha256'][:12]}…" in page


def test_of_many_answers_the_worst_and_a_sample_are_shown():
    order = list(range(1000))
    shown = chosen(order)
    assert shown[:WORST] == order[:WORST]
    assert len(shown) == WORST + OTHERS
    assert shown[-1] == 999
    assert chosen(order[:50]) == order[:50]


def test_errors_are_worst_where_they_are_largest():
    examples = [Example(str(n), Document(["how?"]), Value(0.0)) for n in range(3)]
    predictions = [Prediction(str(n), value) for n, value in enumerate((1.0, -3.0, 0.5))]
    found = items(examples, predictions)
    assert worst_first(found, predictions) == [1, 0, 2]
    (first, *_) = browser_of(examples, predictions, found).cards
    assert (first.answer, first.references, first.score) == ("-3.000", "0", "3 (mean absolute error)")
    assert (first.verdict, first.probability) == ("scored", "")


def test_answers_of_each_kind_are_shown_as_text():
    captions = Example("a", Document(["x"]), Text(("one", "two", "one")))
    choice = Example("b", Document(["y"]), Choice(1), (Document(["first"]), Document(["second"])))
    predictions = [Prediction("a", None), Prediction("b", 0, (0, 1), (0.7, 0.3))]
    found = Items("accuracy", np.array([0.0, 0.0]), np.array([False, False]))
    cards = {card.id: card for card in browser_of([captions, choice], predictions, found).cards}
    assert (cards["a"].answer, cards["a"].references) == ("(nothing)", "one; two")
    assert (cards["b"].answer, cards["b"].references, cards["b"].probability) == ("first", "second", "0.7")
