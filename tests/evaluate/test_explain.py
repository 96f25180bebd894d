"""The co-attention on the page is that of the model, and a browser shows the page."""

import re

import pytest
import torch
import torch.nn.functional as F

from tests.browser import browse, must_be_readable
from tests.models.test_vilbert_pretraining import COLOURS, picture
from tests.models.test_vilbert_tasks import examples_of, model_of
from vislang.cli import main
from vislang.document import Document
from vislang.errors import UserError
from vislang.example import Example


@pytest.fixture
def images(tmp_path):
    return [picture(tmp_path / f"{number}.png", COLOURS[number % 4], number) for number in range(16)]


@pytest.mark.parametrize("kind", ["answers", "box"])
def test_the_attention_shown_is_the_attention_used(towers, images, kind, monkeypatch):
    """The inputs of the attention kernel are recorded, and the weights computed from them."""
    examples = examples_of(kind, images)
    model = model_of(towers, examples).eval()
    shown = model.explain(examples[3])
    used = []
    kernel = F.scaled_dot_product_attention

    def watched(queries, keys, values, attn_mask=None, **rest):
        if queries.shape[2] != keys.shape[2]:  # one stream looks at the other
            scores = queries @ keys.transpose(-1, -2) / queries.shape[-1] ** 0.5
            used.append((scores if attn_mask is None else scores + attn_mask).softmax(dim=-1)[0])
        return kernel(queries, keys, values, attn_mask=attn_mask, **rest)

    monkeypatch.setattr(F, "scaled_dot_product_attention", watched)
    (prediction,) = model.decide([examples[3]])
    (block,) = shown.blocks
    assert len(used) == 2
    torch.testing.assert_close(block.text, used[0], atol=1e-5, rtol=0)
    torch.testing.assert_close(block.regions, used[1], atol=1e-5, rtol=0)
    torch.testing.assert_close(block.text.sum(dim=-1), torch.ones(block.text.shape[:2]))
    assert prediction == shown.prediction
    assert shown.tokens[0] == "[CLS]"
    assert block.text.shape == (2, len(shown.tokens), len(shown.boxes))


def test_what_cannot_be_explained_is_an_error(towers, images):
    model = model_of(towers, examples_of("choice", images)).eval()
    with pytest.raises(UserError, match="3 choices"):
        model.explain(examples_of("choice", images)[0])
    single = model_of(towers, examples_of("answers", images), single_stream=True)
    with pytest.raises(UserError, match="has no co-attention"):
        single.explain(Example("x", Document([images[0], "what?"]), task="answers"))


def test_of_a_model_that_chooses_the_score_of_the_one_text_is_shown(towers, images):
    model = model_of(towers, examples_of("choice", images)).eval()
    example = Example("x", Document([images[0], "a red shape"]), task="choice")
    prediction = model.explain(example).prediction
    assert not prediction.candidates
    (scores,) = model.match_all([images[0]], ["a red shape"])
    assert prediction.answer == pytest.approx(float(scores[0]), abs=1e-5)


@pytest.fixture(params=["answers", "box"])
def page(towers, images, tmp_path, request):
    model_of(towers, examples_of(request.param, images)).save(tmp_path / "model")
    out = tmp_path / "page.html"
    text = "what <b id='leak'>colour</b>?"
    assert main(["explain", str(tmp_path / "model"), str(images[0].source), text, "-o", str(out)]) == 0
    return out


def test_the_page_is_self_contained_and_a_browser_shows_it(page, tmp_path):
    source = page.read_text(encoding="utf-8")
    loaded = re.findall(r'(?:src|href)="([^"]*)"', source)
    assert all(address.startswith(("data:", "#")) for address in loaded)
    assert "<script" not in source
    with browse(page, tmp_path) as browser:
        text = browser.find_element("tag name", "body").text
        for expected in ("Co-attentional block 1 of 1", "Attention of words to regions", "[CLS]", "%"):
            assert expected in text
        assert not browser.find_elements("id", "leak"), "a text became markup"
        drawings = browser.find_elements("css selector", ".strip svg, .overview svg")
        shown = [svg for svg in drawings if svg.is_displayed()]
        assert len(shown) >= 6
        assert all(svg.size["height"] > 50 for svg in shown)
        assert len(browser.find_elements("css selector", "#decision tr")) >= 4
        must_be_readable(browser)


def test_ask_prints_what_was_decided(towers, images, tmp_path, capsys):
    path = str(images[0].source)
    model_of(towers, examples_of("answers", images)).save(tmp_path / "model")
    assert main(["ask", str(tmp_path / "model"), path, "what colour?"]) == 0
    assert capsys.readouterr().out.strip() in (*COLOURS, "dark")
    model_of(towers, examples_of("box", images)).save(tmp_path / "pointing")
    assert main(["ask", str(tmp_path / "pointing"), path, "the shape"]) == 0
    assert "(left, top, right, bottom)" in capsys.readouterr().out
    assert main(["ask", str(tmp_path / "model"), path]) == 2
    assert "has 0 texts; this model reads one text with an image" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("kind", "options", "message"),
    [
        ("answers", ["--options", "red,violet"], "--options: {}: the head answers does not know violet. It knows "),
        (
            "answers",
            ["--beams", "3", "--shot", "{image}", "red"],
            "--shot, --beams: no effect, because {} generates no",
        ),
        ("answers", ["--head", "other"], "--head other: {} has the heads answers (answers). Choose one."),
        (
            "box",
            ["--options", "red,blue"],
            "--options: {}: the head box predicts a box and chooses among no options. Leave them out.",
        ),
        ("choice", [], "--options: the head choice of {} chooses among given answers"),
    ],
)
def test_options_that_a_head_cannot_use(towers, images, tmp_path, capsys, kind, options, message):
    model_of(towers, examples_of(kind, images)).save(tmp_path / "model")
    model, image = str(tmp_path / "model"), str(images[0].source)
    assert main(["ask", model, image, "what?", *(option.format(image=image) for option in options)]) == 2
    assert message.format(model) in capsys.readouterr().err


@pytest.mark.parametrize("kind", ["answers", "choice"])
def test_options_are_compared_by_a_head(towers, images, tmp_path, capsys, kind):
    """Of answers, those of the head; of choices, what was named."""
    model = model_of(towers, examples_of(kind, images)).eval()
    model.save(tmp_path / "model")
    assert main(["ask", str(tmp_path / "model"), str(images[0].source), "what?", "--options", "blue, red"]) == 0
    shown = {line.split("  ")[1]: float(line.split("  ")[0]) for line in capsys.readouterr().out.splitlines()}
    choices = tuple(Document([word]) for word in ("blue", "red")) if kind == "choice" else ()
    (prediction,) = model.decide([Example("x", Document([images[0], "what?"]), choices=choices)], kind)
    scores = dict(zip(("blue", "red") if choices else prediction.candidates, prediction.scores, strict=True))
    assert set(shown) == {"blue", "red"}
    assert shown["red"] == pytest.approx(scores["red"] / (scores["red"] + scores["blue"]), abs=1e-3)


def test_careless_use(towers, images, tmp_path, capsys):
    model_of(towers, examples_of("answers", images)).save(tmp_path / "model")
    assert main(["explain", str(tmp_path / "model"), str(tmp_path / "none.png"), "what?"]) == 2
    assert "no such file" in capsys.readouterr().err
    picture_path = str(images[0].source)
    assert main(["explain", str(tmp_path / "model"), picture_path, "what?", "--head", "other"]) == 2
    assert "model has the heads answers (answers)" in capsys.readouterr().err
    assert main(["explain", str(tmp_path / "model"), picture_path, " ", "-o", str(tmp_path / "x.html")]) == 2
    assert "the text is empty" in capsys.readouterr().err
    assert not (tmp_path / "x.html").exists()
