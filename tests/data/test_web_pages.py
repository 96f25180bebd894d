"""Pages of HTML, MMC4 and OBELICS: text, images, and navigation, which is dropped."""

import base64
import io
import json
import re

import pytest
from PIL import Image as Pillow

from vislang.data.problems import DataError, Problem
from vislang.data.sources import load_source
from vislang.data.web_pages import html_pages
from vislang.document import EndOfChunk, Image, Learned
from vislang.example import VERBATIM

PAGE = """<!DOCTYPE html><html><head><title>no</title><style>p {}</style></head><body>
<div class="navheader"><a href="x"><img src="images/prev.png" alt="Prev"></a> previous page</div>
<h1>A  <em>shape</em></h1>
<p>It is <b>red</b> &amp; square.<br>Look:</p>
<figure><img src="images/0.png" alt="a red square here"/></figure>
<p>Another <img src="images/1.png?x=1" alt="two words"> follows.
<p>An unclosed paragraph<ul><li>one<li>two</ul>
<img src="images/tiny.png"><img src="http://elsewhere/a.png"><img src="images/missing.png">
<script>var nothing;</script><footer>foot</footer></body></html>"""


def png(colour: str, side: int = 32) -> bytes:
    file = io.BytesIO()
    Pillow.new("RGB", (side, side), colour).save(file, "PNG")
    return file.getvalue()


@pytest.fixture
def folder(tmp_path):
    (tmp_path / "images").mkdir()
    for name, data in {"0": png("red"), "1": png("blue"), "tiny": png("red", 8), "prev": png("red")}.items():
        (tmp_path / "images" / f"{name}.png").write_bytes(data)
    return tmp_path


def test_a_page_of_html(folder):
    (folder / "a.html").write_text(PAGE)
    (folder / "b.html").write_text("<p>no image here</p>")
    problems = []
    (page,) = html_pages(folder, problems)
    first, second = Image((folder / "images/0.png").resolve()), Image((folder / "images/1.png").resolve())
    assert page.prompt.parts == (
        *(Learned("A shape\nIt is red & square.\nLook:"), EndOfChunk(), first),
        *(Learned("Another"), EndOfChunk(), second),
        *(Learned("follows.\nAn unclosed paragraph\none\ntwo"), EndOfChunk()),
    )
    assert page.prompt.media_side == "either"
    assert (page.id, page.target, page.wording) == ("a.html", None, VERBATIM)
    assert page.prompt.name == str(folder / "a.html")
    (problem,) = problems
    assert "missing.png: no such file" in str(problem)


def test_a_folder_without_such_pages_is_an_error(folder):
    (folder / "b.html").write_text("<p>no image here</p>")
    with pytest.raises(DataError, match="no page with an image"):
        html_pages(folder, [])


def test_mmc4(folder):
    records = [
        {
            "text_list": ["one", "two", "three"],
            "image_info": [
                {"image_name": "0.png", "matched_text_index": 1, "matched_sim": 0.3},
                {"image_base64": base64.b64encode(png("blue")).decode(), "matched_text_index": 2, "matched_sim": 0.25},
                {"image_name": "1.png", "matched_text_index": 0, "matched_sim": 0.1},
            ],
        },
        {"text_list": ["only text"], "image_info": []},
        {"text_list": ["one"], "image_info": [{"image_name": "0.png", "matched_text_index": 5}]},
        {"text_list": ["one"], "image_info": [{"image_name": "9.png", "matched_text_index": 0}]},
        {"text_list": ["one"], "image_info": [{"image_base64": "!", "matched_text_index": 0}]},
        {"image_info": []},
    ]
    file = folder / "mmc4.jsonl"
    file.write_text("\n".join(map(json.dumps, records)))
    problems, done = [], []
    (page,) = load_source(f"mmc4:{file}", None, problems, lambda *progress: done.append(progress))
    assert page.prompt.parts == (
        *(Learned("one"), EndOfChunk(), Image(folder / "images" / "0.png")),
        *(Learned("two"), EndOfChunk(), Image(png("blue")), Learned("three"), EndOfChunk()),
    )
    assert [(p.line, p.message) for p in problems] == [
        (3, '"matched_text_index" is 5, and "text_list" has 1 texts.'),
        (
            4,
            f"{folder / '9.png'}: no such file. Check the path. In a JSON Lines file, paths are relative to that file.",
        ),
        (5, '"image_base64" is not base64. Pack the image again.'),
        (6, 'has no list "text_list". A page has text_list and image_info.'),
    ]
    assert done == [(number, 6) for number in range(1, 7)]


def obelics_records():
    return [
        {"texts": ["before", None, "after"], "images": [None, "images/0.png", None]},
        {"texts": [None, "words"], "images": [{"bytes": png("blue"), "path": None}, None]},
        {"texts": ["words"], "images": [None]},
    ]


def test_obelics_in_json_lines_and_parquet(folder):
    import pyarrow
    import pyarrow.parquet

    plain = folder / "pages.jsonl"
    plain.write_text(json.dumps(obelics_records()[0]) + "\n" + json.dumps(obelics_records()[2]))
    (page,) = load_source(f"obelics:{plain}")
    assert page.prompt.parts == (
        *(Learned("before"), EndOfChunk(), Image(folder / "images" / "0.png")),
        *(Learned("after"), EndOfChunk()),
    )
    packed = folder / "pages.parquet"
    records = [{**obelics_records()[1], "metadata": "x"}, {**obelics_records()[1], "metadata": "y"}]
    pyarrow.parquet.write_table(pyarrow.Table.from_pylist(records), packed)
    first, second = load_source(f"obelics:{packed}")
    assert first.prompt.parts == second.prompt.parts == (Image(png("blue")), Learned("words"), EndOfChunk())
    assert second.name == f"{packed}:2"
    pyarrow.parquet.write_table(pyarrow.Table.from_pylist([{"text": "x"}]), packed)
    with pytest.raises(DataError, match="has the columns text; it needs texts and images"):
        load_source(f"obelics:{packed}")
    packed.write_bytes(b"no")
    with pytest.raises(DataError, match=r"pages\.parquet: cannot be read as Parquet"):
        load_source(f"obelics:{packed}")


@pytest.mark.parametrize(
    ("record", "message"),
    [
        ({"texts": ["a"], "images": [None, None]}, '"texts" has 1 entries and "images" 2'),
        ({"texts": ["a"], "images": ["images/0.png"]}, "entry 1 is both a text and an image"),
        ({"texts": [None], "images": [7]}, "neither a path nor bytes"),
    ],
)
def test_bad_records_of_obelics_are_named(folder, record, message):
    file = folder / "pages.jsonl"
    file.write_text(json.dumps(record))
    problems = []
    load_source(f"obelics:{file}", None, problems)
    assert f"{file}:1: " in str(problems[0])
    assert message in str(problems[0])


@pytest.mark.parametrize(
    ("html", "text"),
    [
        # The end tag of a head and the start tag of a body are optional.
        ("<html><head><title>no</title><h1>words</h1><img src='images/0.png'></html>", "words"),
        ("<html><head><title>no</title><body>words<img src='images/0.png'></body></html>", "words"),
        (
            "<html><head><noscript><img src='images/1.png'></noscript></head>words<img src='images/0.png'></html>",
            "words",
        ),
        ("<p class='navy'>words</p><p class='nav-bar'>no</p><p class='nav'>no</p><img src='images/0.png'>", "words"),
        ("<p>words</p><img src='//cdn.example/a.png'><img src='/images/0.png'>", "words"),
        ("<meta charset='iso-8859-1'><p>caf\xe9</p><img src='images/0.png'>", "caf\xe9"),
        ('<meta http-equiv="Content-Type" content="text/html; charset=none"><p>words<img src="images/0.png">', "words"),
    ],
)
def test_pages_as_they_are_found(folder, html, text):
    (folder / "sub").mkdir()
    (folder / "a.html").write_bytes(html.encode("latin-1"))
    problems = []
    (page,) = html_pages(folder, problems)
    assert page.prompt.parts[0] == Learned(text)
    assert page.media == (Image((folder / "images/0.png").resolve()),)
    assert not problems


@pytest.mark.parametrize(
    ("html", "message"),
    [
        ("<img src='http://[bad/a.png'>", r"a\.png: no such file"),
        ("<img src='a%00.png'>", "not a valid path"),
        ("<![foo]>", r"bad\.html: not HTML that can be read"),
    ],
)
def test_what_is_wrong_with_a_page_is_one_problem(folder, html, message):
    (folder / "bad.html").write_text(html)
    (folder / "good.html").write_text("<p>words<img src='images/0.png'>")
    (folder / "folder.html").mkdir()
    problems = []
    (page,) = html_pages(folder, problems)
    assert page.id == "good.html"
    (problem,) = problems
    assert re.search(message, str(problem))


@pytest.mark.parametrize(
    ("texts", "image", "message"),
    [
        (
            ["one"],
            {"image_name": "0.png", "matched_text_index": 0, "matched_sim": "0.3"},
            '"matched_sim" is not a number',
        ),
        ([None], {"image_name": "0.png", "matched_text_index": 0}, 'entry 0 of "text_list" is not text'),
        (["\ud800"], {"image_name": "0.png", "matched_text_index": 0}, "half a character"),
        (["one"], {"image_name": "a\0.png", "matched_text_index": 0}, "not a valid path"),
    ],
)
def test_bad_records_of_mmc4_are_named(folder, texts, image, message):
    good = {"text_list": ["one"], "image_info": [{"image_name": "0.png", "matched_text_index": 0}]}
    lines = [json.dumps(good), json.dumps({"text_list": texts, "image_info": [image]})]
    # Some editors put a byte order mark before the first line.
    (folder / "mmc4.jsonl").write_bytes(b"\xef\xbb\xbf" + "\n".join(lines).encode())
    problems = []
    assert len(load_source(f"mmc4:{folder}/mmc4.jsonl", None, problems)) == 1
    (problem,) = problems
    assert problem.line == 2
    assert message in problem.message


def test_an_empty_file_is_an_error_after_other_problems(folder):
    (folder / "mmc4.jsonl").write_text("")
    with pytest.raises(DataError, match="no page with an image"):
        load_source(f"mmc4:{folder}/mmc4.jsonl", None, [Problem("other", 1, "bad")])
