"""What each shot changed, against likelihoods of prompts written out by hand; the attention to it; and the page."""

from __future__ import annotations

import re
from dataclasses import replace

import pytest
import torch

import vislang
from tests import tiny
from tests.browser import browse, must_be_readable
from vislang.cli import main
from vislang.commands.few_shot import sides
from vislang.document import Document, EndOfChunk, Image
from vislang.errors import UserError
from vislang.evaluate.few_shot import evaluate_point
from vislang.evaluate.shot_effects import explain_shots
from vislang.evaluate.shots import Setting
from vislang.evaluate.shots_page import LEAST_SCALE
from vislang.models.towers.recorded_attention import recorded_attention
from vislang.tasks.catalogue import open_task


@pytest.fixture(scope="module")
def model(long_towers):
    return tiny.flamingo(long_towers)


@pytest.fixture
def shots(pictures):
    return [
        tiny.question(Image(str(pictures / f"{n}.png")), "what color?", ("red", "blue", "dog")[n]) for n in range(3)
    ]


def parts(shot, answer=None):
    found = [shot.media[0], "Question: what color? Answer:"]
    return found if answer is None else [*found, f" {answer}", EndOfChunk()]


def likelihood(model, shots, query, answer):
    before = [part for shot in shots for part in parts(shot, next(iter(shot.target.scores)))]
    return model.score([Document([*before, *parts(query)], target=answer)])[0].log_likelihood


def test_an_answer_that_fills_the_context_is_explained(towers, pictures, shots, monkeypatch):
    """The prompt leaves 4 positions; the answer has 5 words, as the random model's tokens are no words."""
    model = tiny.flamingo(towers)
    monkeypatch.setattr(model, "generate", lambda documents: ["blue" + " blue" * 4] * len(documents))
    medium = Image(str(pictures / "8.png"))
    one = model.collate.documents([model.prompts.render(tiny.question(medium, "red"), shots)]).tokens
    query = tiny.question(medium, "red" + " red" * (128 - 4 - one))
    explained = explain_shots(model, query, shots)
    assert explained.answer == "blue blue blue blue blue"
    prompt = model.prompts.render(query, shots)
    (score,) = model.score([replace(prompt, target="blue blue blue blue")])
    assert explained.log_likelihood == pytest.approx(score.log_likelihood)
    full = tiny.question(medium, query.text + " red" * 4)
    with pytest.raises(UserError, match="the prompt fills the language model's context"):
        explain_shots(model, full, shots)


@pytest.mark.parametrize("labels", [(), ("red", "blue", "a cat")])
def test_a_change_is_the_likelihood_without_the_shot(model, pictures, shots, labels):
    query = tiny.question(Image(str(pictures / "8.png")), "what color?")
    explained = explain_shots(model, query, shots, labels)
    answer = explained.answer
    if labels:
        assert answer == max(labels, key=lambda own: likelihood(model, shots, query, own))
    else:
        prompt = Document([*(p for s in shots for p in parts(s, next(iter(s.target.scores)))), *parts(query)])
        assert [answer] == model.generate([prompt])
    whole = likelihood(model, shots, query, answer)
    assert explained.log_likelihood == pytest.approx(whole, abs=1e-3)
    assert explained.change_of_all == pytest.approx(whole - likelihood(model, [], query, answer), abs=1e-3)
    for number, effect in enumerate(explained.effects):
        rest = [shot for n, shot in enumerate(shots) if n != number]
        assert effect.change == pytest.approx(whole - likelihood(model, rest, query, answer), abs=1e-3)
        best = max(labels, key=lambda own: likelihood(model, rest, query, own)) if labels else None
        assert effect.answer_without == best
    # This model's cross-attention reads the latest image alone; its language model reads everything.
    assert [effect.image_attention for effect in explained.effects] == [0, 0, 0]
    assert explained.query_image_attention == pytest.approx(1, abs=1e-4)
    shares = [*(effect.attention for effect in explained.effects), explained.query_attention]
    assert sum(shares) == pytest.approx(1, abs=1e-4)
    assert all(share > 0 for share in shares)


def test_all_images_may_be_read(long_towers, pictures, shots):
    model = tiny.flamingo(long_towers, attend_to="all")
    explained = explain_shots(
        model, tiny.question(Image(str(pictures / "8.png")), "what color?"), shots, ("red", "dog")
    )
    shares = [*(effect.image_attention for effect in explained.effects), explained.query_image_attention]
    assert sum(shares) == pytest.approx(1, abs=1e-4)
    assert min(shares) > 0


@pytest.mark.parametrize("family", tiny.FAMILIES)
def test_recorded_attention_is_that_of_the_model(family):
    lm = tiny.language_model(family)
    ids = torch.arange(3, 11)[None]
    used = lm.config._attn_implementation
    before = lm(ids).logits
    with torch.no_grad(), recorded_attention(lm) as layers:
        torch.testing.assert_close(lm(ids).logits, before, atol=1e-5, rtol=0)
    lm.set_attn_implementation("eager")
    expected = lm(ids, output_attentions=True).attentions
    lm.set_attn_implementation(used)
    assert len(layers) == 4
    for layer, weights in zip(layers, expected, strict=True):
        torch.testing.assert_close(layer, weights.mean(dim=1), atol=1e-5, rtol=0)


def test_the_shots_of_an_evaluation_are_explained(model, pictures, tmp_path, capsys):
    model.save(tmp_path / "model")
    out = tmp_path / "page.html"
    spec = str(pictures / "my.jsonl")
    words = ["explain", str(tmp_path / "model"), spec, "--shots", "3", "--draw", "1", "-o", str(out)]
    assert main(words) == 0
    lines = capsys.readouterr().out.splitlines()
    found = re.findall(r"shot \d \((\d+)\): [+-]\d+\.\d{3} nats", "\n".join(lines))
    task = open_task(spec)
    support, queries = sides(task, task.examples("all"), 0, 0)
    point = evaluate_point(vislang.load(tmp_path / "model"), task, support, queries[:1], Setting(3), [1])
    assert found == point.shots[1, 0]
    assert point.predictions[1, 0][0].answer == lines[0].strip()
    page = out.read_text(encoding="utf-8")
    assert page.count('<section class="card">') == 3
    assert all(f"{'red' if int(name) % 2 == 0 else 'blue'}</b>" in page for name in found)
    assert all(address.startswith("data:") for address in re.findall(r'(?:src|href)="([^"]*)"', page))
    # Bars of changes of next to nothing are short.
    largest = max(abs(float(change)) for change in re.findall(r'aria-label="([-+.\d]+) nats"', page))
    widths = [float(width) for width in re.findall(r'style="width: ([.\d]+)%"', page)]
    assert max(widths) == pytest.approx(50 * min(1, largest / LEAST_SCALE), abs=1)
    with browse(out, tmp_path) as browser:
        must_be_readable(browser)


@pytest.mark.parametrize(
    ("more", "message"),
    [
        (["what?"], "the shots of a prompt are explained. Give --shot IMAGE TEXT, or a task and --shots N."),
        (["what?", "--draw", "1"], "--draw: only used together with --shot or --shots"),
        (["what?", "--shot", "IMAGE", "red", "--draw", "1"], "--draw: only used together with --shots"),
        (["what?", "--shots", "2"], "--text: not used together with --shots"),
        (["what?", "--shot", "IMAGE", "red", "--head", "x"], "--head: a model that is prompted with examples has no"),
        (["what?", "--shot", "IMAGE", "red", "--options", "red"], "two or more different answers"),
    ],
)
def test_mistakes_are_named(model, pictures, tmp_path, capsys, more, message):
    model.save(tmp_path / "model")
    image = str(pictures / "0.png")
    words = ["explain", str(tmp_path / "model"), image, *(image if word == "IMAGE" else word for word in more)]
    assert main([*words, "-o", str(tmp_path / "page.html")]) == 2
    assert message in capsys.readouterr().err


def test_without_shots_there_is_nothing_to_explain(model, pictures):
    with pytest.raises(UserError, match="there are no shots"):
        explain_shots(model, tiny.question(Image(str(pictures / "8.png")), "what color?"), [])
