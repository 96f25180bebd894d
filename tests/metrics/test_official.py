"""Scores equal those of the official programs on thousands of random cases; ``official/record.py`` recorded them."""

import json
import re
from pathlib import Path

import pytest

from tests.metrics.official import cases
from tests.tasks.official import lines, write
from vislang.metrics.captions import bleu, cider_d
from vislang.metrics.navigation import METRICS
from vislang.metrics.ptb import words
from vislang.metrics.vqa import text_vqa_accuracy, vqa_accuracy
from vislang.tasks.benchmarks.gqa import GQA
from vislang.tasks.benchmarks.nlvr2 import NLVR2
from vislang.tasks.benchmarks.r2r import R2R
from vislang.tasks.benchmarks.vqa import VQA


def recorded(name):
    return json.loads((Path(__file__).parent / "official" / f"{name}.json").read_text(encoding="utf-8"))


def scored(task, split, path):
    examples = task.examples(split)
    figures = task.score(examples, task.read_predictions(path, examples))
    return {name: figure.value for name, figure in figures.items()}


def test_accuracy_of_vqa():
    questions, expected = cases.vqa(), recorded("vqa")["questions"]
    assert len(questions) == len(expected) == 3000
    for question, digit in zip(questions, expected, strict=True):
        found = vqa_accuracy(question["prediction"], question["answers"])
        assert round(10 * found, 6) == int(digit, 16), question
    # Every score occurs: the cases tell them apart.
    assert set(expected) == set("0369a")


def test_accuracy_of_vqa_by_type_of_answer(tmp_path):
    questions = cases.vqa()
    asked = [{"question_id": q["question_id"], "image_id": 1, "question": "what?"} for q in questions]
    annotations = [
        {**q, "image_id": 1, "answers": [{"answer": a, "answer_id": n} for n, a in enumerate(q["answers"])]}
        for q in questions
    ]
    write(tmp_path / "v2_OpenEnded_mscoco_val2014_questions.json", {"questions": asked})
    write(tmp_path / "v2_mscoco_val2014_annotations.json", {"annotations": annotations})
    write(tmp_path / "sent.json", [{"question_id": q["question_id"], "answer": q["prediction"]} for q in questions])
    found = scored(VQA(tmp_path), "val2014", tmp_path / "sent.json")
    accuracy = recorded("vqa")["accuracy"]
    expected = {f"accuracy_{re.sub('/', '_', kind)}": value for kind, value in accuracy["perAnswerType"].items()}
    expected["accuracy"] = accuracy["overall"]
    assert {name: round(100 * value, 2) for name, value in found.items()} == expected


def test_accuracy_of_text_vqa():
    questions, expected = cases.vqa(), recorded("text_vqa")
    found = [text_vqa_accuracy(question["prediction"], question["answers"]) for question in questions]
    assert [round(10 * value, 6) for value in found] == [int(digit, 16) for digit in expected["questions"]]
    assert sum(found) / len(found) == pytest.approx(expected["accuracy"], abs=1e-9)
    # The two rules differ.
    assert expected["questions"] != recorded("vqa")["questions"]


def test_words_of_captions():
    expected = recorded("captions")["words"]
    every = cases.every_caption()
    assert len(every) > 6000
    wrong = [
        text
        for number, text in enumerate(every)
        if cases.checksum(words(text)) != expected[4 * number : 4 * number + 4]
    ]
    assert wrong == []


def test_cider_d():
    corpora, expected = cases.captions(), recorded("captions")["cider_d"]
    assert sum(map(len, expected)) == 2040
    for (candidates, references), scores in zip(corpora, expected, strict=True):
        assert cider_d(candidates, references) == pytest.approx(scores, abs=1e-6)


def test_bleu():
    for (candidates, references), scores in zip(cases.captions(), recorded("captions")["bleu"], strict=True):
        found = [bleu(candidates, references, longest) for longest in (1, 2, 3, 4)]
        assert found == pytest.approx(scores, abs=1e-8)


def test_gqa(tmp_path):
    questions = 0
    for number, (case, expected) in enumerate(zip(cases.gqa(), recorded("gqa"), strict=True)):
        folder = tmp_path / str(number)
        write(folder / "val_all_questions.json", case["questions"])
        write(folder / "val_choices.json", case["choices"])
        sent = [{"questionId": name, "prediction": said} for name, said in case["predictions"].items()]
        write(folder / "sent.json", sent)
        found = scored(GQA(folder), "val_all", folder / "sent.json")
        found["distribution"] /= 100
        if "consistency" not in found:
            # Without a correct answer that entails others, the program says 0, and we say nothing.
            assert expected.pop("consistency") == 0
        percent = {name: value / 100 for name, value in expected.items()}
        for kind in ("binary", "open"):
            percent[f"accuracy {kind}"] = percent.pop(kind)
        renamed = {
            name if " " not in name else f"accuracy_{name.removeprefix('accuracy ').replace(' ', '_')}": value
            for name, value in percent.items()
        }
        assert found == pytest.approx(renamed, abs=1e-9)
        questions += len(case["questions"])
    assert questions == 1800


def test_nlvr2(tmp_path):
    sentences = 0
    for (records, sent), expected in zip(cases.nlvr2(), recorded("nlvr2"), strict=True):
        write(tmp_path / "dev.json", lines(records))
        write(tmp_path / "sent.csv", "".join(f"{identifier},{answer}\n" for identifier, answer in sent))
        found = scored(NLVR2(tmp_path), "dev", tmp_path / "sent.csv")
        assert [found["accuracy"], found["consistency"]] == pytest.approx(expected, abs=1e-8)
        sentences += len(records)
    assert sentences > 2000


def test_r2r(tmp_path):
    trajectories = 0
    for building, expected in zip(cases.r2r(), recorded("r2r"), strict=True):
        write(tmp_path / f"{building['paths'][0]['scan']}_connectivity.json", building["connectivity"])
        write(tmp_path / "R2R_val_seen.json", building["paths"])
        write(tmp_path / "sent.json", building["results"])
        found = scored(R2R(tmp_path), "val_seen", tmp_path / "sent.json")
        assert [found[name] for name in METRICS] == pytest.approx(expected, abs=1e-8)
        trajectories += len(building["results"])
    assert trajectories == 1080
