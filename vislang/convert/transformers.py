"""data2vec encoders of transformers: Data2VecText, Data2VecVision and Data2VecAudio, base models.

transformers keeps the encoder alone. What it lacks is made anew: the teacher starts as a copy of the student, and the
head that predicts starts fresh.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor
from transformers import AutoConfig, AutoModel

from vislang.convert.keys import ConversionError, Keys, Place
from vislang.models.data2vec import (
    Data2Vec,
    EncoderConfig,
    ImageConfig,
    Modalities,
    ObjectiveConfig,
    SpeechConfig,
    TeacherConfig,
    TextConfig,
)


def convert(source: Path | str) -> Data2Vec:
    """Open a data2vec encoder of transformers, by folder or Hub id; what heads it has are left out.

    Raises:
        ConversionError: nothing there, another kind of model, or a setting that is not supported.
    """
    try:
        config = AutoConfig.from_pretrained(source)
        if config.model_type not in ("data2vec-text", "data2vec-vision", "data2vec-audio"):
            raise ConversionError(f"{source}: is a {config.model_type}; only data2vec text, vision and audio convert.")
        theirs = AutoModel.from_pretrained(source, dtype=torch.float32)
    except (OSError, ValueError) as error:
        if isinstance(error, ConversionError):
            raise
        reason = (str(error).strip().splitlines() or [type(error).__name__])[0]
        raise ConversionError(f"{source}: no model of transformers ({reason}).") from None
    model, keys = {"text": _text, "vision": _image, "audio": _speech}[config.model_type.removeprefix("data2vec-")](
        config
    )
    fill(model, keys, theirs.state_dict())
    model.reset_teacher()
    model.origin = {"format": "transformers", "model_type": config.model_type}
    return model.eval()


def fill(model: Data2Vec, keys: Keys, state: Mapping[str, Tensor]) -> None:
    """Copy every key of a state dict to its place.

    Raises:
        ConversionError: keys are missing or unexpected; the message lists them.
    """
    unused = ("pooler.", "embeddings.position_ids", "embeddings.token_type", "relative_position_index")
    faults = [f"missing {key}" for key in keys if key not in state]
    faults += [f"unexpected {key}" for key in state if key not in keys and not any(part in key for part in unused)]
    if faults:
        raise ConversionError("weights: " + "; ".join(faults[:20]))
    tensors = dict(model.named_parameters())
    with torch.no_grad():
        for name, tensor in tensors.items():
            if name.endswith("to_queries_keys_values.bias"):
                tensor.zero_()
        for key, place in keys.items():
            target = place.of(tensors)
            target.copy_(state[key].reshape(target.shape))
        types = state.get("embeddings.token_type_embeddings.weight")
        if types is not None:
            # Every token is of the first type: what that adds belongs to the positions just as well.
            tensors["student.front_ends.text.local.positions.weight"].add_(types[0])


def _shape(config: Any, **more: Any) -> EncoderConfig:
    if config.hidden_act not in ("gelu", "relu"):
        raise ConversionError(f"configuration: hidden_act {config.hidden_act!r} is not supported, only gelu and relu.")
    return EncoderConfig(
        width=config.hidden_size,
        depth=config.num_hidden_layers,
        heads=config.num_attention_heads,
        hidden=config.intermediate_size,
        eps=config.layer_norm_eps,
        activation=config.hidden_act,
        **more,
    )


def _objective(depth: int, **more: Any) -> ObjectiveConfig:
    return ObjectiveConfig(top_k=min(more.pop("top_k"), depth), **more)


def _pair(theirs: str, ours: str) -> Iterator[tuple[str, Place]]:
    for kind in ("weight", "bias"):
        yield f"{theirs}.{kind}", Place(f"{ours}.{kind}")


def _attention(names: tuple[str, str, str], ours: str, silent_keys: bool = False) -> Iterator[tuple[str, Place]]:
    for part, name in enumerate(names):
        for kind in ("weight",) if silent_keys and part == 1 else ("weight", "bias"):
            yield f"{name}.{kind}", Place(f"{ours}.attention.to_queries_keys_values.{kind}", part, 3)


def _text(config: Any) -> tuple[Data2Vec, Keys]:
    text = TextConfig(
        vocabulary_size=config.vocab_size,
        max_length=config.max_position_embeddings - config.pad_token_id - 1,
        padding_id=config.pad_token_id,
        mask_id=config.vocab_size - 1,
        embedding_eps=config.layer_norm_eps,
        zero_padding=False,
    )
    model = Data2Vec(
        _shape(config),
        Modalities(text=text),
        _objective(config.num_hidden_layers, top_k=10, beta=4.0),
        TeacherConfig(scope="all", copied=("front_ends.text.local",)),
    )
    local = "student.front_ends.text.local"
    keys = {
        "embeddings.word_embeddings.weight": Place(f"{local}.tokens.weight"),
        "embeddings.position_embeddings.weight": Place(f"{local}.positions.weight"),
        **dict(_pair("embeddings.LayerNorm", f"{local}.norm")),
    }
    for index in range(config.num_hidden_layers):
        theirs, ours = f"encoder.layer.{index}", f"student.blocks.{index}"
        inner = f"{theirs}.attention.self."
        keys |= _attention((f"{inner}query", f"{inner}key", f"{inner}value"), ours)
        keys |= _pair(f"{theirs}.attention.output.dense", f"{ours}.attention.to_output")
        keys |= _pair(f"{theirs}.attention.output.LayerNorm", f"{ours}.attention_norm")
        keys |= _pair(f"{theirs}.intermediate.dense", f"{ours}.widen")
        keys |= _pair(f"{theirs}.output.dense", f"{ours}.narrow")
        keys |= _pair(f"{theirs}.output.LayerNorm", f"{ours}.feed_forward_norm")
    return model, keys


def _image(config: Any) -> tuple[Data2Vec, Keys]:
    if config.use_absolute_position_embeddings:
        raise ConversionError("configuration: use_absolute_position_embeddings is not supported.")
    per_layer, shared = config.use_relative_position_bias, config.use_shared_relative_position_bias
    if per_layer and shared:
        raise ConversionError("configuration: relative position biases are either shared or not, not both.")
    image = ImageConfig(
        size=config.image_size,
        patch=config.patch_size,
        channels=config.num_channels,
        positions="relative" if per_layer or shared else "none",
        relative_per_layer=per_layer,
    )
    scale = config.layer_scale_init_value
    model = Data2Vec(
        _shape(config, norm_first=True, final_norm=not config.use_mean_pooling, layer_scale=scale or None),
        Modalities(image=image),
        _objective(config.num_hidden_layers, top_k=6, beta=2.0, end_of_block=True),
        TeacherConfig(0.9998, 0.9998, scope="context", copied=("front_ends.image.class_tokens",)),
    )
    front = "student.front_ends.image"
    keys: Keys = {"embeddings.cls_token": Place(f"{front}.class_tokens")}
    keys |= _pair("embeddings.patch_embeddings.projection", f"{front}.local.patches")
    if config.use_mask_token:
        keys["embeddings.mask_token"] = Place(f"{front}.mask_token")
    table = "relative_position_bias.relative_position_bias_table"
    if shared:
        keys[f"encoder.{table}"] = Place(f"{front}.bias.tables")
    for index in range(config.num_hidden_layers):
        theirs, ours = f"encoder.layer.{index}", f"student.blocks.{index}"
        inner = f"{theirs}.attention.attention."
        keys |= _attention((f"{inner}query", f"{inner}key", f"{inner}value"), ours, silent_keys=True)
        keys |= _pair(f"{theirs}.attention.output.dense", f"{ours}.attention.to_output")
        keys |= _pair(f"{theirs}.layernorm_before", f"{ours}.attention_norm")
        keys |= _pair(f"{theirs}.layernorm_after", f"{ours}.feed_forward_norm")
        keys |= _pair(f"{theirs}.intermediate.dense", f"{ours}.widen")
        keys |= _pair(f"{theirs}.output.dense", f"{ours}.narrow")
        if scale:
            keys[f"{theirs}.lambda_1"] = Place(f"{ours}.attention_scale")
            keys[f"{theirs}.lambda_2"] = Place(f"{ours}.feed_forward_scale")
        if per_layer:
            keys[f"{inner}{table}"] = Place(f"{front}.bias.tables", index, config.num_hidden_layers)
    if not config.use_mean_pooling:
        keys |= _pair("layernorm", "student.norm")
    return model, keys


def _speech(config: Any) -> tuple[Data2Vec, Keys]:
    if config.add_adapter:
        raise ConversionError("configuration: add_adapter is not supported.")
    if config.feat_extract_activation != "gelu":
        raise ConversionError("configuration: feat_extract_activation must be gelu.")
    speech = SpeechConfig(
        strict_padding=False,
        convolutions=list(zip(config.conv_dim, config.conv_kernel, config.conv_stride, strict=True)),
        convolution_bias=config.conv_bias,
        position_kernel=config.conv_pos_kernel_size * config.num_conv_pos_embeddings,
        position_groups=config.num_conv_pos_embedding_groups,
        position_depth=config.num_conv_pos_embeddings,
        feature_eps=config.layer_norm_eps,
    )
    model = Data2Vec(
        _shape(config),
        Modalities(speech=speech),
        _objective(config.num_hidden_layers, top_k=8, layer_norms=("instance",)),
        TeacherConfig(scope="context", copied=("front_ends.speech.positions",)),
    )
    front = "student.front_ends.speech"
    keys: Keys = {"masked_spec_embed": Place(f"{front}.mask_token")}
    for index in range(len(config.conv_dim)):
        theirs = f"feature_extractor.conv_layers.{index}"
        keys[f"{theirs}.conv.weight"] = Place(f"{front}.local.convolutions.{index}.weight")
        if config.conv_bias:
            keys[f"{theirs}.conv.bias"] = Place(f"{front}.local.convolutions.{index}.bias")
        keys |= _pair(f"{theirs}.layer_norm", f"{front}.local.norms.{index}")
    keys |= _pair("feature_projection.layer_norm", f"{front}.project.0")
    keys |= _pair("feature_projection.projection", f"{front}.project.1")
    for index in range(config.num_conv_pos_embeddings):
        keys |= _pair(f"encoder.pos_conv_embed.layers.{index}.conv", f"{front}.positions.layers.{index}")
    keys |= _pair("encoder.layer_norm", f"{front}.norm")
    for index in range(config.num_hidden_layers):
        theirs, ours = f"encoder.layers.{index}", f"student.blocks.{index}"
        inner = f"{theirs}.attention."
        keys |= _attention((f"{inner}q_proj", f"{inner}k_proj", f"{inner}v_proj"), ours)
        keys |= _pair(f"{inner}out_proj", f"{ours}.attention.to_output")
        keys |= _pair(f"{theirs}.layer_norm", f"{ours}.attention_norm")
        keys |= _pair(f"{theirs}.feed_forward.intermediate_dense", f"{ours}.widen")
        keys |= _pair(f"{theirs}.feed_forward.output_dense", f"{ours}.narrow")
        keys |= _pair(f"{theirs}.final_layer_norm", f"{ours}.feed_forward_norm")
    return model, keys
