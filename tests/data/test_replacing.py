"""A bad record is replaced by the same other one, whoever draws it; bad records are counted, listed, and stop a run."""

import json
from collections import Counter

import pytest

from tests.data.test_index import indexed, lines_of
from tests.data.test_web_pages import png
from vislang.data.bad_records import BadRecords
from vislang.data.problems import DataError, Problem
from vislang.data.replacing import Batches
from vislang.document import MissingMedium

COUNT = 60


@pytest.fixture
def examples(tmp_path):
    """Every third record has no image, and every tenth a box outside its image."""
    (tmp_path / "good.png").write_bytes(png("red"))
    records = [
        {"image": "gone.png" if n % 3 == 0 else "good.png", "text": str(n), "box": [0, 0, 99 if n % 10 == 1 else 9, 9]}
        for n in range(COUNT)
    ]
    return indexed(lines_of(tmp_path / "my.jsonl", *records))


def collate(examples, seed):
    for example in examples:
        example.media[0].decode()
    return [int(example.text) for example in examples], seed


def is_good(number):
    return number % 3 != 0 and number % 10 != 1


def test_what_stands_in_follows_from_seed_and_position_alone(examples):
    whole, problems = Batches(examples, collate, 7, True).batch(range(90), 5)
    assert whole[1] == 5
    assert all(map(is_good, whole[0]))
    order = [int(examples[Batches(examples, collate, 7, True).order[n]].text) for n in range(90)]
    assert [a for a, b in zip(order, whole[0], strict=True) if is_good(a) and a != b] == []
    parts = [
        Batches(examples, collate, 7, True).batch(range(n, min(90, n + size)), 5)
        for size in (1, 7)
        for n in range(0, 90, size)
    ]
    assert [n for (numbers, _), _ in parts for n in numbers] == whole[0] * 2
    assert {p.line for p in problems} == {p.line for _, found in parts for p in found}
    assert {p.kind for p in problems} == {"missing media", "fields"}
    assert all(not is_good(problem.line - 1) for problem in problems)
    other, _ = Batches(examples, collate, 8, True).batch(range(90), 5)
    assert other != whole


def test_a_bad_record_that_may_not_be_replaced_is_named(examples, tmp_path):
    with pytest.raises((DataError, MissingMedium), match=r"gone\.png: no such file|my\.jsonl:\d+: \"box\""):
        Batches(examples, collate, 7, False).batch(range(COUNT), 5)


def test_where_all_are_bad_it_ends(tmp_path):
    records = indexed(lines_of(tmp_path / "my.jsonl", {"image": "gone.png", "text": "x"}))
    with pytest.raises(DataError, match=r"100 records in a row are bad\. The last one: .*gone\.png: no such file"):
        Batches(records, lambda e, seed: e[0].media[0].decode(), 7, True).batch([0], 5)


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
    assert bad.summary() == "4 bad records (2 fields, 2 missing media)"
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
