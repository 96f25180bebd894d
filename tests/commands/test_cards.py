"""Score cards: an evaluation is run again or says what differs; two are compared; a threshold is stored and used."""

from __future__ import annotations

import json
import shutil

import numpy as np
import pytest

from tests import tiny
from vislang.cli import main
from vislang.evaluate.card import _code, hash_of_answers, read_card


@pytest.fixture(scope="module")
def made(tmp_path_factory):
    """A tiny Flamingo, questions about 16 pictures (three about each), and two evaluations of them."""
    folder = tmp_path_factory.mktemp("cards")
    tiny.flamingo(tiny.save_towers(folder, positions=1024)).save(folder / "model")
    for number in range(16):
        tiny.write_picture(folder / f"{number}.png", number)
    records = [
        {
            "image": f"{n // 3}.png",
            "text": ("what color?", "is it red?", "what?")[n % 3],
            "label": ("red", "blue")[n // 3 % 2],
        }
        for n in range(48)
    ]
    (folder / "my.jsonl").write_text("\n".join(map(json.dumps, records)))
    task = ["--task", str(folder / "my.jsonl")]
    assert main(["eval", str(folder / "model"), *task, "--out", str(folder / "a")]) == 0
    shots = ["--shots", "0,2", "--draws", "2", "--limit", "9"]
    assert main(["eval", str(folder / "model"), *task, *shots, "--out", str(folder / "few")]) == 0
    return folder


@pytest.fixture
def work(made, tmp_path):
    """A copy of the evaluations, to change; models and data stay where they are."""
    for name in ("a", "few"):
        shutil.copytree(made / name, tmp_path / name)
    return tmp_path


def error(capsys, *words) -> str:
    assert main(list(map(str, words))) == 2
    captured = capsys.readouterr()
    assert captured.out == ""
    return captured.err


@pytest.mark.parametrize("name", ["a", "few"])
def test_an_evaluation_is_run_again_from_its_card(made, work, capsys, name):
    card = read_card(work / name)
    assert {"data", "scorer", "support", "decoding", "shots", "prompts", "answers", "model", "environment"} <= set(card)
    assert len(card["model"]["fingerprints"]) == 2
    assert [len(shots["ids"]) for shots in card["shots"] if shots["variant"] == "plain"] == (
        [2, 2] * 2 if name == "few" else []
    )
    assert main(["eval", "--like", str(work / name / "card.json"), "--out", str(work / "new")]) == 0
    assert "the same prompts and answers as in the card" in capsys.readouterr().out
    again = read_card(work / "new")
    assert {k: v for k, v in again.items() if k != "environment"} == {
        k: v for k, v in card.items() if k != "environment"
    }
    for file in ("predictions.jsonl", "results.json"):
        assert (work / "new" / file).read_text() == (work / name / file).read_text()


def test_what_differs_is_said(made, work, capsys):
    card = json.loads((work / "a" / "card.json").read_text())

    def changed(**more):
        (work / "a" / "card.json").write_text(json.dumps({**card, **more}))
        return error(capsys, "eval", "--like", work / "a")

    said = changed(data={**card["data"], "sha256": "0" * 64})
    assert "these differ (in the card, now): data.sha256: 000000000000..., " in said
    assert "scorer.version: old, " in changed(scorer={**card["scorer"], "version": "old"})
    model = {**card["model"], "weights_sha256": "1" * 64}
    assert "model.weights_sha256: 111111111111..., " in changed(model=model)
    assert "was not written by vislang eval of this version" in changed(options={"other": 1})
    assert "--limit: not used together with --like" in error(capsys, "eval", "--like", work / "a", "--limit", "3")
    assert "holds the card that is run again" in error(capsys, "eval", "--like", made / "a", "--out", made / "a")
    # Other answers are no error, but a difference.
    (work / "a" / "card.json").write_text(json.dumps({**card, "answers": {"sha256": "2" * 64}}))
    assert main(["eval", "--like", str(work / "a")]) == 1
    assert "not the same as in the card:\n  answers.sha256: 222222222222..., " in capsys.readouterr().out


def rewritten(folder, change, **card):
    """Change the predictions of an evaluation, and its card with them."""
    file = folder / "predictions.jsonl"
    rows = [json.loads(line) for line in file.read_text().splitlines()]
    rows = [change(number, row) for number, row in enumerate(rows)]
    file.write_text("\n".join(map(json.dumps, rows)) + "\n")
    known = json.loads((folder / "card.json").read_text())
    known |= {"answers": {"sha256": hash_of_answers(rows)}, **card}
    (folder / "card.json").write_text(json.dumps(known))


def test_two_evaluations_are_compared_question_by_question(work, capsys):
    shutil.copytree(work / "a", work / "b")
    rows = [json.loads(line) for line in (work / "a" / "predictions.jsonl").read_text().splitlines()]
    wrong = [n for n, row in enumerate(rows) if not row["right"]]
    assert len(wrong) > 12

    def better(number, row):
        return {**row, "answer": "x", "score": 1.0, "right": True} if number in wrong[:12] else row

    rewritten(work / "b", better, decoding={"way": "decide"})
    assert main(["compare", str(work / "a"), str(work / "b"), "--json"]) == 0
    found = json.loads(capsys.readouterr().out)
    (own,) = found["comparisons"]
    assert own["difference"]["value"] == pytest.approx(12 / 48)
    assert own["difference"]["low"] > 0
    assert own["clusters"] == 16
    assert (own["test"]["only_first"], own["test"]["only_second"]) == (0, 12)
    # All twelve are about few images, so the test has fewer units than questions.
    images = len({rows[number]["cluster"] for number in wrong[:12]})
    assert own["test"]["p"] == pytest.approx(2 * 0.5**images)
    assert found["differences"] == {"decoding.way": ["rank", "decide"]}
    assert main(["compare", str(work / "a"), str(work / "b")]) == 0
    said = " ".join(capsys.readouterr().out.split())
    assert "accuracy: B is better than A (+25.0 points" in said
    assert "They also differ in (A, B): decoding.way: rank, decide" in said
    assert main(["compare", str(work / "a"), str(work / "a"), "--json"]) == 0
    (same,) = json.loads(capsys.readouterr().out)["comparisons"]
    assert (same["difference"]["value"], same["test"]["p"]) == (0, 1)


def test_few_shot_evaluations_are_compared_by_setting(work, capsys):
    assert main(["compare", str(work / "few"), str(work / "few"), "--json"]) == 0
    found = json.loads(capsys.readouterr().out)["comparisons"]
    assert {(own["setting"]["shots"], own["setting"]["variant"]) for own in found} > {(0, "plain"), (2, "blind")}
    assert all(own["difference"]["value"] == 0 for own in found)
    assert {own["interval"] for own in found} == {"draws of shots and images"}


def test_evaluations_that_differ_in_what_matters_are_not_compared(work, capsys):
    shutil.copytree(work / "a", work / "b")
    assert "cannot be compared: data.n: 48, 9; data.sha256" in error(capsys, "compare", work / "a", work / "few")
    scorer = {**read_card(work / "b")["scorer"], "version": "other"}
    rewritten(work / "b", lambda number, row: row, scorer=scorer)
    said = error(capsys, "compare", work / "a", work / "b")
    assert "scorer.version: " in said
    assert "Score both again without the models: vislang eval" in said
    # As it says, scoring again makes them comparable.
    for name in ("a", "b"):
        assert main(["eval", str(work / name / "predictions.jsonl"), "--out", str(work / f"{name}2")]) == 0
    capsys.readouterr()
    assert main(["compare", str(work / "a2"), str(work / "b2"), "--json"]) == 0
    assert read_card(work / "a2")["model"] == read_card(work / "a")["model"]
    capsys.readouterr()
    file = work / "a" / "predictions.jsonl"
    file.write_text(file.read_text().replace('"answer": "red"', '"answer": "blue"'))
    assert "is not the file that" in error(capsys, "compare", work / "a", work / "b")
    (work / "b" / "card.json").write_text("{")
    assert "cannot be read as JSON" in error(capsys, "compare", work / "b", work / "a")
    (work / "b" / "card.json").unlink()
    assert "Give the folder of an evaluation (vislang eval --out)" in error(capsys, "compare", work / "b", work / "a")


def test_comments_and_docstrings_do_not_change_a_scorer():
    one = 'def f(x):\n    """A."""\n    return x + 1\n'
    assert _code(one) == _code('def f(x):\n    # More.\n    """B."""\n    return x + 1\n')
    assert _code(one) != _code(one.replace("1", "2"))


def test_a_threshold_is_stored_and_used(made, tmp_path, capsys):
    """The model's own answers are taken as the truth for its surest questions, so that there is something to find."""
    folder = tmp_path / "sure"
    picture = str(made / "0.png")
    words = ["eval", str(made / "model"), "--task", str(made / "my.jsonl"), "--abstain", "0.6"]
    assert main([*words, "--out", str(folder), "--report", str(tmp_path / "page.html"), "--json"]) == 0
    found = json.loads(capsys.readouterr().out)["abstention"]
    assert (found["allowed"], found["probability"], len(found["curve"])) == (0.6, 0.95, 20)
    page = (tmp_path / "page.html").read_text(encoding="utf-8")
    assert "Errors among the surest answers" in page
    assert "<svg" in page

    def threshold(value):
        results = json.loads((folder / "results.json").read_text())
        results["abstention"]["threshold"] = value
        (folder / "results.json").write_text(json.dumps(results))

    ask = ["ask", str(made / "model"), picture, "what color?", "--options", "red,blue", "--abstain", str(folder)]
    threshold(-100.0)
    assert main(ask) == 0
    plain = capsys.readouterr().out
    assert len(plain.splitlines()) == 2
    threshold(0.0)
    assert main(ask) == 0
    said = capsys.readouterr().out
    sure = max(float(line.split()[0]) for line in plain.splitlines())
    assert said.startswith("no answer: its confidence is ")
    assert float(said.split("confidence is ")[1].split(",")[0]) == pytest.approx(sure, abs=1e-3)
    assert "from 1 on at most 60 % of given answers were wrong" in said
    threshold(None)
    assert "no threshold keeps the wrong answers at" in error(capsys, *ask)
    threshold(-1.0)
    assert "way 'rank', not 'generate': give the same answers with --options" in error(capsys, *ask[:4], *ask[6:])
    assert "has no threshold for 1 shots" in error(capsys, *ask, "--shot", picture, "red")
    assert "--beams: not used together with --abstain" in error(capsys, *ask[:4], *ask[6:], "--beams", "2")
    assert "there are no such" not in error(capsys, *ask[:-1], str(tmp_path / "none"))
    other = json.loads((folder / "card.json").read_text())
    other["model"]["weights_sha256"] = "0" * 64
    (folder / "card.json").write_text(json.dumps(other))
    assert "whose weights are not those of" in error(capsys, *ask)
    assert "--abstain is 1.5; it must be between 0 and 1" in error(capsys, *words[:-1], "1.5")


def test_the_confidence_of_generated_answers_is_their_likelihood(made, tmp_path, capsys):
    records = [{"image": f"{n}.png", "question": "what color?", "answer": "red"} for n in range(16)]
    (made / "asked.jsonl").write_text("\n".join(map(json.dumps, records)))
    words = ["--task", str(made / "asked.jsonl"), "--shots", "0,1", "--draws", "1", "--abstain", "0.5"]
    assert main(["eval", str(made / "model"), *words, "--out", str(tmp_path / "out"), "--json"]) == 0
    points = json.loads(capsys.readouterr().out)["points"]
    assert [("abstention" in point) == (point["variant"] == "plain") for point in points] == [True] * len(points)
    rows = [json.loads(line) for line in (tmp_path / "out" / "predictions.jsonl").read_text().splitlines()]
    asked = [row for row in rows if row["variant"] == "plain"]
    assert np.isfinite([row["log_likelihood"] for row in asked]).all()
    assert all(row["log_likelihood"] < 0 for row in asked)
