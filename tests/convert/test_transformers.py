"""Encoders of transformers: the same hidden states on random weights, padding included."""

import pytest
import torch
import transformers

from vislang.cli import main
from vislang.convert.keys import ConversionError
from vislang.convert.transformers import convert
from vislang.models.loading import load

SHAPE = {"hidden_size": 24, "num_hidden_layers": 3, "num_attention_heads": 4, "intermediate_size": 40}


def saved(config, folder) -> transformers.PreTrainedModel:
    """A model with every weight far from its initial value, written to a folder."""
    torch.manual_seed(0)
    model = transformers.AutoModel.from_config(config).eval()
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.add_(0.2 * torch.randn_like(parameter))
    model.save_pretrained(folder)
    return model


@pytest.mark.parametrize("change", [{}, {"layer_norm_eps": 1e-3, "pad_token_id": 0}, {"type_vocab_size": 2}])
def test_text(change, tmp_path):
    config = transformers.Data2VecTextConfig(**SHAPE, vocab_size=50, max_position_embeddings=22, **change)
    theirs = saved(config, tmp_path / "theirs")
    tokens = torch.randint(5, 50, (3, 12))
    padding = torch.zeros(3, 12, dtype=torch.bool)
    padding[1, 8:] = padding[2, 3:] = True
    tokens[padding] = config.pad_token_id
    with torch.no_grad():
        wanted = theirs(tokens, attention_mask=(~padding).long()).last_hidden_state
        found = convert(tmp_path / "theirs").student.features("text", tokens, padding)
    assert (wanted - found)[~padding].abs().max() < 1e-5


@pytest.mark.parametrize(
    "change",
    [
        {"use_shared_relative_position_bias": True, "use_mask_token": True},
        {"use_relative_position_bias": True, "layer_scale_init_value": 0.3},
        {"layer_scale_init_value": 0.0, "use_mean_pooling": False},
        {"patch_size": 4, "num_channels": 1, "use_shared_relative_position_bias": True},
    ],
)
def test_images(change, tmp_path):
    config = transformers.Data2VecVisionConfig(**{**SHAPE, "image_size": 24, "patch_size": 8, **change})
    theirs = saved(config, tmp_path / "theirs")
    pixels = torch.randn(2, config.num_channels, 24, 24)
    with torch.no_grad():
        wanted = theirs(pixels).last_hidden_state[:, 1:]
        found = convert(tmp_path / "theirs").student.features("image", pixels)
    assert (wanted - found).abs().max() < 1e-5


@pytest.mark.parametrize("change", [{}, {"conv_bias": True, "layer_norm_eps": 1e-3}, {"num_conv_pos_embeddings": 2}])
def test_speech(change, tmp_path):
    shape = {"conv_dim": (8, 8, 12), "conv_kernel": (10, 3, 2), "conv_stride": (5, 2, 2), "conv_pos_kernel_size": 5}
    config = transformers.Data2VecAudioConfig(**{**SHAPE, **shape, "num_conv_pos_embedding_groups": 4, **change})
    theirs = saved(config, tmp_path / "theirs")
    waves = torch.randn(2, 600)
    padding = torch.zeros(2, 600, dtype=torch.bool)
    padding[1, 400:] = True
    waves[padding] = 0
    ours = convert(tmp_path / "theirs")
    with torch.no_grad():
        wanted = theirs(waves, attention_mask=(~padding).long()).last_hidden_state
        found = ours.student.features("speech", waves, padding)
    real = ~ours.student.front_end("speech").pad(padding, found.shape[1])
    assert (wanted - found)[real].abs().max() < 1e-5


def test_a_converted_model_is_saved_and_goes_on_learning(tmp_path):
    config = transformers.Data2VecVisionConfig(
        **SHAPE, image_size=24, patch_size=8, use_shared_relative_position_bias=True, use_mask_token=True
    )
    saved(config, tmp_path / "theirs")
    assert main(["convert", "transformers", str(tmp_path / "theirs"), str(tmp_path / "ours")]) == 0
    ours = convert(tmp_path / "theirs")
    pixels = torch.randn(2, 3, 24, 24)
    assert torch.equal(
        load(tmp_path / "ours").student.features("image", pixels), ours.student.features("image", pixels)
    )
    assert torch.equal(ours.teacher.blocks[0].widen.weight, ours.student.blocks[0].widen.weight)


def test_other_models_are_refused(tmp_path, towers):
    with pytest.raises(ConversionError, match="is a llama"):
        convert(towers[0])
    with pytest.raises(ConversionError, match="no model of transformers"):
        convert(tmp_path)
