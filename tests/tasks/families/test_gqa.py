"""GQA."""

import json

import pytest

from tests.tasks.families.family import Bad, Family, scored, values
from tests.tasks.official import draw, write
from vislang.example import Prediction
from vislang.tasks.benchmarks.gqa import distribution


def question(image, answer, structural="query", semantic="attr", balanced=True, entailed=(), detailed="colorWhat"):
    return {
        "semantic": [{"operation": "select", "dependencies": [], "argument": "cat (1)"}],
        "entailed": list(entailed),
        "equivalent": [],
        "question": "what color?",
        "imageId": image,
        "isBalanced": balanced,
        "groups": {"global": "color" if structural == "query" else None, "local": "06-cat_color"},
        "answer": answer,
        "semanticStr": "select: cat (1)",
        "annotations": {"answer": {}, "question": {}, "fullAnswer": {}},
        "types": {"detailed": detailed, "semantic": semantic, "structural": structural},
        "fullAnswer": f"It is {answer}.",
    }


def folder(path):
    """Of ``val`` four questions, three of them balanced; of ``train`` two."""
    questions = {
        "201": question("7", "red", entailed=["201", "204"]),
        "202": question("7", "yes", "verify", "obj", entailed=["201", "204"]),
        "203": question("8", "color", "compare", "attr", detailed="twoCommon"),
        "204": question("8", "no", "verify", "rel", balanced=False, entailed=["203"]),
    }
    write(path / "val_all_questions.json", questions)
    write(path / "val_balanced_questions.json", {k: q for k, q in questions.items() if q["isBalanced"]})
    write(path / "train_balanced_questions.json", {f"1{k[1:]}": q for k, q in questions.items() if q["isBalanced"]})
    choices = {"valid": ["red", "blue"], "plausible": ["red"]}
    others = {"202": ["yes", "no"], "203": ["cat"]}
    write(path / "val_choices.json", {"201": choices} | {k: {"valid": v, "plausible": v} for k, v in others.items()})
    for image in "78":
        draw(path / "images" / f"{image}.jpg", int(image))


def sent(**answers):
    return json.dumps([{"questionId": name, "prediction": answer} for name, answer in answers.items()])


def again(text):
    """The first question once more, under the same id."""
    name, record = next(iter(json.loads(text).items()))
    return f'{{"{name}": {json.dumps(record)}, {text[1:]}'


VAL = "val_balanced_questions.json"
FAMILY = Family(
    "gqa",
    folder,
    ("sent.json", sent(**{"201": "red", "202": "no", "203": "blue"})),
    "gqa_predictions.json",
    {"flamingo": "generate", "vilbert": "decide"},
    (VAL, again),
    (
        Bad(VAL, '"imageId": "7"', '"imageId": null', 'record 1: question 201: "imageId" is null'),
        Bad(VAL, '"isBalanced": true', '"isBalanced": 1', 'question 201: "isBalanced" is 1, neither true nor false'),
        Bad(VAL, '"global": "color"', '"global": 5', '"groups" has the global group 5'),
        Bad(VAL, '"entailed": ["201", "204"]', '"entailed": [204]', '"entailed" is 204, not text'),
        Bad("val_all_questions.json", '["201", "204"]', '["999"]', "question 201 entails 999, which is not there"),
        Bad("val_choices.json", '"202"', '"222"', r"question 202: has no choices in val_choices\.json"),
        Bad("val_choices.json", '"plausible"', '"likely"', 'the choices of question 201: has no "plausible"'),
    ),
)


def test_figures_of_the_official_program(tmp_path):
    """By hand through eval.py: consistency over questions with entailed ones that are answered correctly."""
    task = FAMILY.opened(tmp_path)
    assert (task.default_split, task.support_split) == ("val_balanced", "train_balanced")
    found = scored(task, {"201": "red", "202": "no", "203": "shape", "204": "no"}, "val_all")
    assert found == pytest.approx(
        {
            # 201 is right; 202 is wrong; 203 is wrong, but what objects have in common may be a shape.
            "accuracy": 1 / 3,
            "accuracy_open": 1.0,
            "accuracy_binary": 0.0,
            "accuracy_structural_query": 1.0,
            "accuracy_structural_verify": 0.0,
            "accuracy_structural_compare": 0.0,
            "accuracy_semantic_attr": 0.5,
            "accuracy_semantic_obj": 0.0,
            "validity": 1.0,
            "plausibility": 1.0,
            "distribution": 0.0,
            # 201 entails itself, which does not count, and 204, which is right though it is not balanced.
            "consistency": 1.0,
        }
    )
    found = scored(task, {"201": "red", "202": "yes", "203": "cat", "204": "yes"}, "val_all")
    # 201: its one entailed question is wrong. 202: 201 right, 204 wrong.
    assert found["consistency"] == pytest.approx((0 + 0.5) / 2)
    assert found["validity"] == pytest.approx(2 / 3)
    balanced = scored(task, {"201": "blue", "202": "yes", "203": "cat"})
    # The entailed 204 is not among them.
    assert "consistency" not in balanced
    assert balanced["plausibility"] == pytest.approx(1 / 3)


def test_chi_square_of_answers():
    """Group a: red 3 times, said once: (1 - 3)^2 / 3; blue once, said once. Group b: correct. Weighted by size."""
    answers = [("a", "red", "red"), ("a", "red", "green"), ("a", "red", None), ("a", "blue", "blue"), ("b", "x", "x")]
    assert distribution(answers).value == pytest.approx((4 * (4 / 3 + 0) + 0) / 5 / 100)


def test_training_questions_in_a_folder_of_files(tmp_path):
    for n in range(2):
        write(tmp_path / "train_all_questions" / f"train_all_questions_{n}.json", {f"{n}": question(f"{n}", "red")})
    task = type(FAMILY.opened(tmp_path / "other"))(tmp_path)
    assert task.splits == ("train_all",)
    assert [example.id for example in task.examples("train_all")] == ["0", "1"]


def test_without_choices_there_is_no_validity(tmp_path):
    task = FAMILY.opened(tmp_path)
    (tmp_path / "val_choices.json").unlink()
    examples = task.examples("val_balanced")
    found = values(task.score(examples, [Prediction(e.id, "red") for e in examples]))
    assert "validity" not in found
    assert found["accuracy"] == pytest.approx(1 / 3)
