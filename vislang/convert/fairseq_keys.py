"""The keys of fairseq's data2vec checkpoints, mapped to the tensors of our models."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from vislang.convert.keys import Keys, Slot, linear
from vislang.models.data2vec.decoder import DecoderConfig
from vislang.models.data2vec.front_ends import FrontEndConfig, ImageConfig, SpeechConfig, TextConfig
from vislang.models.data2vec.model import Data2Vec

MODALITIES_THERE = {"text": "TEXT", "image": "IMAGE", "speech": "AUDIO"}
"""Our name of a modality -> fairseq's in the keys and configurations of v2."""


def _fairseq_block(theirs: str, ours: str) -> Iterator[tuple[str, Slot]]:
    """Keys of a TransformerEncoderLayer or a TransformerSentenceEncoderLayer (v1 text and speech)."""
    for part, side in enumerate(("q_proj", "k_proj", "v_proj")):
        for kind in ("weight", "bias"):
            slot = Slot(f"{ours}.attention.to_queries_keys_values.{kind}", part, 3)
            yield f"{theirs}.self_attn.{side}.{kind}", slot
    yield from linear(f"{theirs}.self_attn.out_proj", f"{ours}.attention.to_output")
    yield from linear(f"{theirs}.self_attn_layer_norm", f"{ours}.attention_norm")
    yield from linear(f"{theirs}.fc1", f"{ours}.widen")
    yield from linear(f"{theirs}.fc2", f"{ours}.narrow")
    yield from linear(f"{theirs}.final_layer_norm", f"{ours}.feed_forward_norm")


def _beit_block(theirs: str, ours: str, scaled: bool) -> Iterator[tuple[str, Slot]]:
    """Keys of a block of v1's vision transformer, which has no key bias (it would not change attention)."""
    fused = f"{ours}.attention.to_queries_keys_values"
    yield f"{theirs}.attn.qkv.weight", Slot(f"{fused}.weight")
    yield f"{theirs}.attn.q_bias", Slot(f"{fused}.bias", 0, 3)
    yield f"{theirs}.attn.v_bias", Slot(f"{fused}.bias", 2, 3)
    yield from linear(f"{theirs}.attn.proj", f"{ours}.attention.to_output")
    yield from linear(f"{theirs}.norm1", f"{ours}.attention_norm")
    yield from linear(f"{theirs}.norm2", f"{ours}.feed_forward_norm")
    yield from linear(f"{theirs}.mlp.0", f"{ours}.widen")
    yield from linear(f"{theirs}.mlp.2", f"{ours}.narrow")
    if scaled:
        yield f"{theirs}.gamma_1", Slot(f"{ours}.attention_scale")
        yield f"{theirs}.gamma_2", Slot(f"{ours}.feed_forward_scale")


def _alt_block(theirs: str, ours: str, affine: bool) -> Iterator[tuple[str, Slot]]:
    """Keys of a block of v2."""
    yield from linear(f"{theirs}.attn.qkv", f"{ours}.attention.to_queries_keys_values")
    yield from linear(f"{theirs}.attn.proj", f"{ours}.attention.to_output")
    yield from linear(f"{theirs}.mlp.fc1", f"{ours}.widen")
    yield from linear(f"{theirs}.mlp.fc2", f"{ours}.narrow")
    if affine:
        yield from linear(f"{theirs}.norm1", f"{ours}.attention_norm")
        yield from linear(f"{theirs}.norm2", f"{ours}.feed_forward_norm")


def _embedding_keys(theirs: str, ours: str, config: TextConfig) -> Iterator[tuple[str, Slot]]:
    yield f"{theirs}embed_tokens.weight", Slot(f"{ours}.tokens.weight")
    if config.positions == "learned":
        yield f"{theirs}embed_positions.weight", Slot(f"{ours}.positions.weight")
    if config.embedding_norm:
        yield from linear(f"{theirs}layernorm_embedding", f"{ours}.norm")


def _convolution_keys(theirs: str, ours: str, config: SpeechConfig) -> Iterator[tuple[str, Slot]]:
    for index in range(len(config.convolutions)):
        kinds = ("weight", "bias") if config.convolution_bias else ("weight",)
        yield from linear(f"{theirs}.{index}.0", f"{ours}.convolutions.{index}", *kinds)
        if config.convolution_norm == "layer":
            yield from linear(f"{theirs}.{index}.2.1", f"{ours}.norms.{index}")
        elif index == 0:
            yield from linear(f"{theirs}.0.2", f"{ours}.norms.0")


def student_keys(model: Data2Vec) -> Keys:
    """The keys of a checkpoint -> slots in the model."""
    modalities = model.student.front_ends
    if model.objective_config.generation == "v2":
        return dict(_v2_keys(model, "student."))
    if "text" in modalities:
        theirs = "encoder.sentence_encoder."
        keys = {theirs + key: slot for key, slot in _text_keys(model, "student.").items()}
        for index in range(0, 2 * _config(model, "text").head_layers, 2):
            keys |= linear(f"encoder.regression_head.{index}", f"heads.text.{index}")
        return keys
    if "image" in modalities:
        return _image_keys(model, "student.")
    keys = _speech_keys(model, "student.")
    return keys | dict(linear("final_proj", "heads.speech.0"))


def teacher_keys(model: Data2Vec) -> Keys:
    """The keys of the teacher's parameters -> slots in the model."""
    if model.objective_config.generation == "v2":
        keys = dict(_v2_keys(model, "teacher."))
        if model.teacher_config.scope == "encoder":
            return {key.removeprefix("blocks."): slot for key, slot in keys.items()}
        return keys
    if "text" in model.student.front_ends:
        return _text_keys(model, "teacher.")
    keys = _image_keys(model, "teacher.") if "image" in model.student.front_ends else _speech_keys(model, "teacher.")
    return {key.removeprefix("encoder."): slot for key, slot in keys.items() if key.startswith("encoder.")}


def _config(model: Data2Vec, modality: str) -> Any:
    return model.student.front_end(modality).config


def _text_keys(model: Data2Vec, whose: str) -> Keys:
    keys = dict(_embedding_keys("", f"{whose}front_ends.text.local", _config(model, "text")))
    for index in range(len(model.student.blocks)):
        keys |= _fairseq_block(f"layers.{index}", f"{whose}blocks.{index}")
    if model.student.config.final_norm:
        keys |= linear("layer_norm", f"{whose}norm")
    return keys


def _image_keys(model: Data2Vec, whose: str) -> Keys:
    front = f"{whose}front_ends.image"
    keys = {
        "cls_emb": Slot(f"{front}.class_tokens"),
        "mask_emb": Slot(f"{front}.mask_token"),
        **dict(linear("patch_embed.conv", f"{front}.local.patches")),
        "encoder.rel_pos_bias.relative_position_bias_table": Slot(f"{front}.bias.tables"),
        "encoder.rel_pos_bias.relative_position_index": Slot(f"{front}.bias.index"),
    }
    for index in range(len(model.student.blocks)):
        scaled = model.student.config.layer_scale is not None
        keys |= _beit_block(f"encoder.blocks.{index}", f"{whose}blocks.{index}", scaled)
    return keys | dict(linear("encoder.norm", f"{whose}norm"))


def _speech_keys(model: Data2Vec, whose: str) -> Keys:
    config, front = _config(model, "speech"), f"{whose}front_ends.speech"
    keys = {
        "mask_emb": Slot(f"{front}.mask_token"),
        **dict(_convolution_keys("feature_extractor.conv_layers", f"{front}.local", config)),
        **dict(linear("layer_norm", f"{front}.project.0")),
        **dict(linear("post_extract_proj", f"{front}.project.1")),
    }
    if config.position_weight_norm:
        ours = f"{front}.positions.layers.0"
        keys["encoder.pos_conv.0.bias"] = Slot(f"{ours}.bias")
        keys["encoder.pos_conv.0.weight_g"] = Slot(f"{ours}.parametrizations.weight.original0")
        keys["encoder.pos_conv.0.weight_v"] = Slot(f"{ours}.parametrizations.weight.original1")
    else:
        for index in range(config.position_depth):
            keys |= linear(f"encoder.pos_conv.{index}.0", f"{front}.positions.layers.{index}")
    for index in range(len(model.student.blocks)):
        keys |= _fairseq_block(f"encoder.layers.{index}", f"{whose}blocks.{index}")
    return keys | dict(linear("encoder.layer_norm", f"{whose}norm" if config.norm is False else f"{front}.norm"))


def _v2_keys(model: Data2Vec, whose: str) -> Iterator[tuple[str, Slot]]:
    student, affine = model.student, model.student.config.affine
    for index in range(len(student.blocks)):
        yield from _alt_block(f"blocks.{index}", f"{whose}blocks.{index}", affine)
    scope = "all" if whose == "student." else model.teacher_config.scope
    if scope == "encoder":
        return
    if student.norm is not None and affine:
        yield from linear("norm", f"{whose}norm")
    for modality in student.front_ends:
        config: FrontEndConfig = _config(model, modality)
        theirs, ours = f"modality_encoders.{MODALITIES_THERE[modality]}.", f"{whose}front_ends.{modality}"
        if config.class_tokens:
            yield f"{theirs}extra_tokens", Slot(f"{ours}.class_tokens")
        if config.alibi is not None:
            yield f"{theirs}alibi_scale", Slot(f"{ours}.bias.scale")
        if config.norm and affine:
            yield from linear(f"{theirs}context_encoder.norm", f"{ours}.norm")
        for index in range(config.prenet_depth):
            yield from _alt_block(f"{theirs}context_encoder.blocks.{index}", f"{ours}.prenet.{index}", affine)
        if isinstance(config, ImageConfig) and config.positions == "fixed":
            yield f"{theirs}fixed_positional_encoder.positions", Slot(f"{ours}.fixed_positions")
        if isinstance(config, SpeechConfig):
            conv = f"{theirs}relative_positional_encoder."
            if config.position_norm:
                yield from linear(f"{conv}0", f"{ours}.positions.norm")
                conv += "1."
            for index in range(config.position_depth):
                yield from linear(f"{conv}{index + 1}.0", f"{ours}.positions.layers.{index}")
        if scope == "all":
            yield from _v2_local_keys(f"{theirs}local_encoder", ours, config, student.config.width)
            if isinstance(config, SpeechConfig):
                yield from linear(f"{theirs}project_features.1", f"{ours}.project.0")
                yield from linear(f"{theirs}project_features.2", f"{ours}.project.1")
        if whose == "student.":
            yield from _decoder_keys(f"{theirs}decoder", f"heads.{modality}", config.decoder)


def _v2_local_keys(theirs: str, ours: str, config: FrontEndConfig, width: int) -> Iterator[tuple[str, Slot]]:
    if isinstance(config, TextConfig):
        yield from _embedding_keys(f"{theirs}.", f"{ours}.local", config)
    elif isinstance(config, SpeechConfig):
        yield from _convolution_keys(f"{theirs}.conv_layers", f"{ours}.local", config)
    elif isinstance(config, ImageConfig) and config.patch_width in (None, width):
        yield from linear(f"{theirs}.proj", f"{ours}.local.patches")
    else:
        yield from linear(f"{theirs}.0.proj", f"{ours}.local.patches")
        yield from linear(f"{theirs}.1", f"{ours}.local.project")


def _decoder_keys(theirs: str, ours: str, config: DecoderConfig | None) -> Iterator[tuple[str, Slot]]:
    assert config is not None
    for index in range(config.layers):
        yield from linear(f"{theirs}.blocks.{index}.0", f"{ours}.layers.{index}")
    if config.projection_layers == 1:
        yield from linear(f"{theirs}.proj", f"{ours}.project.0")
    else:
        for index in range(0, 2 * config.projection_layers, 2):
            yield from linear(f"{theirs}.proj.{index}", f"{ours}.project.{index}")
