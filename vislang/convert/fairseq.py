"""fairseq's data2vec checkpoints (examples/data2vec), v1 and v2.

This module converts fairseq's configuration and maps the keys of a checkpoint to our parameters. Loading, and the
comparison of gradients and of the teacher, use this map.
"""

from __future__ import annotations

import ast
from collections.abc import Iterator, Mapping
from dataclasses import replace
from typing import Any

import torch
from torch import Tensor

from vislang.convert.keys import ConversionError, Keys, Slot, fill, linear
from vislang.convert.settings import Settings
from vislang.models.data2vec.blocks import EncoderConfig, run_blocks
from vislang.models.data2vec.decoder import ConvolutionalDecoder, DecoderConfig
from vislang.models.data2vec.front_ends import (
    AlibiConfig,
    FrontEndConfig,
    ImageConfig,
    Modalities,
    SpeechConfig,
    TextConfig,
)
from vislang.models.data2vec.model import Data2Vec, TeacherConfig
from vislang.models.data2vec.objective import Masked, Norm, ObjectiveConfig, channel_std

TEXT_LAYOUT = 3.0
"""The value of fairseq's ``version`` keys, which is the version of its transformer checkpoints."""


def build(config: Mapping[str, Any]) -> Data2Vec:
    """Make the model of a fairseq configuration, with initialised weights.

    Args:
        config: fairseq's fields, by their original names, and ``model``: ``data2vec_text``, ``data2vec_vision``,
            ``data2vec_audio`` or ``data2vec_multi``. Text also needs ``vocab_size`` and ``pad``.

    Raises:
        ConversionError: a field is missing or has an unsupported value.
    """
    settings = Settings(config)
    model = settings.need("model", str)
    builders = {
        "data2vec_text": _text_v1,
        "data2vec_vision": _image_v1,
        "data2vec_audio": _speech_v1,
        "data2vec_multi": _v2,
    }
    if model not in builders:
        raise ConversionError(f"configuration: model {model!r} is not supported; supported are {', '.join(builders)}.")
    built = builders[model](settings)
    built.origin = {"format": "fairseq", "config": dict(config)}
    return built


# ------------------------------------------------------------------------------- configuration


def _objective(settings: Settings, **more: Any) -> ObjectiveConfig:
    layer_norms: list[Norm] = []
    kinds: tuple[Norm, ...] = ("batch", "instance", "group", "layer")
    for norm in kinds:
        if settings.get(f"{norm}_norm_target_layer", False):
            layer_norms.append(norm)
    mean_norms: list[Norm] = []
    for norm in (kinds[3], kinds[1]):
        if settings.get(f"{norm}_norm_targets", False):
            mean_norms.append(norm)
    if settings.need("model", str) == "data2vec_audio" and not {"batch", "instance"} & set(layer_norms):
        layer_norms = ["group_across" if norm == "group" else norm for norm in layer_norms]
        mean_norms = ["instance_across" if norm == "instance" else norm for norm in mean_norms]
    return ObjectiveConfig(
        top_k=settings.get("average_top_k_layers", 8),
        layer_norms=layer_norms,
        mean_norms=mean_norms,
        beta=settings.get("loss_beta", 0.0),
        **more,
    )


def _teacher(settings: Settings, **more: Any) -> TeacherConfig:
    return TeacherConfig(
        decay=settings.get("ema_decay", 0.999),
        end_decay=settings.get("ema_end_decay", 0.9999),
        # Without this setting, the original uses the length of the run, which a checkpoint does not contain.
        anneal_steps=settings.get("ema_anneal_end_step", settings.get("max_update", 0)),
        **more,
    )


def _text_v1(settings: Settings) -> Data2Vec:
    transformer = settings.part("transformer")
    transformer.require(adaptive_input=False, char_inputs=False, base_layers=0, no_decoder_final_norm=False)
    shape = transformer.part("encoder")
    shape.require(embed_path=None, layers_to_keep=None)
    norm_first = shape.get("normalize_before", False)
    encoder = EncoderConfig(
        width=shape.get("embed_dim", 768),
        depth=shape.get("layers", 12),
        heads=shape.get("attention_heads", 12),
        mlp_width=shape.get("ffn_embed_dim", 3072),
        norm_first=norm_first,
        final_norm=norm_first and not transformer.get("no_encoder_final_norm", False),
        activation=transformer.get("activation_fn", "gelu"),
        dropout=transformer.get("dropout", 0.1),
        attention_dropout=transformer.get("attention_dropout", 0.1),
        activation_dropout=transformer.get("activation_dropout", 0.0),
    )
    text = TextConfig(
        vocabulary_size=settings.need("vocab_size", int),
        padding_id=settings.need("pad", int),
        mask_id=settings.get("mask", settings.need("vocab_size", int) - 1),
        head_layers=settings.get("head_layers", 1),
        # As in the original, normalisation of targets over time includes padding.
        strict_padding=False,
        **_embedding(transformer, shape.get("learned_pos", True)),
    )
    scale = settings.get("loss_scale", -1.0)
    copied: tuple[str, ...] = ()
    if settings.get("ema_transformer_layers_only", True):
        # The original finds the token embedding by way of the parameters of the positions. If those are not
        # parameters, it averages the token embedding instead of copying it.
        copied = ("front_ends.text.local.norm",)
        if text.positions == "learned":
            copied += ("front_ends.text.local.tokens", "front_ends.text.local.positions")
    return Data2Vec(
        encoder,
        Modalities(text=text),
        _objective(settings, scale=scale if scale > 0 else None),
        _teacher(settings, scope="all", copied=copied),
    )


def _embedding(settings: Settings, learned: bool) -> dict[str, Any]:
    absent = settings.get("no_token_positional_embeddings", False)
    return {
        "max_length": settings.get("max_source_positions", 512),
        "positions": "none" if absent else "learned" if learned else "sinusoidal",
        "embedding_norm": settings.get("layernorm_embedding", True),
        "scale_embedding": not settings.get("no_scale_embedding", True),
    }


def _image_v1(settings: Settings) -> Data2Vec:
    settings.require(shared_rel_pos_bias=True, ema_transformer_only=True)
    width, initial = settings.get("embed_dim", 768), settings.get("layer_scale_init_value", 1e-4)
    encoder = EncoderConfig(
        width=width,
        depth=settings.get("depth", 12),
        heads=settings.get("num_heads", 12),
        # The original ignores its setting mlp_ratio; the ratio is always 4.
        mlp_width=4 * width,
        norm_first=True,
        final_norm=True,
        layer_scale=initial if initial > 0 else None,
        attention_dropout=settings.get("attention_dropout", 0.0),
        drop_path=(0.0, settings.get("drop_path", 0.0)),
    )
    image = ImageConfig(
        size=settings.get("image_size", 224),
        patch=settings.get("patch_size", 16),
        channels=settings.get("in_channels", 3),
    )
    # A missing scale means 1 / sqrt(width); 0 means no scale.
    scale = settings.values.get("loss_scale")
    return Data2Vec(
        encoder,
        Modalities(image=image),
        _objective(
            settings,
            scale=scale if scale is None or scale > 0 else 1.0,
            end_of_block=settings.get("end_of_block_targets", True),
        ),
        _teacher(settings, scope="context", copied=("front_ends.image.class_tokens",)),
    )


def _speech_v1(settings: Settings) -> Data2Vec:
    settings.require(layer_type="transformer")
    norm_first = settings.get("layer_norm_first", False)
    encoder = EncoderConfig(
        width=settings.get("encoder_embed_dim", 768),
        depth=settings.get("encoder_layers", 12),
        heads=settings.get("encoder_attention_heads", 12),
        mlp_width=settings.get("encoder_ffn_embed_dim", 3072),
        norm_first=norm_first,
        final_norm=norm_first,
        activation=settings.get("activation_fn", "gelu"),
        dropout=settings.get("dropout", 0.1),
        attention_dropout=settings.get("attention_dropout", 0.1),
        activation_dropout=settings.get("activation_dropout", 0.0),
    )
    speech = SpeechConfig(
        strict_padding=False,
        convolutions=_convolutions(settings, "conv_feature_layers"),
        convolution_norm=_extractor_norm(settings),
        convolution_bias=settings.get("conv_bias", False),
        position_kernel=settings.get("conv_pos", 128),
        position_groups=settings.get("conv_pos_groups", 16),
        position_depth=settings.get("pos_conv_depth", 1),
        position_weight_norm=settings.get("pos_conv_depth", 1) == 1,
        norm=not norm_first,
        local_gradient=settings.get("feature_grad_mult", 1.0),
    )
    layers_only = settings.get("ema_layers_only", True)
    if not layers_only:
        settings.require(ema_transformer_only=True)
    return Data2Vec(
        encoder,
        Modalities(speech=speech),
        _objective(settings, scale=settings.values.get("loss_scale")),
        _teacher(settings, scope="context", copied=("front_ends.speech.positions",) if layers_only else ()),
    )


def _convolutions(settings: Settings, name: str) -> list[tuple[int, ...]]:
    """fairseq's description of the layers: a Python expression of lists of tuples, added and multiplied."""
    written = settings.get(name, "[(512, 10, 5)] + [(512, 3, 2)] * 4 + [(512,2,2)] + [(512,2,2)]")

    def value(node: ast.expr) -> Any:
        if isinstance(node, ast.BinOp) and isinstance(node.op, ast.Add):
            return value(node.left) + value(node.right)
        if isinstance(node, ast.BinOp) and isinstance(node.op, ast.Mult):
            return value(node.left) * value(node.right)
        return ast.literal_eval(node)

    try:
        layers = [tuple(int(number) for number in layer) for layer in value(ast.parse(written, mode="eval").body)]
    except (ValueError, TypeError, SyntaxError):
        layers = []
    if not layers or any(len(layer) != 3 for layer in layers):
        raise ConversionError(
            f"configuration: {settings.where}{name} {written!r} is not a list of (width, kernel, stride)."
        )
    return layers


def _extractor_norm(settings: Settings) -> Any:
    mode = settings.get("extractor_mode", "layer_norm")
    if mode not in ("layer_norm", "default"):
        raise ConversionError(f"configuration: extractor_mode {mode!r} must be 'layer_norm' or 'default'.")
    return "layer" if mode == "layer_norm" else "group"


def _v2(settings: Settings) -> Data2Vec:
    settings.require(shared_decoder=None, recon_loss=0.0)
    norm_first = settings.get("layer_norm_first", False)
    width = settings.get("embed_dim", 768)
    encoder = EncoderConfig(
        width=width,
        depth=settings.get("depth", 8),
        heads=settings.get("num_heads", 12),
        mlp_width=int(width * settings.get("mlp_ratio", 4.0)),
        norm_first=norm_first,
        final_norm=norm_first,
        eps=settings.get("norm_eps", 1e-6),
        affine=settings.get("norm_affine", True),
        dropout=settings.get("encoder_dropout", 0.1),
        attention_dropout=settings.get("attention_dropout", 0.1),
        activation_dropout=settings.get("activation_dropout", 0.0),
        drop_path=(settings.get("start_drop_path_rate", 0.0), settings.get("end_drop_path_rate", 0.0)),
    )
    modalities = Modalities()
    copies_input = []
    for name in _present(settings):
        part = settings.part("modalities").part(_THEIRS[name].lower())
        part.require(learned_alibi=False, keep_masked_pct=0.0, transformer_decoder=False)
        copies_input.append(part.get("ema_local_encoder", False))
        shared: dict[str, Any] = {
            "class_tokens": part.get("num_extra_tokens", 0),
            "prenet_depth": part.get("prenet_depth", 4),
            "norm": not norm_first,
            "alibi": _alibi(part, encoder),
            "decoder": _decoder(part.part("decoder")),
            "local_gradient": part.get("local_grad_mult", 1.0),
        }
        if name == "text":
            shared["norm"] = not norm_first and shared["prenet_depth"] > 0
            modalities.text = TextConfig(
                strict_padding=False,
                vocabulary_size=settings.need("vocab_size", int),
                padding_id=settings.need("pad", int),
                mask_id=settings.get("mask", settings.need("vocab_size", int) - 1),
                zero_padding=False,
                **_embedding(part, part.get("learned_pos", True)),
                **shared,
            )
        elif name == "image":
            modalities.image = ImageConfig(
                size=part.get("input_size", 224),
                patch=part.get("patch_size", 16),
                channels=part.get("in_chans", 3),
                patch_width=part.get("embed_dim", 768),
                positions="fixed" if part.get("fixed_positions", True) else "none",
                **shared,
            )
        else:
            modalities.speech = SpeechConfig(
                strict_padding=False,
                convolutions=_convolutions(part, "feature_encoder_spec"),
                convolution_norm=_extractor_norm(part),
                position_kernel=part.get("conv_pos_width", 95),
                position_groups=part.get("conv_pos_groups", 16),
                position_depth=part.get("conv_pos_depth", 5),
                position_norm=part.get("conv_pos_pre_ln", False),
                zero_padding=False,
                **shared,
            )
    if len(set(copies_input)) > 1:
        raise ConversionError("configuration: ema_local_encoder must be the same for all modalities.")
    scope = "encoder" if settings.get("ema_encoder_only", True) else "all" if copies_input[0] else "context"
    return Data2Vec(
        encoder,
        modalities,
        _objective(
            settings,
            generation="v2",
            scale=settings.values.get("loss_scale"),
            end_of_block=settings.get("end_of_block_targets", False),
            copies=settings.get("clone_batch", 1),
            class_loss=settings.get("cls_loss", 0.0),
            weight=settings.get("d2v_loss", 1.0),
        ),
        _teacher(settings, scope=scope),
    )


_THEIRS = {"text": "TEXT", "image": "IMAGE", "speech": "AUDIO"}


def _present(settings: Settings) -> list[str]:
    """The modalities of a v2 model: ``supported_modality``, or else all in its configuration."""
    named = settings.values.get("supported_modality")
    if named is not None:
        return [ours for ours, theirs in _THEIRS.items() if theirs == named]
    parts = settings.part("modalities").values
    return [ours for ours, theirs in _THEIRS.items() if parts.get(theirs.lower()) is not None]


def _alibi(part: Settings, encoder: EncoderConfig) -> AlibiConfig | None:
    if not part.get("use_alibi_encoder", False):
        return None
    on_grid = part.get("type", None) == "IMAGE" and part.get("alibi_dims", 2) == 2
    return AlibiConfig(
        heads=part.get("num_alibi_heads", encoder.heads),
        per_layer=part.get("learned_alibi_scale_per_layer", False),
        per_head=part.get("learned_alibi_scale_per_head", False),
        learned=part.get("learned_alibi_scale", False),
        scale=part.get("alibi_scale", 1.0),
        distance=part.get("alibi_distance", "manhattan") if on_grid else "steps",
    )


def _decoder(part: Settings) -> DecoderConfig:
    everywhere, gaps = part.get("add_positions_all", False), part.get("add_positions_masked", False)
    if everywhere and gaps:
        raise ConversionError(
            f"configuration: {part.where}add_positions_all and add_positions_masked exclude each other."
        )
    return DecoderConfig(
        width=part.get("decoder_dim", 384),
        layers=part.get("decoder_layers", 5),
        kernel=part.get("decoder_kernel", 5),
        groups=part.get("decoder_groups", 16),
        residual=part.get("decoder_residual", True),
        projection_layers=part.get("projection_layers", 1),
        projection_ratio=part.get("projection_ratio", 2.0),
        positions="all" if everywhere else "gaps" if gaps else "none",
    )


# ------------------------------------------------------------------------------------------ which key is which


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
        theirs, ours = f"modality_encoders.{_THEIRS[modality]}.", f"{whose}front_ends.{modality}"
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


# --------------------------------------------------------------------------------------------- reading, verifying


def load_weights(model: Data2Vec, weights: Mapping[str, Any], lenient: bool = False) -> list[str]:
    """Load the weights of a fairseq checkpoint, with its teacher.

    Args:
        model: from :func:`build`.
        weights: a state dict, or a whole checkpoint with one under ``model``.
        lenient: continue if keys are missing or unexpected; parameters without a key keep their initial values, and a
            missing teacher becomes a copy of the student.

    Returns:
        The problems that ``lenient`` ignored.

    Raises:
        ConversionError: keys are missing or unexpected, or shapes differ; the message lists them.
    """
    state = dict(weights["model"] if isinstance(weights.get("model"), Mapping) else weights)
    averages = [key for key in list(state) if key.endswith("_ema")]
    teacher = state.pop(averages[0]) if averages else None
    known = student_keys(model)
    problems = [f"missing {key}" for key in known if key not in state and not _is_index(key)]
    problems += [f"unexpected {key}" for key in state if key not in known and not _is_unused(model, key)]
    moved = teacher_keys(model)
    if teacher is None:
        problems.append("missing the teacher (_ema)")
    else:
        problems += [f"missing {averages[0]}/{key}" for key in moved if key not in teacher and not _is_index(key)]
        problems += [
            f"unexpected {averages[0]}/{key}" for key in teacher if key not in moved and not _is_unused(model, key)
        ]
    tensors = _tensors(model)
    with torch.no_grad():
        fill(tensors, known, _without_indices(state))
        model.copy_to_teacher()
        fill(tensors, moved, _without_indices(teacher or {}))
        _zero_key_biases(model)
    if problems and not lenient:
        shown = "; ".join(problems[:20]) + (f"; and {len(problems) - 20} more" if len(problems) > 20 else "")
        raise ConversionError(f"checkpoint: {shown}. To convert it anyway, add --lenient.")
    if teacher is None:
        model.reset_teacher()
    return problems


def outputs(model: Data2Vec, inputs: Mapping[str, Any], config: Mapping[str, Any]) -> dict[str, Any]:
    """Compute the outputs that were recorded from the original objective, by their recorded names.

    Args:
        model: the converted model; dropout and decoder noise are switched off, and its teacher is updated once.
        inputs: the recorded inputs.
        config: fairseq's configuration; ``teacher_step_at_update`` is the number of the teacher's update.
    """
    model.eval()
    for head in model.heads.values():
        if isinstance(head, ConvolutionalDecoder):
            head.config = replace(head.config, noise=0.0)
    (modality,) = model.student.front_ends
    batch = masked_batch(model, modality, inputs)
    v2 = model.objective_config.generation == "v2"
    with torch.no_grad():
        # For text v1, the recorded features are those of the student's masked input.
        read = batch.values if batch.student_values is None else batch.student_values
        encoded = model.student.features(modality, read, batch.padding)
        layers = _layers(model, batch)
    model.zero_grad(set_to_none=True)
    found = model.objective(batch)
    total = torch.stack(list(found.losses.values())).sum()
    total.backward()
    gradients = {
        name: torch.zeros_like(parameter) if parameter.grad is None else parameter.grad
        for name, parameter in model.named_parameters()
    }
    norms = {key: slot.of(gradients).norm() for key, slot in student_keys(model).items() if slot.name in gradients}
    model.updates = config.get("teacher_step_at_update", 1) - 1
    model.after_step()
    tensors = _tensors(model)
    teacher = {key: slot.of(tensors) for key, slot in teacher_keys(model).items()}
    regression = (
        f"loss_{_THEIRS[modality]}_regression" if v2 else "loss_main" if modality == "text" else "loss_regression"
    )
    result: dict[str, Any] = {
        "features" if v2 else "student_features": encoded,
        **{f"layer_{index}": layer for index, layer in enumerate(layers)},
        "predictions": found.predictions,
        "targets": found.targets,
        regression: found.losses["regression"],
        "loss": total,
        "sample_size": found.positions,
        "target_var": channel_std(found.targets),
        "pred_var": channel_std(found.predictions),
        "grad_norms": norms,
        "teacher_decay": model.decay,
        "teacher_after_step": teacher | {"version": torch.tensor([TEXT_LAYOUT])},
    }
    if "class" in found.losses:
        result["loss_cls"] = found.losses["class"]
        result["class_predictions"], result["class_targets"] = found.class_predictions, found.class_targets
    return result


def masked_batch(model: Data2Vec, modality: str, inputs: Mapping[str, Any]) -> Masked:
    """A batch from the recorded inputs."""
    if "target_tokens" in inputs:
        hidden = inputs["src_tokens"]
        tokens, config = inputs["target_tokens"], _config(model, modality)
        return Masked(modality, tokens, hidden == config.mask_id, hidden, tokens == config.padding_id)
    values = next(inputs[name] for name in ("source", "images", "waveform") if inputs.get(name) is not None)
    padding = inputs.get("padding_mask")
    padding = None if padding is None else padding.bool()
    return Masked(modality, values, inputs["mask"].bool().flatten(1), padding=padding)


def _layers(model: Data2Vec, batch: Masked) -> list[Tensor]:
    """The output of each of the student's blocks for unmasked inputs, without class tokens."""
    front_end = model.student.front_end(batch.modality)
    local = front_end.local_features(batch.values)
    padding = None if batch.padding is None else front_end.pad(batch.padding, local.shape[1])
    depth = len(model.student.blocks)
    _, results = run_blocks(model.student.blocks, front_end(local, padding), depth, model.objective_config.end_of_block)
    return [result[:, front_end.config.class_tokens :] for result in results]


def _tensors(model: Data2Vec) -> dict[str, Tensor]:
    return dict(model.named_parameters()) | dict(model.named_buffers())


def _is_index(key: str) -> bool:
    """Whether a key is a buffer that is computed from the configuration."""
    return key.endswith("relative_position_index")


def _without_indices(state: Mapping[str, Tensor]) -> dict[str, Tensor]:
    return {key: value for key, value in state.items() if not _is_index(key)}


def _is_unused(model: Data2Vec, key: str) -> bool:
    """Whether a key is not used in any computation: version markers, and v1's vision projection, which the original
    builds and never applies."""
    unused = key.startswith("final_proj.") and "image" in model.student.front_ends
    return unused or key.rpartition(".")[2] in ("version", "_float_tensor")


def _zero_key_biases(model: Data2Vec) -> None:
    """Set key biases to zero: v1's vision blocks have none. (They do not change attention.)"""
    if model.objective_config.generation == "v1" and "image" in model.student.front_ends:
        for name, parameter in model.named_parameters():
            if name.endswith("to_queries_keys_values.bias"):
                width = len(parameter) // 3
                parameter[width : 2 * width] = 0
