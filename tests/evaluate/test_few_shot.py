"""Few-shot evaluation: what stands in the prompt, and that reading shared shots once changes nothing."""

import json

import pytest
import torch
from vislang.data.example import Example
from vislang.evaluate.answering import shots_of

from tests import tiny
from tests.browser import browse
from vislang import cli
from vislang.document import Absent, Document, EndOfChunk, Image
from vislang.evaluate.few_shot import (
    TEXT_SHOTS,
    Setting,
    evaluate_point,
    likeness_of,
    most_frequent,
    nearest_answers,
)
from vislang.prompt import Prompts
from vislang.tasks.few_shot import FewShotTask, captions, limited, of_examples, right


@pytest.fixture
def task(pictures):
    examples = [
        Example(f"e{n}", ("blue" if n % 2 else "red",), Image(pictures / f"{n}.png"), "what color?") for n in range(24)
    ]
    return FewShotTask("colours", examples[:14], examples[14:], right, ("red", "blue"))


class Recorder:
    """A model that answers with what stands in its prompt, and remembers the prompts."""

    prompts = Prompts()

    def __init__(self):
        self.seen, self.readings = [], 0

    def read(self, document):
        self.readings += 1
        return document

    def generate(self, documents, max_new_tokens=20, batch_size=64, after=None):
        begun = after.parts if after is not None else ()
        self.seen += [Document([*begun, *document.parts]) for document in documents]
        return ["red"] * len(documents)


def written(task):
    return FewShotTask(task.name, task.support, task.queries, task.score)


def images(document):
    return [part for part in document.parts if isinstance(part, Image)]


def test_drawn_shots_are_the_same_for_all_questions_of_a_seed_and_read_once(task):
    model = Recorder()
    point = evaluate_point(model, written(task), Setting(4), [0, 1, 2], batch_size=3)
    assert model.readings == 3
    assert len(model.seen) == 30
    shots = {tuple(images(document)[:-1]) for document in model.seen}
    assert len(shots) == 3
    support = {example.image for example in task.support}
    for document in model.seen:
        assert len(images(document)) == 5
        assert set(images(document)[:-1]) <= support
        assert images(document)[-1] not in support
        assert document.parts.count(EndOfChunk()) == 4
    assert point.seeds == {seed: {"accuracy": 0.5} for seed in range(3)}
    assert (point.means["accuracy"].value, point.queries) == (0.5, 10)


def test_zero_shots_are_two_of_words_alone(task):
    model = Recorder()
    evaluate_point(model, written(task), Setting(0), [0])
    for document in model.seen:
        assert len(images(document)) == 1
        assert document.parts.count(EndOfChunk()) == TEXT_SHOTS
        assert document.parts[:3] == ("Question: what color? Answer:", document.parts[1], EndOfChunk())


def test_retrieved_shots_are_the_most_similar_the_best_last(task):
    model = Recorder()
    likeness = torch.rand(10, 14)
    evaluate_point(model, written(task), Setting(3, "retrieved"), [0], likeness, batch_size=4)
    assert model.readings == 0
    for document, row in zip(model.seen, likeness, strict=True):
        expected = [task.support[place].image for place in row.argsort()[-3:].tolist()]
        assert images(document)[:-1] == expected


def test_blind_prompts_keep_the_places_of_images(task):
    model = Recorder()
    evaluate_point(model, written(task), Setting(2, blind=True), [0])
    assert all(not images(document) and document.parts.count(Absent()) == 3 for document in model.seen)


def test_shots_that_are_read_once_answer_as_whole_prompts_do(towers, task):
    model = tiny.flamingo(towers)
    point = evaluate_point(model, task, Setting(3, orders=2), [5], batch_size=4)
    # The same by hand: each question after all shots, in both orders.
    import random

    chance = random.Random("3 5")
    shots = shots_of(chance.sample(list(task.support), 3))
    orders = [shots, chance.sample(shots, 3)]
    hits = 0
    for query in task.queries:
        likely = torch.zeros(2)
        for order in orders:
            (own,) = model.rank([query.prompt(model.prompts, order)], task.options)
            likely += torch.tensor([score.log_likelihood for score in own])
        hits += task.options[int(likely.argmax())] == query.target
    assert point.seeds[5]["accuracy"] == hits / 10


def test_the_most_similar_image_is_found_by_the_vision_tower(towers, task):
    likeness = likeness_of(tiny.flamingo(towers), task)
    assert likeness.shape == (10, 14)
    assert likeness.max() <= 1 + 1e-5
    colours = nearest_answers(task, likeness)
    assert sum(said == query.target for said, query in zip(colours, task.queries, strict=True)) >= 9
    assert most_frequent(task.support[:3]) == "red"


@pytest.mark.parametrize(
    ("setting", "message"),
    [
        (Setting(2, "retrieved"), "need the likeness"),
        (Setting(2, orders=2), "only ranked answers"),
        (Setting(15), "there are 14 to draw from"),
    ],
)
def test_settings_that_cannot_be_are_refused(task, setting, message):
    with pytest.raises(ValueError, match=message):
        evaluate_point(Recorder(), written(task), setting, [0])


def test_captions_are_scored_in_four_ways(task):
    figures = captions(["red"] * 10, task.queries)
    assert figures["exact match"].value == 0.5 == pytest.approx(figures["BLEU-1"])
    assert figures["CIDEr-D"].low < figures["CIDEr-D"].value < figures["CIDEr-D"].high


def test_no_image_of_own_examples_is_on_both_sides_and_its_captions_are_one_question(pictures):
    """Under other names and in other orders alike."""

    def examples(folder):
        asked = [Example("q", ("red",), Image(folder / f"{n}.png"), f"{k}?") for n in range(6) for k in range(5)]
        captioned = [Example("c", (f"{k}",), Image(folder / f"{n}.png")) for n in range(6, 12) for k in range(5)]
        return [*asked, *captioned]

    own = of_examples("mine", examples(pictures), 100)
    sides = [{example.image.content_hash for example in side} for side in (own.queries, own.support)]
    assert len(sides[0]) == len(sides[1]) == 6
    assert not sides[0] & sides[1]
    for example in (*own.queries, *own.support):
        assert len(example.references) == (1 if example.question else 5)
    (pictures / "other").mkdir()
    for n in range(12):
        (pictures / "other" / f"{n}.png").write_bytes((pictures / f"{n}.png").read_bytes())
    again = of_examples("mine", examples(pictures / "other")[::-1], 100)
    assert {example.image.content_hash for example in again.queries} == sides[0]
    few = of_examples("mine", examples(pictures), 7)
    assert 0 < len(few.queries) <= 7


def test_of_one_question_cider_is_left_out(task):
    assert set(captions(["red"], task.queries[:1])) == {"exact match", "BLEU-1", "BLEU-2"}


def test_a_task_of_own_examples_is_split_by_hash(task):
    examples = [*task.support, *task.queries]
    own = of_examples("mine", examples, 6)
    again = of_examples("mine", examples[::-1], 6)
    assert [query.name for query in own.queries] == [query.name for query in again.queries]
    assert len(own.queries) == 6
    assert not {e.name for e in own.queries} & {e.name for e in own.support}
    assert own.score is right
    assert len(limited(own, 2, 0).queries) == 2


@pytest.fixture
def saved(towers, pictures):
    tiny.flamingo(towers).save(pictures / "model")
    return str(pictures / "model")


def test_the_command_prints_a_table_and_writes_a_page(saved, pictures, capsys, tmp_path):
    page = pictures / "curves.html"
    assert cli.main(["eval", saved, "--task", "easy-vqa", "--shots", "0", "--report", "none/x.html"]) == 2
    assert "there is no folder none" in capsys.readouterr().err
    data = str(pictures / "my.jsonl")
    status = cli.main(
        ["eval", saved, "--data", data, "--shots", "4,0,2", "--seeds", "2", "--select", "both", "--report", str(page)]
    )
    assert status == 0
    shown = " ".join(capsys.readouterr().out.split())
    assert "similar" in shown
    assert "retrieved" in shown
    with browse(page, tmp_path) as browser:
        assert len(browser.find_elements("css selector", "#figures tr")) == 1 + 3 + 2 + 3
        assert len(browser.find_elements("css selector", ".plots svg")) == 1
        assert browser.find_elements("css selector", "#baselines tr")


def test_the_command_as_json(saved, pictures, capsys):
    assert (
        cli.main(["eval", saved, "--data", str(pictures / "my.jsonl"), "--shots", "0,2", "--seeds", "2", "--json"]) == 0
    )
    found = json.loads(capsys.readouterr().out)
    assert [(point["shots"], point["blind"]) for point in found["points"]] == [
        (0, False),
        (2, False),
        (0, True),
        (2, True),
    ]
    for point in found["points"]:
        mean = point["means"]["accuracy"]
        assert mean["low"] <= mean["value"] <= mean["high"]
        assert len(point["seeds"]) == 2


@pytest.mark.parametrize("option", ["split", "head", "write"])
def test_what_a_model_that_writes_does_not_go_by_is_refused(saved, capsys, option):
    assert cli.main(["eval", saved, "--task", "easy-vqa", f"--{option}", "x"]) == 2
    assert f"--{option}: easy-vqa" in capsys.readouterr().err


def test_zero_shots_of_two_examples_are_one_too_many(saved, pictures, capsys):
    lines = (pictures / "my.jsonl").read_text().splitlines()[:2]
    (pictures / "two.jsonl").write_text("\n".join(lines))
    assert cli.main(["eval", saved, "--data", str(pictures / "two.jsonl"), "--shots", "0"]) == 2
    assert "1 examples to draw from (zero shots are 2 without their images)" in " ".join(
        capsys.readouterr().err.split()
    )


def test_retrieved_shots_start_from_none_and_bad_records_are_counted(saved, pictures, capsys):
    lines = (pictures / "my.jsonl").read_text().splitlines()
    (pictures / "some.jsonl").write_text("\n".join([*lines, "no json"]))
    data = ["--data", str(pictures / "some.jsonl"), "--skip-bad-records"]
    assert cli.main(["eval", saved, *data, "--shots", "2,0", "--select", "retrieved", "--json"]) == 0
    found = json.loads(capsys.readouterr().out)
    settings = [(point["shots"], point["select"], point["blind"]) for point in found["points"]]
    assert settings == [(0, "random", False), (2, "retrieved", False), (0, "random", True), (2, "random", True)]
    assert found["bad_records"] == 1


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["--shots", "four"], "write numbers with commas"),
        (["--shots", "-1"], "must not be negative"),
        (["--shots", "99"], "examples to draw from"),
        (["--shots", "2", "--orders", "3"], "only ranked answers"),
        (["--shots", "2", "--limit", "-5"], "'-5' is no whole number"),
    ],
)
def test_what_cannot_be_asked_is_refused_in_a_line(saved, pictures, capsys, options, message):
    try:
        status = cli.main(["eval", saved, "--data", str(pictures / "my.jsonl"), *options])
    except SystemExit as stopped:
        status = stopped.code
    assert status == 2
    error = capsys.readouterr().err
    assert message in error
    assert "Traceback" not in error
