"""Few-shot evaluation: what each trial and each control sends, what is not sent twice, and what the verdict says."""

from __future__ import annotations

import random
import re
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from PIL import Image as Pillow
from sklearn.linear_model import Ridge

from tests.browser import browse, must_be_readable
from vislang.capabilities import Completion, Score
from vislang.document import Document, Image
from vislang.evaluate.few_shot import measure, point_of, settings_for
from vislang.evaluate.few_shot_baselines import PENALTIES, linear_probe
from vislang.evaluate.few_shot_page import write_few_shot_page
from vislang.evaluate.few_shot_results import as_record, read_points, write_points
from vislang.evaluate.shots import Setting, Trial, drawn, retrieved, varied
from vislang.evaluate.verdict import verdict
from vislang.example import Answers, Example, Label, Prediction, reference_text
from vislang.prompt import Prompts, shown
from vislang.tasks.task import ReadTask


class Recording:
    """A model that ranks and generates by a rule, and keeps every prompt that it reads.

    It answers with the answer of the shot whose image has the colour of the query's.
    """

    prompts = Prompts()

    def __init__(self):
        self.sent: list[str] = []
        self.embedded = 0

    def prefill(self, document, state=None):
        return shown(document)

    def rank(self, documents, options, batch_size=16, state=None, progress=None):
        found = []
        for document, own in zip(documents, options, strict=True):
            answer = self.answer(document, state)
            found.append([Score(-0.1 if option == answer else -2.0, 1) for option in own])
        return found

    def generate_scored(self, documents, max_new_tokens=20, batch_size=64, state=None):
        return [Completion(self.answer(document, state), -0.5) for document in documents]

    def generate(self, documents, max_new_tokens=20, batch_size=64, state=None):
        return [found.text for found in self.generate_scored(documents, max_new_tokens, batch_size, state)]

    def answer(self, document, state):
        prompt = (state or "") + shown(document)
        self.sent.append(prompt)
        *shots, query = re.findall(r"<image: [^>]*/(\w)-\d+\.png>", prompt) or [""]
        answers = re.findall(r"(?:Caption|Answer): (\w+)<end>", prompt)
        return next((a for s, a in zip(shots, answers, strict=False) if s == query), "dax")

    def embed(self, documents, batch_size=64, *, progress=None):
        self.embedded += len(documents)
        means = [np.asarray(document.media[-1].decode(), dtype=np.float32).mean(axis=(0, 1)) for document in documents]
        return torch.from_numpy(np.stack(means) - 100)


NAMES = {"r": "dax", "g": "blick", "b": "wug"}


@pytest.fixture
def labelled(tmp_path):
    """A task of naming colours: 30 shots and 12 queries, three images each with a question of their own."""
    sides = {"train": 30, "test": 12}
    read = {}
    for side, count in sides.items():
        examples = []
        for number in range(count):
            colour = "rgb"[number % 3]
            path = tmp_path / side / f"{colour}-{number}.png"
            path.parent.mkdir(exist_ok=True)
            shade = {"r": (250, number, 0), "g": (0, 250, number), "b": (number, 0, 250)}[colour]
            Pillow.new("RGB", (4, 4), shade).save(path)
            examples.append(Example(f"{side} {number}", Document([Image(str(path))]), Label(NAMES[colour])))
        read[side] = lambda problems, progress, own=examples: own
    return ReadTask("colours", "", "label", {"image"}, read, "test", "train", tuple(NAMES.values()))


def run(task, model, shots=(0, 6), draws=2, orders=2, select=("random",)):
    support, queries = task.support(), task.examples("test")
    found = measure(model, task, support, queries, settings_for(shots, select), draws, orders)
    return {point.setting: point for point in found.points}, found


def test_every_trial_and_control_sends_what_it_says(labelled):
    model = Recording()
    points, found = run(labelled, model)
    assert set(points) == {
        *(Setting(n, "random", v) for n in (0, 6) for v in ("plain", "mean_of_orders", "blind")),
        *(Setting(6, "random", v) for v in ("images_shuffled", "labels_shuffled", "linear_probe", "most_similar_shot")),
    }
    plain = points[Setting(6)]
    assert list(plain.predictions) == [Trial(d, o) for d in range(2) for o in range(2)]
    support = {shot.id: shot for shot in labelled.support()}
    for trial, predictions in plain.predictions.items():
        shots = [support[name] for name in plain.shots[trial]]
        expected = "".join(f"<image: {s.prompt.media[0].name}>Caption: {s.target.name}<end>" for s in shots)
        for query, prediction in zip(labelled.examples("test"), predictions, strict=True):
            assert prediction.prompt == f"{expected}<image: {query.prompt.media[0].name}>Caption:"
    for draw in range(2):
        first, second = (plain.shots[draw, order] for order in range(2))
        assert sorted(first) == sorted(second)
        assert first != second
    assert set(plain.shots[0, 0]) != set(plain.shots[1, 0])
    blind = points[Setting(6, "random", "blind")]
    assert list(blind.predictions) == [(0, 0), (1, 0)]
    assert blind.shots[1, 0] == plain.shots[1, 0]
    (sent,) = {prediction.prompt for prediction in blind.predictions[0, 0]}
    assert sent.count("<absent>Caption:") == 7
    shuffled = points[Setting(6, "random", "images_shuffled")]
    was, now = (
        dict.fromkeys(re.findall(r"<image: ([^>]*train[^>]*)>Caption: (\w+)", point.predictions[0, 0][0].prompt))
        for point in (plain, shuffled)
    )
    assert {image for image, _ in was} == {image for image, _ in now}
    assert [answer for _, answer in was] == [answer for _, answer in now]
    assert not {image for image, _ in was} - {image for image, _ in now}
    assert [image for image, _ in was] != [image for image, _ in now]
    # Where a shot is an image and its answer, shuffling either is the same, and is run once.
    assert points[Setting(6, "random", "labels_shuffled")].predictions is shuffled.predictions
    assert found.baselines["answer_of_the_most_similar_image"]["accuracy"].value == 1
    assert points[Setting(6, "random", "linear_probe")].means["accuracy"].value > 0.9


def test_no_prompt_is_sent_twice_and_no_image_embedded_twice(labelled):
    model = Recording()
    run(labelled, model, shots=(0, 6), draws=2, orders=3)
    assert len(model.sent) == len(set(model.sent))
    # 0 shots are two names in two orders, which are one prompt if they are equal. 6 shots have 3 orders. There is one
    # control with images for each draw; and one prompt without, because the queries differ in their images alone.
    support = labelled.support()
    texts = [{tuple(shot.target.name for shot in order) for order in drawn(support, 0, draw, 2)} for draw in (0, 1)]
    assert sorted(map(len, texts)) == [1, 2]
    assert len(model.sent) == 12 * (1 + 2) + 12 * 2 * 3 + 12 * 2 + 2 * 2
    assert model.embedded == 30 + 12


def test_of_a_large_support_the_baseline_compares_a_part_and_shots_are_drawn_from_all(labelled, monkeypatch):
    whole, _ = run(labelled, Recording())
    monkeypatch.setattr("vislang.evaluate.few_shot.MOST_COMPARED", 5)
    model = Recording()
    points, found = run(labelled, model)
    assert points[Setting(6)].shots == whole[Setting(6)].shots
    drawn_shots = {name for trial in points[Setting(6)].shots.values() for name in trial}
    assert model.embedded == 12 + len({*drawn_shots, *_compared(labelled, 5)})
    assert "answer_of_the_most_similar_image" in found.baselines


def _compared(task, count):
    return [example.id for example in random.Random(0).sample(list(task.support()), count)]


def test_the_verdict_of_a_model_that_reads_its_shots(labelled):
    _, found = run(labelled, Recording(), draws=3)
    texts = {finding.about: finding.text for finding in found.verdict}
    assert texts["shots"].startswith("6 shots are better than zero shots in accuracy (+")
    assert texts["images_shuffled"].startswith("The images and answers of the shots matter: own ones are better")
    assert "labels_shuffled" not in texts
    assert texts["blind"].startswith("Prompts with images are better than prompts without any (+")
    assert texts["control"].startswith("No difference between the model and the best guess without it")


def test_retrieved_shots_are_not_drawn(labelled):
    points, _ = run(labelled, Recording(), shots=(0, 3), select=("retrieved",))
    plain = points[Setting(3, "retrieved")]
    assert list(plain.predictions) == [(0, 0), (0, 1)]
    assert plain.means["accuracy"].value == 1
    assert (plain.spread.draws, plain.shots) == (None, {})
    assert Setting(3, "retrieved", "blind") in points


def test_answers_and_questions_are_shuffled_apart(tmp_path):
    """Where shots have a question, each keeps it."""
    shots = [
        Example(f"{n}", Document([Image(f"{n}.png"), f"question {n}?"]), Answers({f"answer {n}": 1.0}))
        for n in range(6)
    ]
    for variant in ("images_shuffled", "labels_shuffled"):
        made = varied(shots, variant, 3)
        assert [shot.text for shot in made] == [shot.text for shot in shots]
        images, answers = ([shot.prompt.media[0].name for shot in made], [reference_text(shot) for shot in made])
        moved, kept = (images, answers) if variant == "images_shuffled" else (answers, images)
        own = [f"{n}.png" for n in range(6)], [f"answer {n}" for n in range(6)]
        assert kept == (own[1] if variant == "images_shuffled" else own[0])
        assert sorted(moved) == (own[0] if variant == "images_shuffled" else own[1])
        assert all(a != b for a, b in zip(moved, sorted(moved), strict=True))
        assert varied(shots, variant, 3) == made
        assert varied(shots, variant, 4) != made
    assert varied(shots, "plain", 3) == shots


def test_orders_are_different_and_no_more_than_there_are():
    support = [SimpleNamespace(id=n) for n in range(9)]
    orders = drawn(support, 3, 0, orders=10)
    assert len(orders) == len({tuple(shot.id for shot in order) for order in orders}) == 6
    assert drawn(support, 3, 0) == orders[:1]
    similarity = torch.tensor([[0.0, 0.9, 0.5, 0.7], [0.8, 0.1, 0.2, 0.3]])
    first, second = retrieved(support, similarity, 2, orders=2)
    assert [[shot.id for shot in own] for own in first] == [[3, 1], [3, 0]]
    assert second == [own[::-1] for own in first]


def test_the_probe_is_ridge_with_the_penalty_of_the_least_left_out_error():
    rng = torch.Generator().manual_seed(0)
    known, asked = torch.randn(12, 40, generator=rng), torch.randn(9, 40, generator=rng)
    answers = ["a", "b", "c"] * 4
    known += 0.6 * torch.nn.functional.one_hot(torch.arange(12) % 3, 40)
    inputs = (known - known.mean(dim=0)).double().numpy()
    one_hot = np.eye(3)[np.arange(12) % 3]
    targets = one_hot - one_hot.mean(axis=0)
    scale = (inputs**2).sum(axis=1).mean()

    def left_out(penalty):
        error = 0.0
        for n in range(12):
            rest = np.arange(12) != n
            fitted = Ridge(alpha=penalty * scale, fit_intercept=False).fit(inputs[rest], targets[rest])
            error += ((fitted.predict(inputs[[n]]) - targets[n]) ** 2).sum()
        return error

    best = min(PENALTIES, key=left_out)
    fitted = Ridge(alpha=best * scale, fit_intercept=False).fit(inputs, targets)
    scores = fitted.predict((asked - known.mean(dim=0)).double().numpy()) + one_hot.mean(axis=0)
    assert linear_probe(known, answers, asked) == ["abc"[n] for n in scores.argmax(axis=1)]
    assert linear_probe(known[:2], ["a", "a"], asked) == ["a"] * 9


def test_results_are_scored_again_from_their_predictions(labelled, tmp_path):
    points, found = run(labelled, Recording())
    queries = labelled.examples("test")
    write_points(tmp_path, found.points, labelled, queries)
    again = read_points(tmp_path / "predictions.jsonl", labelled, queries)
    assert [as_record(point) for point in again] == [as_record(point) for point in found.points]
    record = as_record(points[Setting(6)])
    assert record["spread"]["mean"] == record["figures"]["accuracy"]
    assert {"draws", "orders", "questions"} <= set(record["spread"])
    assert len(record["trials"]) == 4


def test_the_page_has_the_verdict_and_every_setting(labelled, tmp_path):
    points, found = run(labelled, Recording())
    page = tmp_path / "page.html"
    queries = labelled.examples("test")
    write_few_shot_page(page, "colours", labelled, queries, found, {"data": {"n": 4}}, "vislang eval", {"torch": "2"})
    text = page.read_text(encoding="utf-8")
    assert all(finding.text.replace("'", "&#39;") in text for finding in found.verdict)
    assert text.count('<td data-name="mean">') == len(points)
    assert "random, linear probe" in text
    assert "answer of the most similar image" in text
    assert "One trial: 6 shots, random, draw 0, order 0" in text
    assert text.count('<article class="card') == len(queries)
    with browse(page, tmp_path) as browser:
        must_be_readable(browser)


def scored(right: float, draws: int = 4, spread_of_draws: float = 0.02) -> np.ndarray:
    """Scores (draws, 1, 200) with a mean near ``right``."""
    rng = np.random.default_rng(round(1000 * right))
    shares = right + rng.normal(0, spread_of_draws, (draws, 1, 1))
    return (np.random.default_rng(0).random((draws, 1, 200)) < shares).astype(float)


@pytest.mark.parametrize(
    ("shuffled", "text"),
    [
        (0.5, "The images of the shots matter: own ones are better than shuffled ones"),
        (0.71, "No effect of the images of the shots was found"),
        (0.95, "Shuffled images of the shots are better than own ones"),
    ],
)
def test_the_verdict_follows_from_the_interval(shuffled, text):
    points = [
        (Setting(0), "accuracy", scored(0.5)),
        (Setting(8), "accuracy", scored(0.7)),
        (Setting(8, "random", "images_shuffled"), "accuracy", scored(shuffled)),
    ]
    shots, images, control = verdict(points, {"guess": scored(0.9)[:1]}, [str(n) for n in range(200)])
    assert shots.difference.low > 0
    assert images.text.startswith(text)
    assert (images.difference.low > 0) == (shuffled == 0.5)
    assert (images.difference.high < 0) == (shuffled == 0.95)
    assert control.text.startswith("The model is worse than the guess (-")
    assert verdict(points, {}, ["one image"] * 200) == []


def test_an_error_is_better_where_it_is_smaller():
    points = [(Setting(0), "mae", 1 + scored(0.5)), (Setting(8), "mae", scored(0.5))]
    (shots,) = verdict(points, {}, [str(n) for n in range(200)])
    assert shots.text.startswith("8 shots are better than zero shots in mean absolute error (+1.0")


def test_queries_without_targets_are_answered_and_not_scored(labelled):
    queries = [query.without_target() for query in labelled.examples("test")]
    trial = {Trial(0, 0): [Prediction(query.id, "dax") for query in queries]}
    point = point_of(labelled, queries, Setting(2), trial)
    assert (point.means, point.spread, point.scores) == ({}, None, None)
    assert as_record(point)["trials"] == []
