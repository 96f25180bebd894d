"""Records that stay in their files: the same as those read into memory, in any order, without taking memory."""

import json
import os
import pickle
import tracemalloc
from pathlib import Path

import pytest

from tests.data.test_tars import write as write_tar
from tests.data.test_web_pages import obelics_records, png
from vislang.data import index
from vislang.data.index import IndexedFile
from vislang.data.indexed import Indexed, joined, with_good_media
from vislang.data.jsonl import JsonLines, own_records, read_jsonl
from vislang.data.parquet import own_rows
from vislang.data.problems import DataError
from vislang.data.record_file import read_all
from vislang.data.sources import open_source
from vislang.data.split import hold_out_indexed
from vislang.data.tars import TarOfPairs
from vislang.data.web_pages import mmc4, obelics
from vislang.document import Document
from vislang.example import Example, Label


def lines_of(path, *records):
    path.write_text("".join(json.dumps(record) + "\n" for record in records), encoding="utf-8")
    return path


def indexed(path) -> Indexed:
    return Indexed([IndexedFile(own_records(str(path)))])


@pytest.fixture
def folder(tmp_path):
    for name, colour in (("0", "red"), ("1", "blue")):
        (tmp_path / f"{name}.png").write_bytes(png(colour))
    return tmp_path


@pytest.fixture
def here(folder, monkeypatch):
    """The folder by a relative path, so that names and their hashes are the same each time."""
    monkeypatch.chdir(folder)
    return Path(".")


def json_lines(folder):
    first, second = ({"image": f"{n}.png", "text": f"caption {n} é"} for n in range(2))
    path = folder / "my.jsonl"
    # A byte order mark, blank lines, a bad record, and no end of line at the end.
    text = "\ufeff" + "\n\n".join([json.dumps(first), '{"image": 3}', json.dumps(second, ensure_ascii=False)])
    path.write_text(text, encoding="utf-8")
    return own_records(str(path))


def parquet(folder):
    import pyarrow
    import pyarrow.parquet

    rows = [
        {"image": {"bytes": png("red"), "path": None}, "text": "in the file", "label": None},
        {"image": {"bytes": None, "path": "1.png"}, "text": None, "label": "blue"},
    ]
    # More rows than are read together.
    pyarrow.parquet.write_table(pyarrow.Table.from_pylist(rows * 150), folder / "my.parquet", row_group_size=70)
    return own_rows(str(folder / "my.parquet"))


def tar(folder):
    members = {
        f"{n}{ending}": content for n in range(3) for ending, content in ((".png", png("red")), (".txt", b"words"))
    }
    return TarOfPairs(str(write_tar(folder / "my.tar", members)))


def pages(folder):
    info = {"image_name": "0.png", "matched_text_index": 0}
    path = lines_of(
        folder / "mmc4.jsonl",
        {"text_list": ["no image"], "image_info": []},
        {"text_list": ["one"], "image_info": [info]},
    )
    return mmc4(str(path))


def pages_in_parquet(folder):
    import pyarrow
    import pyarrow.parquet

    pyarrow.parquet.write_table(pyarrow.Table.from_pylist(obelics_records()[1:]), folder / "pages.parquet")
    return obelics(str(folder / "pages.parquet"))


@pytest.mark.parametrize("made", [json_lines, parquet, tar, pages, pages_in_parquet])
def test_any_record_is_the_one_that_is_read_into_memory(folder, made):
    file = made(folder)
    problems = []
    wanted = read_all(file, problems)
    found = IndexedFile(file)
    assert len(found) == len(wanted)
    assert [found[n] for n in reversed(range(len(found)))] == wanted[::-1]
    assert list(found.problems()) == problems
    assert found.faults.total() == len(problems)
    again = pickle.loads(pickle.dumps(found))
    assert again[len(again) - 1] == wanted[-1]


def test_an_index_is_made_once_and_again_after_a_change(folder, monkeypatch):
    file = json_lines(folder)
    IndexedFile(file)
    scan = JsonLines.scan
    monkeypatch.setattr(JsonLines, "scan", None)
    found = IndexedFile(file)
    assert len(found) == 2
    monkeypatch.setattr(JsonLines, "scan", scan)
    with file.path.open("a") as more:
        more.write("\n" + json.dumps({"image": "0.png", "text": "more"}))
    assert len(IndexedFile(file)) == 3
    with pytest.raises(DataError, match=r"my\.jsonl: the file was changed or removed"):
        found[0]


def test_a_record_that_is_another_now_is_an_error(folder):
    path = lines_of(folder / "my.jsonl", {"image": "0.png", "text": "one"})
    found, before = indexed(path), path.stat()
    path.write_text(path.read_text().replace('"', "'"))
    os.utime(path, ns=(before.st_atime_ns, before.st_mtime_ns))
    with pytest.raises(DataError, match="was changed or removed"):
        found[0]


def test_files_that_cannot_be_indexed(folder, monkeypatch):
    monkeypatch.setattr(index, "FIRST", 10)
    path = lines_of(folder / "my.jsonl", {"text": "x", "label": "y"}, *({"txt": "x"} for _ in range(10)))
    with pytest.raises(DataError, match=r"9 of the first 10 records are bad\. The last one: .*my\.jsonl:10: unknown"):
        indexed(path)
    path.write_text("\n\n")
    with pytest.raises(DataError, match="contains no records"):
        indexed(path)
    with pytest.raises(DataError, match=r"none\.jsonl: cannot be read"):
        indexed(folder / "none.jsonl")


def test_unknown_columns_of_parquet_are_named(folder):
    import pyarrow
    import pyarrow.parquet

    pyarrow.parquet.write_table(pyarrow.Table.from_pylist([{"text": "x", "lable": "y"}]), folder / "my.parquet")
    with pytest.raises(DataError, match=r'my\.parquet: unknown column "lable"\. Is "label" meant\?'):
        open_source(str(folder / "my.parquet"))


def test_sources_are_indexed_above_a_number_of_records(folder):
    lines_of(folder / "a.jsonl", *({"text": str(n), "label": "a"} for n in range(3)))
    lines_of(folder / "b.jsonl", *({"text": str(n), "label": "b"} for n in range(2)))
    spec = f"{folder}/*.jsonl"
    small, long = open_source(spec, index_above=5), open_source(spec, index_above=4)
    assert isinstance(small, list)
    assert isinstance(long, Indexed)
    assert list(long) == small
    assert isinstance(open_source(spec, index_above=4, indexed=False), list)
    assert isinstance(open_source(spec, indexed=True), Indexed)
    pairs = open_source(f"captions:{lines_of(folder / 'c.jsonl', {'image': '0.png', 'text': 'x'})}", indexed=True)
    assert len(pairs) == 1
    with pytest.raises(DataError, match="not a caption"):
        open_source(f"captions:{folder}/a.jsonl")
    assert open_source(f"captions:{folder}/a.jsonl", indexed=True).faults == {"fields": 3}


def test_parts_of_a_sequence(folder):
    first = lines_of(folder / "a.jsonl", *({"text": f"a {n}", "label": "x"} for n in range(4)))
    second = lines_of(folder / "b.jsonl", *({"text": f"b {n}", "label": "x"} for n in range(3)))
    listed = [Example("l", Document(["l 0"]), Label("x"))]
    whole = joined([indexed(first), listed, indexed(second)])
    texts = ["a 0", "a 1", "a 2", "a 3", "l 0", "b 0", "b 1", "b 2"]
    assert [e.text for e in whole] == texts
    left = whole.without([1, 4, 5])
    rest = ["a 0", "a 2", "a 3", "b 1", "b 2"]
    assert [left[n].text for n in range(5)] == rest
    assert (left[-1].text, len(left)) == ("b 2", 5)
    assert [e.text for e in left[1:4]] == rest[1:4]
    assert [e.text for e in left[1:][1:]] == rest[2:]
    assert [e.text for e in left[:2].map(lambda e: Example(e.id, Document([e.text.upper()])))] == ["A 0", "A 2"]
    assert left[2:100][0].text == "a 3"
    with pytest.raises(IndexError):
        left[5]
    assert joined([listed, listed]) == listed * 2


def test_a_sample_is_spread_evenly_and_has_every_label(folder):
    records = [{"text": f"t {n}", "label": "rare" if n == 777 else "common"} for n in range(1000)]
    whole = indexed(lines_of(folder / "a.jsonl", *records))
    sample = whole.sample(200)
    assert [e.text for e in sample] == [f"t {n}" for n in (*range(100), *range(500, 600), 777)]
    assert len(whole.sample(1000)) == 1000


def test_what_is_held_out_shares_no_medium(here):
    records = [{"image": f"{n // 3}.png", "text": f"t {n}"} for n in range(900)]
    whole = indexed(lines_of(here / "a.jsonl", *records))
    learned, held = hold_out_indexed(whole, 0.2)
    names = [{e.media[0].name for e in side} for side in (learned, held)]
    assert not names[0] & names[1]
    assert len(names[0] | names[1]) == 300
    assert len(learned) + len(held) == 900
    assert 0.1 < len(held) / 900 < 0.3
    assert hold_out_indexed(whole, 0.2)[1] == held
    assert hold_out_indexed(whole, 0)[1] == []
    few = hold_out_indexed(whole, 0.2, most=9)[1]
    assert 3 <= len(few) <= 30
    assert {e.id for e in few} < {e.id for e in held}
    # Of each image all records are held out, or none: so at least three are.
    assert len(hold_out_indexed(whole, 1e-9)[1]) == 3


def test_pages_that_share_an_image_are_on_one_side(here):
    # Page n shares an image with pages n - 1 and n + 1 of its chain of ten.
    records = [
        {"images": [f"{n // 10}-{n % 10}.png", f"{n // 10}-{n % 10 + 1}.png"], "text": "x", "label": "y"}
        for n in range(400)
    ]
    records += [{"images": [f"alone-{n}.png", f"alone-{n}.png"], "text": "x", "label": "y"} for n in range(100)]
    learned, held = hold_out_indexed(indexed(lines_of(here / "a.jsonl", *records)), 0.5)
    names = [{medium.name for e in side for medium in e.media} for side in (learned, held)]
    assert not names[0] & names[1]
    assert len(held) > 20


def test_of_a_medium_with_many_records_some_are_returned(here):
    records = [{"image": f"{n % 2}.png", "text": f"t {n}"} for n in range(400)]
    learned, held = hold_out_indexed(indexed(lines_of(here / "a.jsonl", *records)), 0.3, most=50)
    assert len(learned) == 200
    assert len(held) == 50
    assert len({e.media[0].name for e in held}) == 1
    alone = indexed(lines_of(here / "b.jsonl", *({"image": "0.png", "text": f"t {n}"} for n in range(4))))
    assert len(hold_out_indexed(alone, 0.5)[0]) == 4


def test_media_of_a_sample_are_checked(folder):
    records = [{"image": f"{n}.png", "text": "x"} for n in (0, 7, 1)]
    good, (problem,) = with_good_media(indexed(lines_of(folder / "a.jsonl", *records)))
    assert [e.id for e in good] == ["1", "3"]
    assert (problem.file, problem.line, problem.kind) == (f"{folder}/a.jsonl", 2, "missing media")


def test_memory_does_not_grow_with_the_number_of_records(folder, monkeypatch):
    monkeypatch.setattr(index, "CHUNK", 200)

    def peak(count):
        path = lines_of(folder / f"{count}.jsonl", *({"image": f"{n}.png", "text": f"t {n}"} for n in range(count)))
        tracemalloc.start()
        whole = indexed(path)
        learned, _ = hold_out_indexed(whole, 0.5, most=20)
        assert learned[count // 2].target is not None
        try:
            return tracemalloc.get_traced_memory()[1]
        finally:
            tracemalloc.stop()

    # What is imported or set up on first use, with few records or with many, is not measured.
    peak(300)
    peak(3000)
    short, long = peak(300), peak(3000)
    assert long < 1.2 * short, (short, long)


def test_an_in_memory_file_and_an_indexed_one_have_the_same_problems(folder):
    path = folder / "my.jsonl"
    path.write_bytes(b'{"text": "x", "label": "y"}\n\xff\n{"text": "x"}\n[1]\n')
    problems = []
    read_jsonl(path, problems)
    found = indexed(path)
    assert list(found.files[0].problems()) == problems
    assert found.faults == {"format": 2, "fields": 1}
