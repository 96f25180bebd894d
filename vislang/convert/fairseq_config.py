"""The configuration of fairseq's data2vec models (examples/data2vec, v1 and v2), converted to ours."""

from __future__ import annotations

import ast
from collections.abc import Mapping
from typing import Any

from vislang.convert.fairseq_keys import MODALITIES_THERE
from vislang.convert.keys import ConversionError
from vislang.convert.settings import Settings
from vislang.models.data2vec.blocks import EncoderConfig
from vislang.models.data2vec.decoder import DecoderConfig
from vislang.models.data2vec.front_ends import AlibiConfig, ImageConfig, Modalities, SpeechConfig, TextConfig
from vislang.models.data2vec.model import Data2Vec, TeacherConfig
from vislang.models.data2vec.objective import Norm, ObjectiveConfig


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
        part = settings.part("modalities").part(MODALITIES_THERE[name].lower())
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


def _present(settings: Settings) -> list[str]:
    """The modalities of a v2 model: ``supported_modality``, or else all in its configuration."""
    named = settings.values.get("supported_modality")
    if named is not None:
        return [ours for ours, theirs in MODALITIES_THERE.items() if theirs == named]
    parts = settings.part("modalities").values
    return [ours for ours, theirs in MODALITIES_THERE.items() if parts.get(theirs.lower()) is not None]


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
