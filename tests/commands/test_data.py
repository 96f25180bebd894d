"""``vislang data``: lists of sources, their records, and problems in them."""

import json

import pytest
from PIL import Image as Pillow

from tests import tiny
from tests.tasks.test_benchmarks import vqa_folder
from vislang.cli import main
from vislang.data.sources import SOURCES


def test_the_list_names_every_source(capsys):
    assert main(["data", "list"]) == 0
    shown = capsys.readouterr().out
    assert all(name in shown for name in SOURCES)
    assert "38,575 train, 9,673 test" in shown
    assert "BENCHMARK:FOLDER" in shown
    assert main(["data", "list", "--json"]) == 0
    listed = json.loads(capsys.readouterr().out)
    assert listed["schema"] == 1
    assert list(listed["sources"]) == list(SOURCES)
    assert listed["sources"]["easy-vqa"] == {
        "about": "questions about coloured shapes, official split",
        "target": "answers",
        "media": ["image", "text"],
        "sizes": {"train": 38_575, "test": 9_673},
        "licence": "MIT",
        "data_sets": [],
        "here": True,
    }
    assert listed["sources"]["stamps"]["here"] is False


def test_records_are_printed_and_drawn(pictures, tmp_path, capsys):
    file, page = pictures / "mixed.jsonl", tmp_path / "page.html"
    records = [
        {"image": "0.png", "question": "what <color>?", "answers": ["red", "[bold]"]},
        {"image": "0.png", "text": "the square", "box": [0, 4, 12, 24]},
        {"image": "0.png", "text": "why?", "options": ["so", "not so"], "right": 1},
        {"parts": ["see ", {"image": "0.png"}], "target": "done"},
        {"image": "0.png", "text": "fine", "score": 2},
        {"image": "none.png", "text": "bad"},
    ]
    file.write_text("\n".join(map(json.dumps, records)))
    assert main(["data", "show", str(file), "-o", str(page)]) == 0
    shown = capsys.readouterr().out
    for words in ("<image: 0.png> what <color>?", "red, [bold]", "(0, 4) to (12, 24)", "choice 1 not so"):
        assert words in shown
    assert "5 of 5 good records, 1 bad (" in shown
    html = page.read_text()
    assert html.count("data:image/webp;base64,") == 5
    assert "what &lt;color&gt;?" in html
    assert 'class="choice target"><span class="words">not so' in html
    assert "http" not in html.replace("http-equiv", "")
    assert main(["data", "show", str(file), "-n", "2", "-o", str(page)]) == 0
    assert "2 of 5 good" in capsys.readouterr().out


def test_of_a_benchmark_a_split_that_exists_is_shown(tmp_path, capsys):
    folder = vqa_folder(tmp_path)
    Pillow.new("RGB", (8, 8)).save(folder / "COCO_val2014_000000000009.jpg")
    assert main(["data", "show", f"vqa:{folder}", "-o", str(tmp_path / "page.html")]) == 0
    assert "2 of 2 good records" in capsys.readouterr().out
    assert "val" in (tmp_path / "page.html").read_text().partition("</h1>")[0]


def test_films_are_drawn_as_frames(tmp_path, capsys):
    tiny.write_video(tmp_path / "film.mp4", [0, 100, 200])
    assert main(["data", "show", str(tmp_path / "film.mp4"), "-o", str(tmp_path / "page.html")]) == 0
    assert (tmp_path / "page.html").read_text().count("data:image/webp;base64,") == 3
    assert "<video: film.mp4>" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["nothing"], "nothing: no such source"),
        (["easy-vqa", "--split", "dev"], "easy-vqa: no split 'dev'. The splits are train, test"),
        (["easy-vqa", "-o", "none/page.html"], "there is no folder none"),
    ],
)
def test_what_cannot_be_shown(tmp_path, monkeypatch, capsys, arguments, message):
    monkeypatch.chdir(tmp_path)
    assert main(["data", "show", *arguments]) == 2
    assert message in capsys.readouterr().err
    assert not list(tmp_path.iterdir())


def test_check_finds_broken_boxes_scores_and_options(pictures, capsys):
    file = pictures / "bad.jsonl"
    records = [
        {"image": "0.png", "text": "x", "box": [0, 0, 99, 9]},
        {"image": "0.png", "text": "x", "score": "high"},
        {"image": "0.png", "text": "x", "options": ["a", "b"], "right": 2},
        {"image": "0.png", "text": "x", "label": "a", "box": [0, 0, 1, 1]},
        {"image": "0.png", "text": "x"},
    ]
    file.write_text("\n".join(map(json.dumps, records)))
    assert main(["data", "check", str(file), "--json"]) == 1
    found = json.loads(capsys.readouterr().out)
    assert (found["schema"], found["good"], [bad["line"] for bad in found["bad"]]) == (1, 1, [1, 2, 3, 4])
