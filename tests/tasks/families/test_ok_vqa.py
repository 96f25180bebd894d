"""OK-VQA."""

import json

import pytest

from tests.tasks.families.family import Bad, Family, doubled, scored
from tests.tasks.official import draw, write


def folder(path):
    """Two questions of two categories for each split; five people, each of whose answers is there twice."""
    for split, image in (("train2014", 4), ("val2014", 9)):
        asked = [
            {"image_id": image, "question": "what is it?", "question_id": 10 * image},
            {"image_id": image, "question": "who made it?", "question_id": 10 * image + 1},
        ]
        given = (["red"] * 4 + ["blue"] * 6, ["cat"] * 10)
        annotations = [
            {
                **{key: question[key] for key in ("image_id", "question_id")},
                "answer_type": "other",
                "question_type": category,
                "answers": [
                    {"answer_id": n, "raw_answer": f"{a}s", "answer_confidence": "yes", "answer": a}
                    for n, a in enumerate(answers, start=1)
                ],
            }
            for question, category, answers in zip(asked, ("four", "one"), given, strict=True)
        ]
        names = {"one": "Vehicles and Transportation", "four": "Sports and Recreation"}
        write(path / f"OpenEnded_mscoco_{split}_questions.json", {"data_subtype": split, "questions": asked})
        write(path / f"mscoco_{split}_annotations.json", {"annotations": annotations, "question_types": names})
        draw(path / split / f"COCO_{split}_{image:012d}.jpg", image)


VAL = "mscoco_val2014_annotations.json"
FAMILY = Family(
    "ok-vqa",
    folder,
    ("sent.json", json.dumps([{"question_id": 90, "answer": "red"}, {"question_id": 91, "answer": "a cat"}])),
    "ok_vqa_results.json",
    {"flamingo": "generate", "vilbert": "decide"},
    ("OpenEnded_mscoco_val2014_questions.json", doubled("questions")),
    (
        Bad(
            "mscoco_val2014_annotations.json",
            '"four", "answers"',
            '"five", "answers"',
            "record 1: 'five' is none of one, four",
        ),
        Bad(VAL, '"question_types"', '"types"', 'record 1: has no "question_types"'),
        Bad(
            "mscoco_val2014_annotations.json",
            '"question_id": 91',
            '"question_id": 92',
            "question 91 has no annotation|record 2",
        ),
    ),
)


def test_scores_are_those_of_vqa_and_by_category(tmp_path):
    task = FAMILY.opened(tmp_path)
    # Four of ten gave it: leaving one of the four out, three are left. All ten agree on "cat", so nothing is cleaned.
    found = scored(task, {"90": "red", "91": "a cat"})
    assert found == pytest.approx(
        {"accuracy": 0.5, "accuracy_sports_and_recreation": 1.0, "accuracy_vehicles_and_transportation": 0.0}
    )
