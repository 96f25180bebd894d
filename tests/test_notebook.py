"""What notebooks show: HTML with escaped text and inline images."""

from __future__ import annotations

import ast
import base64
import io
import re
import shutil
from html.parser import HTMLParser
from pathlib import Path

import numpy as np
import PIL.Image
import pytest
import torch

from tests import tiny
from tests.run_docs import ROOT, blocks
from vislang.attention_maps import emphasis, overlay
from vislang.boxes import Box
from vislang.capabilities import AttendedAnswer, CoAttention, Explained, TokenAttention
from vislang.cli import main
from vislang.document import Absent, Audio, Document, EndOfChunk, Image, InMemory, Learned, Video
from vislang.evaluate.compare import ComparedEvaluations, Comparison
from vislang.evaluate.evaluation import Evaluation
from vislang.evaluate.few_shot import FewShotEvaluation, point_of
from vislang.evaluate.figure_rows import figure_rows
from vislang.evaluate.shots import Setting, Trial
from vislang.evaluate.verdict import Finding
from vislang.example import Answers, Choice, Example, Label, Prediction
from vislang.metrics.figure import Figure, metric, title_of
from vislang.metrics.paired import McNemar
from vislang.pictures import THUMBNAIL
from vislang.search.query import Found, Results
from vislang.tasks.task import ReadTask

MARKUP = '<script>alert("1")</script> & <b>bold</b>'
EMPTY = {"img", "br"}
ALLOWED = {"div", "span", "small", "figure", "figcaption", "img", "br", "table", "caption", "thead", "tbody", "tr"}


class Page(HTMLParser):
    """HTML as a reader sees it; fails where it is not well-formed, or could load or run anything."""

    def __init__(self, html: str):
        super().__init__()
        self.open: list[str] = []
        self.text = ""
        self.images: list[PIL.Image.Image] = []
        self.names: list[str] = []
        self.cells: list[str] = []
        self.feed(html)
        self.close()
        assert not self.open

    def handle_starttag(self, tag, attrs):
        assert tag in ALLOWED | {"td", "th"}
        if tag not in EMPTY:
            self.open.append(tag)
        if tag in ("td", "th"):
            self.cells.append("")
        own = dict(attrs)
        assert set(own) <= {"style", "src", "alt", "title"}
        for rule in filter(None, own.get("style", "").split(";")):
            name, _, value = rule.partition(":")
            # Those of text and background are the notebook's.
            assert name.strip() not in ("color", "background", "background-color")
            assert "url(" not in value
        if tag == "img":
            kind, _, data = own["src"].partition(",")
            assert kind == "data:image/webp;base64"
            self.images.append(PIL.Image.open(io.BytesIO(base64.b64decode(data, validate=True))).convert("RGB"))
            self.names.append(own["alt"])

    def handle_endtag(self, tag):
        assert self.open.pop() == tag

    def handle_data(self, data):
        self.text += data
        if self.open and self.open[-1] in ("td", "th"):
            self.cells[-1] += data


def page_of(shown) -> Page:
    return Page(shown._repr_html_())


def png(size=(400, 200), colour="red") -> bytes:
    stream = io.BytesIO()
    PIL.Image.new("RGB", size, colour).save(stream, "PNG")
    return stream.getvalue()


def test_a_document_is_shown_in_reading_order():
    parts = [Image(png()), f"{MARKUP}\n", Learned("a pump"), EndOfChunk(), Absent(), Image(png(colour="blue"))]
    page = page_of(Document(parts, target="a <motor>", name="my.jsonl:3 <x>"))
    assert page.text == f"my.jsonl:3 <x>{MARKUP}\n a pump[removed]  a <motor>"
    assert [image.size for image in page.images] == [(THUMBNAIL, THUMBNAIL // 2)] * 2
    red, blue = (image.getpixel((80, 40)) for image in page.images)
    assert red[0] > 200 > 50 > red[2]
    assert blue[2] > 200 > 50 > blue[0]


def test_the_name_of_a_file_is_escaped_and_a_small_image_is_not_enlarged():
    name = '"><script>x</script>'
    page = page_of(Image(InMemory(name, png((20, 10)))))
    assert page.names == [name]
    assert page.images[0].size == (20, 10)


def test_media_that_cannot_be_shown(tmp_path):
    (tmp_path / "damaged.png").write_bytes(png()[:60])
    for medium, message in (
        (Image(tmp_path / "none.png"), "none.png: no such file"),
        (Image(tmp_path / "damaged.png"), "damaged.png: "),
        (Audio("a <b>.wav"), "[a <b>.wav]"),
    ):
        page = page_of(Document(["look: ", medium]))
        assert message in page.text
        assert not page.images


def test_a_video_is_four_frames(tmp_path):
    film = Video(tiny.write_video(tmp_path / "film.mp4", list(range(0, 250, 25))))
    assert 1 < len(page_of(Document([film])).images) <= 4


@pytest.mark.parametrize(
    ("target", "choices", "shown"),
    [
        (Label("<cat>"), (), "<cat>"),
        (Box(1, 2, 3, 4), (), "1, 2, 3, 4 (left, top, right, bottom)"),
        (Choice(1), (Document(["<dog>"]), Document(["cat"])), "<dog>catcat"),
        (Choice(1), (Document([Image(png())]), Document([Image(png())])), "choice 2"),
        (None, (), ""),
    ],
)
def test_an_example_is_its_prompt_its_choices_and_its_target(target, choices, shown):
    page = page_of(Example("1", Document([Image(png()), "what? "]), target, choices))
    assert page.text == f"what? {shown}"


def test_an_answer_is_shown_over_each_image():
    media = (Image(png((90, 90))), Image(png((60, 60), "blue")))
    maps = [torch.rand(1, 3, 3, generator=torch.Generator().manual_seed(n)) ** 4 for n in range(4)]
    tokens = (TokenAttention(" <b>", maps[:2]), TokenAttention(" cat", maps[2:]))
    answer = AttendedAnswer(tokens, media, lambda medium: [medium.decode()])
    page = page_of(answer)
    assert (len(answer), answer[1], answer.text) == (2, tokens[1], "<b> cat")
    assert page.text.startswith("<b> cat")
    assert [image.size for image in page.images] == [(THUMBNAIL, THUMBNAIL)] * 2 * (1 + 2)
    assert page.images[0].getpixel((150, 150))[0] > 200 > page.images[0].getpixel((150, 150))[1]
    expected = np.asarray(overlay([media[1].decode()], emphasis(maps[3].numpy())), dtype=float)
    # Those of the second image: itself, under the first token, under the second.
    others, own = (np.abs(np.asarray(image) - expected).mean() for image in page.images[4:])
    # WebP loses a little.
    assert own < 6
    assert others > 2 * own


def test_an_answer_of_a_vilbert_is_shown_over_the_regions():
    boxes = [Box(0, 0, 80, 80), Box(0, 0, 40, 40), Box(40, 40, 80, 80)]
    # Of two heads, "red" attends to the first region on the average, and "<x>" to the second one.
    weights = torch.tensor([[[0.0, 0.8, 0.2], [0.0, 0.0, 1.0]], [[0.0, 1.0, 0.0], [0.0, 0.2, 0.8]]])
    layers = [CoAttention(weights.flip(1), weights.transpose(1, 2)), CoAttention(weights, weights.transpose(1, 2))]
    prediction = Prediction("1", "<yes>", ("no", "<yes>"), (0.25, 0.75))
    page = page_of(Explained(["red", "<x>"], boxes, layers, prediction, Image(png((80, 80), "white"))))
    assert page.text.startswith("<yes>probabilityanswer0.750<yes>0.250no")
    assert len(page.images) == 3
    for image, (own, other) in zip(page.images[1:], (((30, 30), (130, 130)), ((130, 130), (30, 30))), strict=True):
        red, green, _ = image.getpixel(own)
        assert red > green + 50
        assert min(image.getpixel(other)) > 200


def test_an_evaluation_is_a_table():
    figures = {"accuracy": Figure(0.926, 0.914, 0.937, 2000)}
    found = Evaluation("<task>", "generate", [], [], figures, {"accuracy": Figure(0.5, None, None, 2000)})
    page = page_of(found)
    (own, blind) = figure_rows({"<task>": found.as_json()})
    assert page.cells == ["task", "answers by", "metric", "value", "95 % interval", *own, *blind]
    assert own[0] == "<task>"
    assert own[-2:] == ("92.6 %", "91.4 to 93.7")


def test_a_few_shot_evaluation_is_a_table_with_its_verdict():
    task = ReadTask("<task>", "", "answers", frozenset(), {}, "test", None)
    queries = [Example(str(n), Document([f"{n}?"]), Answers({"a": 1.0})) for n in range(6)]

    def point(setting: Setting, right: int):
        own = [Prediction(str(n), "a" if n < right else "b", ("a", "b"), (0.5, 0.5)) for n in range(6)]
        return point_of(task, queries, setting, {Trial(0, 0): own, Trial(1, 0): own})

    points = [point(Setting(0), 2), point(Setting(4), 6), point(Setting(4, variant="blind"), 1)]
    guess = {"most_frequent": {"accuracy": Figure(0.5, None, None, 6)}}
    difference = Figure(0.5, 0.25, 0.75, 6)
    found = FewShotEvaluation(points, guess, [Finding("shots", "4 <shots> are better.", "accuracy", difference)])
    page = page_of(found)
    assert page.cells[:7] == list(FewShotEvaluation.HEADINGS)
    rows = [page.cells[n : n + 7] for n in range(7, len(page.cells), 7)]
    assert [row[:3] for row in rows] == [
        ["0", "random", metric("accuracy").title],
        ["4", "random", metric("accuracy").title],
        ["4", "random, without images", metric("accuracy").title],
        ["", title_of("most_frequent"), metric("accuracy").title],
    ]
    assert [row[3].partition(" %")[0] for row in rows] == ["33.3", "100.0", "16.7", "50.0"]
    assert page.text.endswith("4 <shots> are better.")


def test_a_comparison_is_a_table_with_its_result():
    difference = Figure(0.25, 0.125, 0.375, 8)
    test = McNemar(1, 3, 0.625, True)
    one = Comparison(Setting(4), "accuracy", 8, (0.5, 0.75), difference, "paired bootstrap over images", test)
    control = Comparison(Setting(4, variant="blind"), "accuracy", 8, (0.5, 0.5), Figure(0, -0.1, 0.1, 8), "", None)
    found = ComparedEvaluations(Path("<a>"), Path("b"), [one, control], [("decoding.way", ["rank", "<generate>"])])
    page = page_of(found)
    assert page.cells[:7] == list(ComparedEvaluations.HEADINGS)
    assert page.cells[7:11] == ["4 shots, random", metric("accuracy").title, "50.0 %", "75.0 %"]
    assert page.cells[11].startswith("+25.0")
    assert page.cells[12:14] == ["1, 3", "0.625"]
    assert page.cells[14] == "4 shots, random, without images"
    assert "A: <a>   B: b" in page.text
    # The control is no result of its own.
    assert page.text.count("B is better than A") == 1
    assert "no difference was found" not in page.text
    assert page.text.endswith("decoding.way: rank, <generate>")


def test_results_of_a_search_are_images_with_scores(tmp_path):
    (tmp_path / "a&b.png").write_bytes(png())
    page = page_of(Results([Found(tmp_path / "a&b.png", "photos/a&b.png", 0.25)]))
    assert (page.text, page.names, len(page.images)) == ("0.250 photos/a&b.png", ["photos/a&b.png"], 1)
    assert page_of(Results([])).text == "nothing found"


def test_the_cells_of_the_docs(pictures, towers, monkeypatch):
    monkeypatch.chdir(pictures)
    tiny.flamingo(towers).save(Path("runs/demo/model"))
    Path("photo.png").write_bytes(Path("3.png").read_bytes())
    Path("photos").mkdir()
    for number in range(6):
        Path("photos", f"{number}.png").write_bytes(Path(f"{number}.png").read_bytes())
    assert main(["index", "photos", "-o", "photos.index", "--model", "runs/demo/model"]) == 0
    words = ["eval", "runs/demo/model", "--task", "my.jsonl", "--limit", "8", "--out", "scores/easy-vqa"]
    assert main(words) == 0
    shutil.copytree("scores/easy-vqa", "scores/easy-vqa-other")
    names: dict = {}
    pages = []
    for _, _, cell in blocks(ROOT / "docs" / "notebook.md", "python"):
        *lines, last = ast.parse(cell).body
        exec(compile(ast.Module(lines, []), "cell", "exec"), names)
        pages.append(page_of(eval(compile(ast.Expression(last.value), "cell", "eval"), names)))
    example, answer, scores, few_shot, compared, search = pages
    assert "what color?" in example.text
    assert len(example.images) == 1
    # Three images, each alone and under each token.
    assert len(answer.images) % 3 == 0
    assert len(answer.images) > 3
    assert "accuracy" in scores.cells
    assert {"0", "2", "random, images shuffled"} <= set(few_shot.cells)
    assert "accuracy" in compared.cells
    assert len(search.images) == 4
    assert re.match(r"1\.000 3\.png", search.text)
