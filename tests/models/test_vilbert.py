"""Two streams: sizes of the original, dependencies, masks, losses without masked positions."""

import pytest
import torch

from vislang.errors import UserError
from vislang.models.vilbert.config import TextStreamConfig, ViLBERTConfig, VisionStreamConfig, preset
from vislang.models.vilbert.heads import original_heads
from vislang.models.vilbert.model import PretrainingLabels, ViLBERT, pretraining_losses

TEXT = {"vocabulary_size": 50, "max_length": 16, "width": 16, "heads": 2, "mlp_width": 32, "depth": 3}
VISION = {"feature_width": 10, "classes": 7, "width": 24, "heads": 2, "mlp_width": 24, "depth": 2}


def config(**more) -> ViLBERTConfig:
    streams = TextStreamConfig(**TEXT), VisionStreamConfig(**VISION)
    return ViLBERTConfig(*streams, **{"co_attention_layers": ((1, 0), (2, 1)), "width": 32, "heads": 4, **more})


def model(**more) -> ViLBERT:
    torch.manual_seed(0)
    return ViLBERT(config(**more), original_heads(32)).eval()


def inputs(batch: int = 2, tokens: int = 6, regions: int = 5):
    ids = torch.randint(1, 50, (batch, tokens))
    return (ids, torch.zeros_like(ids)), (torch.randn(batch, regions, 10), torch.rand(batch, regions, 5))


# Parameters of the original's models, without task tokens: for pretraining, and with the heads of 12-in-1.
ORIGINAL = {
    "base-2": (160_782_973, 178_752_443),
    "base-4": (205_413_501, 223_382_971),
    "base-6": (250_044_029, 268_013_499),
    "base-8": (294_674_557, 312_644_027),
    "large-2": (396_672_381, 414_642_107),
    "large-4": (451_270_013, 469_239_739),
    "large-6": (505_867_645, 523_837_371),
}


@pytest.mark.parametrize("name", ORIGINAL)
def test_presets_have_the_parameters_of_the_original(name):
    made = preset(name)
    # Each co-attention layer of the original has two linear layers that it never applies; here they do not exist.
    unused = len(made.co_attention_layers) * sum((made.width + 1) * stream.width for stream in (made.text, made.vision))
    with torch.device("meta"):
        for heads, wanted in zip(({}, original_heads()), ORIGINAL[name], strict=True):
            assert unused + sum(p.numel() for p in ViLBERT(made, heads).parameters()) == wanted


def test_a_preset_that_does_not_exist_is_named():
    with pytest.raises(UserError, match=r"no preset 'base-3'. The presets are base-2"):
        preset("base-3")


@pytest.mark.parametrize(
    ("more", "message"),
    [
        ({"co_attention_layers": ((2, 0), (1, 1))}, "must not decrease"),
        ({"co_attention_layers": ((1, 0), (4, 1))}, "the text stream's 3 layers"),
        ({"width": 30}, "not a multiple of 4 heads"),
        ({"heads": 0}, "streams.heads is 0; it must be at least 1"),
    ],
)
def test_settings_that_do_not_go_together_are_named(more, message):
    with pytest.raises(UserError, match=message):
        config(**more)


@pytest.mark.parametrize(
    ("stream", "settings", "message"),
    [
        (TextStreamConfig, {"heads": 0}, "text.heads is 0; it must be at least 1"),
        (TextStreamConfig, {"depth": -1}, "text.depth is -1; it must be at least 0"),
        (TextStreamConfig, {"vocabulary_size": 0}, "text.vocabulary_size is 0"),
        (TextStreamConfig, {"dropout": 1.0}, r"text.dropout is 1\.0; it must be at least 0 and below 1"),
        (TextStreamConfig, {"max_length": 2}, "text.max_length is 2; it must be at least 3"),
        (TextStreamConfig, {"max_length": 3, "task_tokens": 20}, "text.max_length is 3; it must be at least 4"),
        (VisionStreamConfig, {"mlp_width": 0}, "vision.mlp_width is 0"),
        (VisionStreamConfig, {"attention_dropout": -0.1}, r"vision.attention_dropout is -0\.1"),
        (VisionStreamConfig, {"width": 100, "heads": 8}, "vision.width 100 is not a multiple of 8 heads"),
    ],
)
def test_streams_of_invalid_shapes_are_errors(stream, settings, message):
    with pytest.raises(UserError, match=message):
        stream(**settings)


def test_what_is_read_alone_is_read_once_for_many_pairs():
    """Every text with every image, each computed once, equals each pair computed alone."""
    built = model()
    text, vision = inputs(batch=3)
    read, seen = built.streams.read_text(*text), built.streams.read_regions(*vision)
    rows, columns = torch.arange(3).repeat_interleave(3), torch.arange(3).repeat(3)
    together = built.streams(read._replace(tokens=read.tokens[rows]), seen._replace(tokens=seen.tokens[columns]))
    for pair, (row, column) in enumerate(zip(rows.tolist(), columns.tolist(), strict=True)):
        alone = built.streams(
            built.streams.read_text(*(part[row : row + 1] for part in text)),
            built.streams.read_regions(*(part[column : column + 1] for part in vision)),
        )
        torch.testing.assert_close(together.pooled_text[pair], alone.pooled_text[0], atol=1e-5, rtol=1e-4)
        torch.testing.assert_close(together.vision[pair], alone.vision[0], atol=1e-5, rtol=1e-4)


@pytest.mark.parametrize("dynamic", [False, True])
def test_padding_changes_nothing(dynamic):
    built = model(dynamic_attention=dynamic)
    text, vision = inputs()
    alone = built.streams(built.streams.read_text(*text), built.streams.read_regions(*vision))
    longer = [torch.nn.functional.pad(part, (0, 3)) for part in text]
    more = [torch.nn.functional.pad(part, (0, 0, 0, 2), value=9.0) for part in vision]
    padding = torch.arange(9).expand(2, -1) >= 6, torch.arange(7).expand(2, -1) >= 5
    padded = built.streams(built.streams.read_text(*longer, padding[0]), built.streams.read_regions(*more, padding[1]))
    torch.testing.assert_close(padded.text[:, :6], alone.text, atol=1e-5, rtol=1e-4)
    torch.testing.assert_close(padded.vision[:, :5], alone.vision, atol=1e-5, rtol=1e-4)
    scores = built.predict("region", padded)[..., 0]
    assert (scores.argmax(dim=1) < 5).all()


def test_the_streams_meet_only_by_co_attention():
    text, vision = inputs()
    other = (torch.randn_like(vision[0]), vision[1])
    for meets in (True, False):
        built = model(co_attention=meets)
        read = built.streams.read_text(*text)
        found = [built.streams(read, built.streams.read_regions(*seen)).text for seen in (vision, other)]
        assert torch.allclose(*found) != meets


def test_shown_weights_are_the_weights_that_are_used():
    torch.manual_seed(0)
    block = model().streams.co_attention[0]
    text, vision = torch.randn(2, 6, 16), torch.randn(2, 5, 24)
    mask = torch.ones(2, 1, 1, 5, dtype=torch.bool)
    mask[1, ..., 3:] = False
    over_regions, over_tokens = block.weights(text, vision, None, mask)
    assert over_regions[1, ..., 3:].max() == 0
    torch.testing.assert_close(over_tokens.sum(-1), torch.ones(2, 4, 5))
    values = block.vision.project(vision)[2]
    attended = block.text.to_output((over_regions @ values).transpose(1, 2).flatten(2))
    x = block.text.attention_norm(text + attended)
    by_hand = block.text.feed_forward_norm(x + block.text.narrow(block.text.activation(block.text.widen(x))))
    torch.testing.assert_close(block(text, vision, None, mask)[0], by_hand)


def labels(masked: bool) -> PretrainingLabels:
    words, regions = torch.full((2, 6), -1), torch.zeros(2, 5, dtype=torch.bool)
    if masked:
        words[0, 2], words[1, 4], regions[1, 1] = 7, 9, True
    return PretrainingLabels(words, regions, torch.rand(2, 5, 7).softmax(-1), torch.tensor([True, False]))


def test_losses_are_those_of_their_definitions():
    built = model()
    text, vision = inputs()
    encoded = built.streams(built.streams.read_text(*text), built.streams.read_regions(*vision))
    wanted = labels(masked=True)
    found = pretraining_losses(built, encoded, wanted)
    logits = built.pretraining_logits(encoded.text, encoded.vision, built.fuse(encoded))
    words = logits.words.log_softmax(-1)
    torch.testing.assert_close(found["words"], -(words[0, 2, 7] + words[1, 4, 9]) / 2)
    target, guess = wanted.region_classes[1, 1], logits.regions[1, 1].softmax(-1)
    torch.testing.assert_close(found["regions"], (target * (target / guess).log()).sum())
    aligned = logits.alignment.log_softmax(-1)
    torch.testing.assert_close(found["alignment"], -(aligned[0, 0] + aligned[1, 1]) / 2)


def test_where_nothing_was_masked_losses_and_gradients_are_zero_and_no_nan():
    built = model()
    text, vision = inputs()
    encoded = built.streams(built.streams.read_text(*text), built.streams.read_regions(*vision))
    found = pretraining_losses(built, encoded, labels(masked=False))
    assert found["words"] == found["regions"] == 0
    (found["words"] + found["regions"]).backward()
    assert all(p.grad is None or p.grad.abs().max() == 0 for p in built.parameters())


def test_pairs_of_rows_share_a_prediction():
    built = model()
    text, vision = inputs(batch=4)
    encoded = built.streams(built.streams.read_text(*text), built.streams.read_regions(*vision))
    assert built.predict("pairs", encoded).shape == (2, 2)
    assert built.predict("answers", encoded).shape == (4, 3129)
    assert built.predict("token", encoded).shape == (4, 6, 1)


@pytest.mark.parametrize("more", [{}, {"dynamic_attention": True}])
def test_forward_is_both_streams_and_old_names_of_weights_load(more):
    built = model(**more)
    (ids, segments), (features, boxes) = inputs()
    expected = built.streams(built.streams.read_text(ids, segments), built.streams.read_regions(features, boxes))
    torch.testing.assert_close(built(ids, segments, features, boxes).vision, expected.vision)
    old = built.state_dict()
    for now, before in {"co_attention.": "meetings.", "query_key_gates.": "gains."}.items():
        old = {name.replace(f"streams.{now}", f"streams.{before}"): tensor for name, tensor in old.items()}
    assert any("meetings" in name for name in old)
    other = ViLBERT(config(**more), original_heads(32)).eval()
    other.load_state_dict(old)
    torch.testing.assert_close(other(ids, segments, features, boxes).vision, expected.vision)
