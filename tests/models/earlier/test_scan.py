"""SCAN: its similarities and its loss by hand, training, saving."""

import dataclasses
import math

import pytest
import torch
import torch.nn.functional as F

from tests.models.earlier.systems import WORDS, built, regions_of, restored, train, with_setting, without_gradient
from tests.models.test_vilbert_pretraining import COLOURS, pair_of, picture
from vislang.document import Document
from vislang.errors import UserError
from vislang.evaluate.ways import cell
from vislang.example import Example, Label
from vislang.models.earlier.scan import SCAN, SCANConfig, SCANRecipe, StackedCrossAttention, pooled, ranking_loss
from vislang.models.loading import load
from vislang.tasks.catalogue import TASKS

WAYS = [(direction, pooling) for direction in ("text-image", "image-text") for pooling in ("average", "lse")]


def config(**more) -> SCANConfig:
    return SCANConfig(dataclasses.replace(WORDS), width=16, **more)


@pytest.fixture
def pairs(tmp_path):
    return [
        pair_of(picture(tmp_path / f"{n}.png", COLOURS[n % 4], n), f"a {COLOURS[n % 4]} shape", name=str(n))
        for n in range(12)
    ]


def recipe_of(towers, **more) -> SCANRecipe:
    return SCANRecipe(config(**more), regions_of(towers))


def model_of(towers, pairs, **more) -> StackedCrossAttention:
    return built(recipe_of(towers, **more), pairs)


def by_definition(config: SCANConfig, regions, words) -> float:
    """The similarity of one image and one text as the paper's section 3.1 defines it, vector by vector."""
    queries, context = (words, regions) if config.direction == "text-image" else (regions, words)
    cosine = [[F.cosine_similarity(q, c, dim=0).item() for c in context] for q in queries]
    lengths = [math.sqrt(sum(max(row[j], 0) ** 2 for row in cosine)) for j in range(len(context))]
    relevances = []
    for query, row in zip(queries, cosine, strict=True):
        weights = [
            math.exp(config.attention_scale * (max(s, 0) / length if length else 0))
            for s, length in zip(row, lengths, strict=True)
        ]
        attended = sum(w / sum(weights) * c for w, c in zip(weights, context, strict=True))
        relevances.append(F.cosine_similarity(query, attended, dim=0).item())
    if config.pooling == "average":
        return sum(relevances) / len(relevances)
    return math.log(sum(math.exp(config.pooling_scale * r) for r in relevances)) / config.pooling_scale


@pytest.mark.parametrize(("direction", "pooling"), WAYS)
def test_similarities_are_those_of_the_definition(direction, pooling):
    """With padding, and without ever making the attended vectors."""
    made = config(direction=direction, pooling=pooling)
    regions, words = F.normalize(torch.randn(3, 5, 16), dim=-1), F.normalize(torch.randn(4, 6, 16), dim=-1)
    real_regions, real_words = (5, 2, 4), (6, 1, 3, 2)
    region_padding = torch.arange(5) >= torch.tensor(real_regions)[:, None]
    word_padding = torch.arange(6) >= torch.tensor(real_words)[:, None]
    found = SCAN(made)(regions, words, region_padding, word_padding)
    for i, r in enumerate(real_regions):
        for t, w in enumerate(real_words):
            assert found[i, t].item() == pytest.approx(by_definition(made, regions[i, :r], words[t, :w]), abs=1e-5)


def test_log_sum_exp_by_hand():
    """Relevances 1 and 0 with a scale of 2: log(e^2 + 1) / 2; without a scale their mean."""
    relevance, none = torch.tensor([[[1.0, 0.0, 9.0]]]), torch.tensor([[[False, False, True]]])
    assert pooled(relevance, none, 2.0).item() == pytest.approx(math.log(math.e**2 + 1) / 2)
    assert pooled(relevance, none, None).item() == pytest.approx(0.5)


def test_the_hardest_negatives_by_hand():
    similarities = torch.tensor([[0.9, 0.8, 0.1], [0.2, 0.5, 0.6]])
    belong = torch.tensor([[True, False, False], [False, True, False]])
    losses = ranking_loss(similarities, belong, margin=0.2)
    # Texts: 0.2 - 0.9 + 0.8 = 0.1 for the first image, 0.2 - 0.5 + 0.6 = 0.3 for the second.
    assert losses["image_to_text"].item() == pytest.approx(0.2)
    # Images: 0.2 - 0.9 + 0.2 is below 0, 0.2 - 0.5 + 0.8 = 0.5.
    assert losses["text_to_image"].item() == pytest.approx(0.25)


def test_another_caption_of_the_same_image_is_no_negative():
    similarities = torch.tensor([[0.5, 0.9], [0.0, 0.0]])
    belong = torch.tensor([[True, True], [False, False]])
    losses = ranking_loss(similarities, belong, margin=0.2)
    assert losses["image_to_text"].item() == 0
    assert losses["text_to_image"].item() == 0


@pytest.mark.parametrize(("direction", "pooling"), WAYS)
def test_it_learns_and_ranks_in_each_way(towers, pairs, direction, pooling):
    scales = (9.0, 6.0) if direction == "text-image" else (4.0, 1.0)
    ways = {"direction": direction, "pooling": pooling, "attention_scale": scales[0], "pooling_scale": scales[1]}
    model = model_of(towers, pairs, **ways)
    train(model, model.collate(pairs), 100, lr=1e-2)
    scores = model.match_all([pair.media[0] for pair in pairs], [f"a {colour} shape" for colour in COLOURS])
    assert (scores.argmax(dim=1) == torch.arange(12) % 4).float().mean() > 0.9


def test_every_parameter_learns(towers, pairs):
    model = model_of(towers, pairs)
    assert without_gradient(model, model.collate(pairs)) == []


def test_the_whole_image_is_no_region(towers, pairs):
    batch = model_of(towers, pairs).collate(pairs)
    assert batch.features.shape[1] == 16
    assert not (batch.boxes[:, :, 4] > 0.9).any()


def test_a_score_does_not_depend_on_what_else_is_scored(towers, pairs, monkeypatch):
    from vislang.models.earlier import scan

    model = model_of(towers, pairs).eval()
    images, texts = [pair.media[0] for pair in pairs], ["a red shape", "blue", "a shape that is green and not red"]
    together = model.match_all(images, texts)
    monkeypatch.setattr(scan, "AT_ONCE", 2)
    candidates = torch.ones(12, 3, dtype=torch.bool)
    candidates[0, 1] = False
    apart = model.match_all(images, texts, candidates)
    assert apart[0, 1] == -torch.inf
    torch.testing.assert_close(apart[candidates], together[candidates], atol=1e-5, rtol=0)


def test_a_saved_model_scores_alike_and_its_state_can_be_restored(towers, pairs, tmp_path):
    model = model_of(towers, pairs).eval()
    images, texts = [pair.media[0] for pair in pairs], ["a red shape", "a blue shape"]
    before = model.match_all(images, texts)
    model.save(tmp_path / "model")
    for other in (load(tmp_path / "model"), restored(recipe_of(towers), model)):
        torch.testing.assert_close(other.match_all(images, texts), before)


def test_what_it_can_answer(towers, pairs):
    model = model_of(towers, pairs)
    assert cell(model, TASKS["retrieval"]).way == "match"
    assert cell(model, TASKS["easy-vqa"]).why_not == "has no head for targets of the kind answers; generates no text"


def test_bad_input_is_named(towers, pairs, tmp_path):
    model = model_of(towers, pairs)
    labelled = Example("7", pairs[0].prompt, Label("red"), source="my.jsonl:7")
    with pytest.raises(UserError, match=r"my\.jsonl:7: not a pair of an image and its caption"):
        model.collate([labelled])
    two = Document([pairs[0].media[0], pairs[1].media[0]])
    with pytest.raises(UserError, match=r"my\.jsonl:8: 2 images; a pair is one image and its caption"):
        model.collate([dataclasses.replace(pairs[0], prompt=two, source="my.jsonl:8")])
    for setting, message in (
        ({"attention_scale": 0.0}, "attention_scale is 0.0; it must be above 0"),
        ({"margin": -1.0}, "margin is -1.0; it must be above 0"),
        ({"feature_width": 0}, "network.feature_width is 0; it must be at least 1"),
    ):
        with pytest.raises(UserError, match=message):
            config(**setting)
    with pytest.raises(UserError, match=r"text\.max_length is 2; it must be at least 3"):
        dataclasses.replace(WORDS, max_length=2)
    model.save(tmp_path / "model")
    with_setting(tmp_path / "model", "direction", "up")
    with pytest.raises(UserError, match=r"config.json: network.direction is 'up'; it must be 'text-image' or"):
        load(tmp_path / "model")
