"""Heads on untrained encoders: the shape of their logits, independence of padding, mismatches."""

import pytest
import torch

from vislang.document import Document
from vislang.errors import UserError
from vislang.example import Example
from vislang.models.data2vec.blocks import EncoderConfig
from vislang.models.data2vec.finetuning import BLANK, FineTuned, FineTuneRecipe
from vislang.models.data2vec.front_ends import AlibiConfig, ImageConfig, Modalities, SpeechConfig, TextConfig
from vislang.models.data2vec.heads import HeadConfig
from vislang.models.data2vec.inputs import Inputs
from vislang.models.loading import load

ENCODER = EncoderConfig(width=16, depth=2, heads=2, mlp_width=32)
FRONT_ENDS = {
    "text": TextConfig(vocabulary_size=40, max_length=16, mask_id=39),
    # With v2's class token and attention bias, because a head can be on any encoder.
    "image": ImageConfig(size=24, patch=6, positions="fixed", alibi=AlibiConfig(distance="euclidean"), prenet_depth=1),
    "speech": SpeechConfig(
        convolutions=[(8, 10, 5), (8, 3, 2), (8, 3, 2)], position_kernel=6, position_groups=2, position_depth=2
    ),
}
WINDOWS = [(6, 3, 1), (8, 2, 2)]
LABELS = (BLANK, "a", "b")


def tuned(modality: str, head: HeadConfig) -> FineTuned:
    torch.manual_seed(0)
    needs_none = head.kind in ("regression", "language", "answering", "choice")
    modalities = Modalities(**{modality: FRONT_ENDS[modality]})
    return FineTuned(ENCODER, modalities, Inputs(), head, () if needs_none else LABELS).eval()


def values_of(modality: str) -> torch.Tensor:
    if modality == "text":
        return torch.randint(5, 30, (2, 12))
    return torch.randn(2, 3, 24, 24) if modality == "image" else torch.randn(2, 390)


@pytest.mark.parametrize(
    ("modality", "head", "shape"),
    [
        *[(modality, HeadConfig(), (2, 3)) for modality in FRONT_ENDS],
        *[(modality, HeadConfig("regression", layer_sum=True), (2, 1)) for modality in FRONT_ENDS],
        ("text", HeadConfig(pooling="first", inner=16, activation="tanh"), (2, 3)),
        ("image", HeadConfig(pooling="first", norm=True), (2, 3)),
        ("text", HeadConfig("tagging"), (2, 12, 3)),
        ("image", HeadConfig("tagging", layer_sum=True), (2, 16, 3)),
        ("speech", HeadConfig("tagging"), (2, 18, 3)),
        ("speech", HeadConfig("ctc"), (2, 18, 3)),
        ("text", HeadConfig("language"), (2, 12, 40)),
        ("text", HeadConfig("answering"), (2, 12, 2)),
        ("speech", HeadConfig("speaker", inner=5, convolutions=WINDOWS, layer_sum=True), (2, 5)),
    ],
)
def test_a_head_on_an_untrained_encoder_learns(modality, head, shape, tmp_path):
    model = tuned(modality, head)
    values = values_of(modality)
    logits = model.logits(values)
    assert logits.shape == shape
    (logits - logits.detach().mean() - 1).square().mean().backward()
    unread = {"encoder.front_ends.image.fixed_positions", "encoder.front_ends.image.mask_token"}
    unread |= {"encoder.front_ends.speech.mask_token", "head.speakers"}
    silent = {name for name, parameter in model.named_parameters() if parameter.grad is None}
    assert silent <= unread
    model.save(tmp_path)
    assert torch.equal(load(tmp_path).logits(values), logits)


@pytest.mark.parametrize("head", [HeadConfig(), HeadConfig("ctc"), HeadConfig("speaker", convolutions=[(6, 3, 1)])])
def test_padding_changes_nothing(head):
    model = tuned("speech", head)
    wave = torch.randn(1, 390)
    padded = torch.cat([wave, torch.zeros(1, 160)], dim=1)
    padding = torch.arange(550)[None] >= 390
    with torch.no_grad():
        alone, together = model.logits(wave), model.logits(padded, padding)
    real = together[:, : alone.shape[1]]
    assert torch.allclose(alone, real, atol=1e-5)


def test_one_of_several_texts_is_chosen():
    model = tuned("text", HeadConfig("choice", "first", inner=16, activation="tanh"))
    texts = torch.randint(5, 30, (2, 4, 9))
    padding = torch.zeros(2, 4, 9, dtype=torch.bool)
    padding[1, 2, 5:] = True
    texts[padding] = 1
    with torch.no_grad():
        found = model.logits(texts, padding)
        assert found.shape == (2, 4)
        assert torch.allclose(found[1, 2], model.logits(texts[1:, 2:3, :5])[0, 0], atol=1e-6)


def test_a_tied_head_is_the_embedding_and_stays_it(tmp_path):
    model = tuned("text", HeadConfig("language"))
    model.save(tmp_path)
    for made in (model, load(tmp_path)):
        assert made.head.output.weight is made.encoder.front_end("text").local.tokens.weight
    assert tuned("text", HeadConfig("language", tied=False)).head.output.weight.shape == (40, 16)
    names = [name for name, _ in tuned("text", HeadConfig("language")).parameter_groups()["head"]]
    assert "head.output.bias" in names
    assert "head.output.weight" not in names


@pytest.mark.parametrize(
    ("modality", "head", "message"),
    [
        ("image", HeadConfig("ctc"), "ctc is for speech"),
        ("speech", HeadConfig("language"), "language is for text"),
        ("speech", HeadConfig(pooling="first"), "no class token"),
    ],
)
def test_heads_that_do_not_fit(modality, head, message):
    with pytest.raises(UserError, match=message):
        tuned(modality, head)


def test_what_gives_logits_alone_decides_nothing():
    model = tuned("text", HeadConfig("answering"))
    assert model.heads == {}
    assert "no head for targets of the kind text" in model.why_undecided("text")
    with pytest.raises(UserError, match="this model has no heads"):
        model.decide([Example("1", Document(["a"]))])


def test_heads_that_come_converted_are_not_trained(tmp_path):
    from tests.models.test_data2vec import model

    model("v1").save(tmp_path)
    with pytest.raises(UserError, match="language cannot be trained here"):
        FineTuneRecipe(str(tmp_path), "text", HeadConfig("language")).build()
