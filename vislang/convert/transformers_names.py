"""The names of settings, classes and tensors in transformers' data2vec models, for import and export."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from itertools import count
from typing import Any, Literal

import torch
from torch import Tensor

from vislang.convert.keys import Keys, Slot
from vislang.models.data2vec.encoder import Encoder
from vislang.models.data2vec.front_ends import ImageConfig
from vislang.models.data2vec.heads import Kind

Modality = Literal["text", "image", "speech"]

MODALITIES: dict[str, Modality] = {"data2vec-text": "text", "data2vec-vision": "image", "data2vec-audio": "speech"}
"""transformers' ``model_type`` -> ours."""

PREFIXES = {"text": "data2vec_text.", "image": "data2vec_vision.", "speech": "data2vec_audio."}
"""Prefixes of the encoder's tensors in a model with a head."""

# --------------------------------------------------------------------------------------------------- settings

_SHAPE = {
    "width": "hidden_size",
    "depth": "num_hidden_layers",
    "heads": "num_attention_heads",
    "mlp_width": "intermediate_size",
    "eps": "layer_norm_eps",
    "activation": "hidden_act",
}
_DROPOUT = {"dropout": "hidden_dropout_prob", "attention_dropout": "attention_probs_dropout_prob"}

ENCODER_SETTINGS = {
    "text": {**_SHAPE, **_DROPOUT},
    "image": {**_SHAPE, **_DROPOUT},
    "speech": {
        **_SHAPE,
        "dropout": "hidden_dropout",
        "attention_dropout": "attention_dropout",
        "activation_dropout": "activation_dropout",
    },
}
"""Field of EncoderConfig -> field of transformers' configuration with the same meaning and value."""

FRONT_END_SETTINGS = {
    "text": {"vocabulary_size": "vocab_size", "padding_id": "pad_token_id"},
    "image": {
        "size": "image_size",
        "patch": "patch_size",
        "channels": "num_channels",
        "relative_per_layer": "use_relative_position_bias",
    },
    "speech": {
        "convolution_bias": "conv_bias",
        "position_groups": "num_conv_pos_embedding_groups",
        "position_depth": "num_conv_pos_embeddings",
    },
}
"""Field of the front end's configuration -> field of transformers'."""

# ---------------------------------------------------------------------------------------------------- classes

ENCODERS = {"text": "Data2VecTextModel", "image": "Data2VecVisionModel", "speech": "Data2VecAudioModel"}

Row = tuple[str, str]

_HEADS: list[tuple[str, Modality, tuple[Kind, ...], list[Row]]] = [
    (
        "Data2VecTextForSequenceClassification",
        "text",
        ("classification", "regression"),
        [("inner", "classifier.dense"), ("output", "classifier.out_proj")],
    ),
    ("Data2VecTextForTokenClassification", "text", ("tagging",), [("output", "classifier")]),
    ("Data2VecTextForQuestionAnswering", "text", ("answering",), [("output", "qa_outputs")]),
    (
        "Data2VecTextForMultipleChoice",
        "text",
        ("choice",),
        [("inner", "data2vec_text.pooler.dense"), ("output", "classifier")],
    ),
    (
        "Data2VecTextForMaskedLM",
        "text",
        ("language",),
        [
            ("dense", "lm_head.dense"),
            ("norm", "lm_head.layer_norm"),
            # Two names of one tensor if it is tied; if not, transformers uses that of the decoder.
            ("output.bias", "lm_head.bias"),
            ("output", "lm_head.decoder"),
        ],
    ),
    (
        "Data2VecVisionForImageClassification",
        "image",
        ("classification", "regression"),
        [("norm", "data2vec_vision.pooler.layernorm"), ("output", "classifier")],
    ),
    (
        "Data2VecAudioForSequenceClassification",
        "speech",
        ("classification",),
        [("layer_weights", "layer_weights"), ("inner", "projector"), ("output", "classifier")],
    ),
    (
        "Data2VecAudioForAudioFrameClassification",
        "speech",
        ("tagging",),
        [("layer_weights", "layer_weights"), ("output", "classifier")],
    ),
    ("Data2VecAudioForCTC", "speech", ("ctc",), [("output", "lm_head")]),
    (
        "Data2VecAudioForXVector",
        "speech",
        ("speaker",),
        [
            ("layer_weights", "layer_weights"),
            ("project", "projector"),
            ("convolutions.{n}", "tdnn.{n}.kernel"),
            ("vector", "feature_extractor"),
            ("output", "classifier"),
            ("speakers", "objective.weight"),
        ],
    ),
]
"""Class, modality, kinds of head, and the names of tensors in the head."""

CLASS_OF: dict[tuple[str, str], str] = {(m, kind): name for name, m, kinds, _ in _HEADS for kind in kinds}
KIND_OF: dict[str, Kind] = {name: kinds[0] for name, _, kinds, _ in _HEADS}
_HEAD_ROWS: dict[tuple[str, str], list[Row]] = {(m, kind): rows for _, m, kinds, rows in _HEADS for kind in kinds}

# ---------------------------------------------------------------------------------------------------- tensors

# A row is a module (its weight and bias) or a tensor. "0/3" is the first of three equal slices; {n} is the number of a
# block or layer; FRONT is the front end. A row is ignored if our model has no such tensor.

_BLOCK: list[tuple[str, str, str, str]] = [
    # ours                                  text                          image                          speech
    ("attention.to_queries_keys_values 0/3", "attention.self.query", "attention.attention.query", "attention.q_proj"),
    ("attention.to_queries_keys_values 1/3", "attention.self.key", "", "attention.k_proj"),
    # A key bias adds the same number to all scores of a query, so softmax is unchanged; image blocks have none.
    ("attention.to_queries_keys_values.weight 1/3", "", "attention.attention.key.weight", ""),
    ("attention.to_queries_keys_values 2/3", "attention.self.value", "attention.attention.value", "attention.v_proj"),
    ("attention.to_output", "attention.output.dense", "attention.output.dense", "attention.out_proj"),
    ("attention_norm", "attention.output.LayerNorm", "layernorm_before", "layer_norm"),
    ("widen", "intermediate.dense", "intermediate.dense", "feed_forward.intermediate_dense"),
    ("narrow", "output.dense", "output.dense", "feed_forward.output_dense"),
    ("feed_forward_norm", "output.LayerNorm", "layernorm_after", "final_layer_norm"),
    ("attention_scale", "", "lambda_1", ""),
    ("feed_forward_scale", "", "lambda_2", ""),
]
_BLOCKS = {"text": "encoder.layer", "image": "encoder.layer", "speech": "encoder.layers"}
_COLUMN = {"text": 1, "image": 2, "speech": 3}

_TABLE = "relative_position_bias.relative_position_bias_table"

_AROUND: dict[str, list[Row]] = {
    "text": [
        ("FRONT.local.tokens", "embeddings.word_embeddings"),
        ("FRONT.local.positions", "embeddings.position_embeddings"),
        ("FRONT.local.norm", "embeddings.LayerNorm"),
    ],
    "image": [
        ("FRONT.class_tokens", "embeddings.cls_token"),
        ("FRONT.mask_token", "embeddings.mask_token"),
        ("FRONT.local.patches", "embeddings.patch_embeddings.projection"),
        ("FRONT.absolute_positions", "embeddings.position_embeddings"),
        ("norm", "layernorm"),
    ],
    "speech": [
        ("FRONT.mask_token", "masked_spec_embed"),
        ("FRONT.local.convolutions.{n}", "feature_extractor.conv_layers.{n}.conv"),
        ("FRONT.local.norms.{n}", "feature_extractor.conv_layers.{n}.layer_norm"),
        ("FRONT.project.0", "feature_projection.layer_norm"),
        ("FRONT.project.1", "feature_projection.projection"),
        ("FRONT.positions.layers.{n}", "encoder.pos_conv_embed.layers.{n}.conv"),
        ("FRONT.norm", "encoder.layer_norm"),
    ],
}

MASK_TOKENS = ("embeddings.mask_token", "masked_spec_embed")
"""Tensors that are optional in transformers and always exist in ours."""


def keys(encoder: Encoder, modality: str, head: Mapping[str, Tensor] | None, kind: str | None) -> Keys:
    """The map from transformers' tensors to those of :func:`tensors`.

    Args:
        encoder: an encoder whose front end has no blocks of its own.
        modality: the modality of its front end.
        head: the head's tensors, by name; None for an encoder alone.
        kind: the kind of head.
    """
    ours = tensors(encoder, head)
    prefix = "" if head is None else PREFIXES[modality]
    rows = [(row[0], prefix + row[1]) for row in _AROUND[modality]]
    config = encoder.front_end(modality).config
    per_layer = isinstance(config, ImageConfig) and config.relative_per_layer
    if per_layer:
        depth = len(encoder.blocks)
        table = f"{prefix}encoder.layer.{{n}}.attention.attention.{_TABLE}"
        rows += [(f"FRONT.bias.tables {n}/{depth}", table.format(n=n)) for n in range(depth)]
    else:
        rows.append(("FRONT.bias.tables", f"{prefix}encoder.{_TABLE}"))
    for row in _BLOCK:
        if theirs := row[_COLUMN[modality]]:
            rows.append((f"blocks.{{n}}.{row[0]}", f"{prefix}{_BLOCKS[modality]}.{{n}}.{theirs}"))
    if head is not None:
        assert kind is not None
        rows += [(f"head.{our}", their) for our, their in _HEAD_ROWS[modality, kind]]
    found: Keys = {}
    for our, their in rows:
        our = our.replace("FRONT", f"front_ends.{modality}")
        for n in count():
            slots = dict(_slots(our.format(n=n), their.format(n=n), ours))
            found |= slots
            if "{n}" not in our or not slots:
                break
    return found


def _slots(our: str, their: str, tensors: Mapping[str, Tensor]) -> Iterator[tuple[str, Slot]]:
    name, _, slice_ = our.partition(" ")
    part, parts = map(int, slice_.split("/")) if slice_ else (0, 1)
    if name in tensors:
        yield their, Slot(name, part, parts)
    for kind in ("weight", "bias"):
        if f"{name}.{kind}" in tensors:
            yield f"{their}.{kind}", Slot(f"{name}.{kind}", part, parts)


def tensors(encoder: Encoder, head: Mapping[str, Tensor] | None) -> dict[str, Tensor]:
    """The encoder's parameters by name, and the head's with the prefix ``head.``."""
    named = {name: parameter.detach() for name, parameter in encoder.named_parameters()}
    return {**named, **{f"head.{name}": tensor for name, tensor in (head or {}).items()}}


# Two redundant tensors of transformers do not exist here. Every token has the first token type, whose embedding can be
# added to those of the positions; and the position embedding of the class token can be added to the class token.


def fold(state: Mapping[str, Tensor], modality: str, prefix: str) -> dict[str, Tensor]:
    """transformers' tensors without those of token types and of the class token's position."""
    folded = dict(state)
    inside = f"{prefix}embeddings."
    if modality == "text":
        types = folded.pop(f"{inside}token_type_embeddings.weight")
        folded[f"{inside}position_embeddings.weight"] = state[f"{inside}position_embeddings.weight"] + types[0]
    elif (positions := folded.get(f"{inside}position_embeddings")) is not None:
        folded[f"{inside}position_embeddings"] = positions[:, 1:]
        folded[f"{inside}cls_token"] = state[f"{inside}cls_token"] + positions[:, :1]
    return folded


def unfold(state: Mapping[str, Tensor], modality: str, prefix: str, width: int) -> dict[str, Tensor]:
    """Our tensors under transformers' names, with zeros for those that :func:`fold` removes."""
    unfolded = dict(state)
    inside = f"{prefix}embeddings."
    if modality == "text":
        unfolded[f"{inside}token_type_embeddings.weight"] = torch.zeros(1, width)
    elif (positions := unfolded.get(f"{inside}position_embeddings")) is not None:
        unfolded[f"{inside}position_embeddings"] = torch.cat([torch.zeros(1, width), positions])
    return unfolded


def to_ours(config: Any, names: Mapping[str, str]) -> dict[str, Any]:
    """Our settings from transformers' configuration; ``names`` maps our names to theirs."""
    return {ours: getattr(config, theirs) for ours, theirs in names.items()}


def to_theirs(config: Any, names: Mapping[str, str]) -> dict[str, Any]:
    """transformers' settings from our configuration; ``names`` maps our names to theirs."""
    return {theirs: getattr(config, ours) for ours, theirs in names.items()}
