"""VizWiz."""

import json

import pytest

from tests.tasks.families.family import Bad, Family, doubled, scored
from tests.tasks.official import draw, write

GIVEN = (
    (["unanswerable"] * 8 + ["cat"] * 2, "unanswerable", 0),
    (["red"] * 5 + ["unanswerable"] * 5, "other", 1),
    (["yes"] * 10, "yes/no", 1),
)


def folder(path):
    """Three questions for each split: one that cannot be answered, one that half of the people answered."""
    for split in ("train", "val", "test"):
        records = []
        for n, (answers, kind, answerable) in enumerate(GIVEN):
            name = f"VizWiz_{split}_{n:08d}.jpg"
            people = [{"answer_confidence": "yes", "answer": answer} for answer in answers]
            labels = {"answers": people, "answer_type": kind, "answerable": answerable}
            records.append({"image": name, "question": "what is it?", **({} if split == "test" else labels)})
            draw(path / split / name, n)
        write(path / "Annotations" / f"{split}.json", records)


VAL = "Annotations/val.json"
SENT = [{"image": f"VizWiz_val_{n:08d}.jpg", "answer": a} for n, a in enumerate(("unanswerable", "blue", "yes"))]
FAMILY = Family(
    "viz-wiz",
    folder,
    ("sent.json", json.dumps(SENT)),
    "viz_wiz_results.json",
    {"flamingo": "generate", "vilbert": "decide"},
    (VAL, doubled()),
    (
        Bad(VAL, '"answerable": 0', '"answerable": 0.5', 'record 1: "answerable" is 0.5, neither 0 nor 1'),
        Bad(VAL, '"answerable": 1', '"answerable": true', 'record 2: "answerable" is True'),
        Bad(VAL, '"answer_type": "other"', '"answer_type": "others"', "record 2: 'others' is none of yes/no, number"),
        Bad(VAL, '"answers"', '"given"', 'record 1: has no "answers"'),
        Bad(VAL, '"image"', '"picture"', 'record 1: has no "image"'),
    ),
)


def test_unanswerable_questions_are_scored_like_the_others(tmp_path):
    task = FAMILY.opened(tmp_path)
    names = [f"VizWiz_val_{n:08d}.jpg" for n in range(3)]
    found = scored(task, dict(zip(names, ("cat", "red", None), strict=True)))
    # "cat": two of ten said so, (2 * 1 + 8 * 2) / 3 / 10. "red": five of ten, always 1.
    assert found == pytest.approx(
        {
            "accuracy": (0.6 + 1 + 0) / 3,
            "accuracy_unanswerable": 0.6,
            "accuracy_other": 1.0,
            "accuracy_yes_no": 0.0,
            # It says that the first two can be answered: one of two is right, and one of two found.
            "f1_answerable": 0.5,
        }
    )
    found = scored(task, dict(zip(names, ("Unanswerable.", "unanswerable", "yes"), strict=True)))
    assert found["accuracy"] == 1
    assert found["f1_answerable"] == pytest.approx(2 / 3)
