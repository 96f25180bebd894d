"""A bad record is replaced by the same other one, whoever draws it; bad records are counted, listed, and stop a run."""

import json
from collections import Counter
from pathlib import Path

import pytest

from tests.data.test_index import indexed, lines_of
from tests.data.test_web_pages import png
from tests.tiny import question
from vislang.data.bad_records import BadRecords, in_words, read_kinds
from vislang.data.problems import DataError, Problem
from vislang.data.replacing import Draws
from vislang.document import Image, MissingMedium

COUNT = 60
IMAGE = Image(Path("seen.png"))


@pytest.fixture
def examples(tmp_path):
    """Every third record has no image, and every tenth a box outside its image."""
    (tmp_path / "good.png").write_bytes(png("red"))
    records = [
        {"image": "gone.png" if n % 3 == 0 else "good.png", "text": str(n), "box": [0, 0, 99 if n % 10 == 1 else 9, 9]}
        for n in range(COUNT)
    ]
    return indexed(lines_of(tmp_path / "my.jsonl", *records))


def collate(examples, first):
    for example in examples:
        example.media[0].decode()
    return [int(example.text) for example in examples]


def is_good(number):
    return number % 3 != 0 and number % 10 != 1


def test_a_replacement_follows_from_seed_and_position_alone(examples):
    draws = Draws(examples, 7, True)
    whole, problems = draws.batch(range(90), collate)
    assert all(map(is_good, whole))
    order = [int(examples[draws.order[n]].text) for n in range(90)]
    assert [a for a, b in zip(order, whole, strict=True) if is_good(a) and a != b] == []
    parts = [
        Draws(examples, 7, True).batch(range(n, min(90, n + size)), collate)
        for size in (1, 7)
        for n in range(0, 90, size)
    ]
    assert [n for numbers, _ in parts for n in numbers] == whole * 2
    assert {p.line for p in problems} == {p.line for _, found in parts for p in found}
    assert {p.kind for p in problems} == {"missing media", "fields"}
    assert not any(is_good(problem.line - 1) for problem in problems)
    assert Draws(examples, 8, True).batch(range(90), collate)[0] != whole


def test_complementary_pairs_share_a_question():
    examples = [
        question(IMAGE, text, answer) for text in ("is it red?", "is it blue?") for answer in ("no", "no", "no", "yes")
    ]
    drawn, _ = Draws(examples, 7, False, complementary=True).batch(range(40), lambda some, first: list(some))
    for first, second in zip(drawn[::2], drawn[1::2], strict=True):
        assert first.text == second.text
        assert {*first.target.scores, *second.target.scores} == {"yes", "no"}


def test_no_complementary_pairs_can_be_made(examples):
    with pytest.raises(DataError, match="no two training examples have the same question and different answers"):
        Draws(
            [question(IMAGE, "is it red?", "no"), question(IMAGE, "is it blue?", "yes")], 7, False, complementary=True
        )
    with pytest.raises(DataError, match="Raise index_above"):
        Draws(examples, 7, False, complementary=True)


def test_single_examples_are_collated_at_their_index_of_the_batch(tmp_path):
    (tmp_path / "good.png").write_bytes(png("red"))
    names = ["gone.png", *["good.png"] * 9]
    records = indexed(lines_of(tmp_path / "my.jsonl", *({"image": name, "score": 1} for name in names)))
    calls = []

    def collate(some, first):
        calls.append((len(some), first))
        for example in some:
            example.media[0].decode()
        return [example.media[0].name for example in some]

    names, problems = Draws(records, 7, True).batch(range(10), collate)
    assert len(problems) == 1
    assert all(name.endswith("good.png") for name in names)
    # The whole batch fails, each example is tried alone, one with a replacement, and then the good ones succeed.
    assert calls[0] == calls[-1] == (10, 0)
    assert sorted(set(calls[1:-1])) == [(1, index) for index in range(10)]
    assert len(calls) == 13


def test_a_bad_record_that_may_not_be_replaced_is_named(examples):
    with pytest.raises((DataError, MissingMedium), match=r"gone\.png: no such file|my\.jsonl:\d+: \"box\""):
        Draws(examples, 7, False).batch(range(COUNT), collate)


def test_where_all_are_bad_it_ends(tmp_path):
    records = indexed(lines_of(tmp_path / "my.jsonl", {"image": "gone.png", "text": "x"}))
    with pytest.raises(DataError, match=r"100 records in a row are bad\. The last one: .*gone\.png: no such file"):
        Draws(records, 7, True).batch([0], lambda some, first: some[0].media[0].decode())


def problems(*lines, kind="missing media"):
    return [Problem("my.jsonl", line, "gone", kind) for line in lines]


def listed(folder):
    return [json.loads(line) for line in (folder / "bad_records.jsonl").read_text().splitlines()]


def test_bad_records_are_counted_by_kind_and_listed_once(tmp_path):
    bad = BadRecords(skip=True, max_share=0.5)
    bad.add(problems(1, 2, kind="fields"), 100)
    bad.check()
    bad.start(tmp_path)
    bad.replaced(problems(7, 2), 3, 60)
    bad.replaced(problems(8, 7), 5, 100)
    assert bad.kinds == Counter({"fields": 2, "missing media": 2})
    assert read_kinds(tmp_path) == {"fields": 2, "missing media": 2}
    assert in_words(bad.kinds) == "4 bad records (2 fields, 2 missing media)"
    assert [(row["line"], row.get("step", 0)) for row in listed(tmp_path)] == [(1, 0), (2, 0), (7, 3), (8, 5)]
    # A run that is resumed after step 4 is going to replace what it replaced later again.
    resumed = BadRecords(skip=True, max_share=0.5)
    resumed.add(problems(1, 2, kind="fields"), 100)
    resumed.start(tmp_path, done=4)
    assert [row["line"] for row in listed(tmp_path)] == [1, 2, 7]
    resumed.replaced(problems(8), 5, 100)
    assert (resumed.kinds, listed(tmp_path)[-1]["line"]) == (bad.kinds, 8)


def test_without_bad_records_there_is_no_list(tmp_path):
    BadRecords().start(tmp_path)
    assert not list(tmp_path.iterdir())


def test_too_many_bad_records_stop_a_run(tmp_path):
    few = BadRecords(skip=True)
    few.add(problems(*range(10)), 20)
    few.check()
    many = BadRecords(skip=True)
    many.add(problems(*range(11)), 1000)
    with pytest.raises(DataError, match=r"11 of 1,000 records read are bad \(1\.1 %\), more than max_bad_share allows"):
        many.check()
    drawn = BadRecords(skip=True)
    drawn.start(tmp_path)
    drawn.replaced(problems(*range(11)), 50, 1100)
    with pytest.raises(DataError, match=r"12 of 1,100 records drawn are bad .*missing media.*listed in .*bad_records"):
        drawn.replaced(problems(11), 51, 1100)
    strict = BadRecords()
    strict.add(problems(1), 100)
    with pytest.raises(DataError, match=r"1 bad record:\n  my\.jsonl:1: gone"):
        strict.check()
