"""TextVQA."""

import json

import pytest

from tests.tasks.families.family import Bad, Family, doubled, scored
from tests.tasks.official import draw, write
from vislang.metrics.vqa import text_vqa_accuracy, text_vqa_clean, vqa_accuracy


def folder(path):
    """Two questions for each split; those of the test split have no answers."""
    for number, split in enumerate(("train", "val", "test")):
        data = []
        for n, answers in enumerate((["joe's"] * 3 + ["pub"] * 7, ["7:30"] * 10)):
            record = {
                "question": "what is it?",
                "image_id": f"{number}f{n}",
                "image_classes": ["Sign"],
                "image_width": 32,
                "image_height": 32,
                "question_tokens": ["what", "is", "it"],
                "question_id": 10 * number + n,
                "set_name": split,
            }
            data.append(record if split == "test" else {**record, "answers": answers})
            draw(path / ("test_images" if split == "test" else "train_images") / f"{number}f{n}.jpg", n)
        whole = {"dataset_type": split, "dataset_name": "textvqa", "dataset_version": "0.5.1", "data": data}
        write(path / f"TextVQA_0.5.1_{split}.json", whole)


VAL = "TextVQA_0.5.1_val.json"
FAMILY = Family(
    "text-vqa",
    folder,
    ("sent.json", json.dumps([{"question_id": 10, "answer": "joe's"}, {"question_id": 11, "answer": "7:30"}])),
    "text_vqa_results.json",
    {"flamingo": "generate", "vilbert": "decide"},
    (VAL, doubled("data")),
    (
        Bad(VAL, '"data": [', '"items": [', "has no list 'data'"),
        Bad(VAL, '"image_id": "1f1"', '"image_id": null', 'record 2: "image_id" is null, not an identifier'),
        Bad(VAL, '"answers"', '"given"', 'record 1: has no "answers"'),
        Bad(VAL, '"pub"', "5", 'record 1: "answers" is 5, not text'),
        Bad(VAL, '"question_id": 11', '"question_id": "x"', 'record 2: "question_id" is "x", not a whole number'),
    ),
)


@pytest.mark.parametrize(
    ("answer", "cleaned"),
    [
        # By hand through EvalAIAnswerProcessor: lower case, no commas and question marks, " 's", then as for VQA.
        ("Joe's", "joe 's"),
        ("1,000", "1000"),
        ("a b, c?", "b c"),
        ("two-way", "2 way"),
        ("St. John", "st john"),
        ("3.5", "3.5"),
        ("The Dont Walk", "don't walk"),
        ("７,０", "７０"),
    ],
)
def test_the_clean_up_of_the_server(answer, cleaned):
    assert text_vqa_clean(answer) == cleaned


def test_answers_are_cleaned_up_even_if_all_people_agree():
    assert text_vqa_accuracy("The Dog", ["dog"] * 10) == 1
    assert vqa_accuracy("The Dog", ["dog"] * 10) == 0


def test_scores(tmp_path):
    task = FAMILY.opened(tmp_path)
    assert task.default_split == "val"
    assert task.examples("val")[0].target.scores == pytest.approx({"joe 's": 0.9, "pub": 1.0})
    assert scored(task, {"10": "Joe's", "11": None}) == pytest.approx({"accuracy": 0.45})
    assert {example.target for example in task.examples("test")} == {None}
