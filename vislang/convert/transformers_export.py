"""Export of data2vec models to transformers, whose Auto classes then compute the same hidden states or logits.

transformers has three fixed encoders; ours has options. The export has two steps: :func:`plain` makes an encoder that
computes the same function with the options that transformers has, or raises an error with the reasons; then tensors
and settings are renamed by :mod:`~vislang.convert.transformers_names`.
"""

from __future__ import annotations

import dataclasses
import json
import os
import tempfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
import transformers
from torch import Tensor, nn

from vislang.convert.keys import ConversionError
from vislang.convert.transformers_names import (
    CLASS_OF,
    ENCODER_SETTINGS,
    ENCODERS,
    FRONT_END_SETTINGS,
    MODALITIES,
    PREFIXES,
    Modality,
    keys,
    tensors,
    to_theirs,
    unfold,
)
from vislang.files import system_errors
from vislang.models.data2vec.encoder import Encoder
from vislang.models.data2vec.finetuning import BLANK, FineTuned
from vislang.models.data2vec.front_ends import (
    FrontEnd,
    FrontEndConfig,
    ImageConfig,
    Modalities,
    SpeechConfig,
    TextConfig,
)
from vislang.models.data2vec.heads import HeadConfig
from vislang.models.data2vec.inputs import END, MASK, PADDING, START, TOKENIZER_FILE, UNKNOWN, Inputs
from vislang.models.data2vec.model import Data2Vec
from vislang.nn.embed import PatchEmbedding, TokenEmbedding
from vislang.nn.transformer import EncoderBlock


def export(model: Data2Vec | FineTuned, out: Path, modality: str | None = None) -> list[str]:
    """Write a folder for transformers: the student's encoder of a data2vec model; encoder and head of a fine-tuned one.

    Besides weights and configuration, it contains the tokenizer or the settings of the image or speech preparation, if
    the model has them.

    Args:
        model: the model to export.
        out: folder to write to; files with the same names are replaced.
        modality: the front end to export, if there are several.

    Returns:
        Notes on inputs for which transformers differs from vislang; none for most models.

    Raises:
        ConversionError: transformers cannot represent the model, or the modality is not given.
    """
    chosen = _modality(model, modality)
    if isinstance(model, FineTuned):
        theirs = _with_head(model, chosen)
    else:
        encoder = plain(model.student, chosen)
        theirs = _build(ENCODERS[chosen], encoder, chosen, None, None, {})
    out.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=out, prefix=".unfinished-") as unfinished, system_errors(out):
        theirs.save_pretrained(unfinished)
        files = _input_files(model.inputs, chosen)
        if isinstance(model, FineTuned) and model.head_config.kind == "ctc":
            files |= _vocabulary(model.labels)
        for name, content in files.items():
            (Path(unfinished) / name).write_text(content, encoding="utf-8")
        for file in sorted(Path(unfinished).iterdir(), key=lambda file: file.name == "config.json"):
            os.replace(file, out / file.name)
    return _notes(model, chosen)


def _modality(model: Data2Vec | FineTuned, expected: str | None) -> Modality:
    present = list(model.modalities.present())
    known = dict.fromkeys(MODALITIES.values())
    if expected is None and len(present) > 1:
        raise ConversionError(
            f"the model reads {', '.join(present)}; a model of transformers reads one modality. Add --modality "
            f"{' or --modality '.join(present)}."
        )
    if expected is not None and expected not in present:
        raise ConversionError(f"the model does not read {expected}; --modality may be {' or '.join(present)}.")
    (found,) = (modality for modality in known if modality == (expected or present[0]))
    return found


def _notes(model: Data2Vec | FineTuned, modality: Modality) -> list[str]:
    config = model.modalities.present()[modality]
    if not isinstance(config, SpeechConfig):
        return []
    if config.zero_padding and not (config.strict_padding and config.position_depth > 1):
        return []
    return [
        "in a batch of recordings of different lengths, transformers' outputs near the end of the shorter ones differ "
        "slightly, because it masks padding only in the first positional convolution. Use recordings of equal length, "
        "or one at a time."
    ]


# ------------------------------------------------------------------------------- step 1: transformers' options


def plain(encoder: Encoder, modality: Modality) -> Encoder:
    """An encoder that computes the same function with the options that transformers has.

    The front end's blocks and the shared ones become one stack. The scale of a branch is multiplied into its last layer
    (except for images, whose blocks have such scales); the scale of embeddings, and the projection of patches, into the
    embedding. Fixed positions become a learned table; norms without parameters get weights of 1 and biases of 0.

    Raises:
        ConversionError: there is no such encoder; the message lists the settings that prevent it.
    """
    front = encoder.front_end(modality)
    _check(encoder, front.config)
    config = dataclasses.replace(
        encoder.config,
        depth=len(front.prenet) + len(encoder.blocks),
        affine=True,
        layer_scale=encoder.config.layer_scale if modality == "image" else None,
    )
    made = Encoder(config, Modalities(**{modality: _plain_config(front.config)}))  # type: ignore[arg-type]
    with torch.no_grad():
        new = made.front_end(modality)
        _copy_front_end(front, new)
        for old_block, new_block in zip([*front.prenet, *encoder.blocks], made.blocks, strict=True):
            assert isinstance(old_block, EncoderBlock)
            assert isinstance(new_block, EncoderBlock)
            _copy(old_block, new_block)
            if new_block.attention_scale is None and old_block.attention_scale is not None:
                assert old_block.feed_forward_scale is not None
                _scale(new_block.attention.to_output, old_block.attention_scale)
                _scale(new_block.narrow, old_block.feed_forward_scale)
        if encoder.norm is not None and made.norm is not None:
            _copy(encoder.norm, made.norm)
    return made.eval()


def _check(encoder: Encoder, config: FrontEndConfig) -> None:
    """Raise an error with all reasons if transformers cannot represent the encoder."""
    image = isinstance(config, ImageConfig)
    shared = encoder.config
    problems = []
    if shared.norm_first != image:
        problems.append(
            f"encoder.norm_first is {shared.norm_first}: transformers' blocks normalise before each branch for images, "
            "and after each addition for text and speech"
        )
    if shared.final_norm and not image:
        problems.append("encoder.final_norm: for text and speech, transformers has no norm after the last block")
    if config.alibi is not None:
        problems.append("alibi: transformers does not support it")
    if config.class_tokens != int(image):
        problems.append(f"class_tokens is {config.class_tokens}: transformers has 1 for images and 0 otherwise")
    if image and config.norm:
        problems.append("norm is true: for images, transformers has no norm before the first block")
    if isinstance(config, TextConfig):
        if config.norm == config.embedding_norm:
            number = "two norms" if config.norm else "no norm"
            problems.append(f"norm and embedding_norm: {number} before the first block; transformers has one")
        elif config.embedding_norm and config.embedding_eps != shared.eps:
            problems.append(
                f"embedding_eps is {config.embedding_eps} and encoder.eps {shared.eps}: transformers has a single eps"
            )
    if isinstance(config, SpeechConfig):
        if not config.norm:
            problems.append("norm is false: for speech, transformers has a norm before the first block")
        if config.log_mel:
            problems.append("log_mel: transformers' convolutions read the waveform")
        if config.convolution_norm != "layer":
            problems.append("convolution_norm is group: transformers has layer")
        if config.position_norm:
            problems.append("position_norm: transformers has no norm before the positional convolutions")
        if config.position_weight_norm:
            problems.append(
                "position_weight_norm: transformers normalises the outputs of the positional convolutions, not their "
                "weights"
            )
        if config.feature_eps != shared.eps:
            problems.append(
                f"feature_eps is {config.feature_eps} and encoder.eps {shared.eps}: transformers has a single eps"
            )
    if problems:
        raise ConversionError("transformers cannot represent this model. " + "; ".join(problems) + ".")


def _plain_config(config: FrontEndConfig) -> FrontEndConfig:
    if isinstance(config, TextConfig):
        return dataclasses.replace(
            config, prenet_depth=0, norm=False, embedding_norm=True, positions="learned", scale_embedding=False
        )
    if isinstance(config, ImageConfig):
        positions = "absolute" if config.positions == "fixed" else config.positions
        per_layer = config.relative_per_layer and positions == "relative"
        return dataclasses.replace(
            config, prenet_depth=0, positions=positions, relative_per_layer=per_layer, patch_width=None
        )
    return dataclasses.replace(config, prenet_depth=0)


def _copy(old: nn.Module, new: nn.Module) -> None:
    _take(new, dict(old.named_parameters()))


def _take(module: nn.Module, values: Mapping[str, Tensor]) -> None:
    """Copy values to a module's parameters of the same name; parameters without a value are left."""
    for name, parameter in module.named_parameters():
        if name in values:
            parameter.copy_(values[name])


def _scale(layer: nn.Linear, factor: Tensor) -> None:
    layer.weight.mul_(factor[:, None])
    layer.bias.mul_(factor)


def _copy_front_end(old: FrontEnd, new: FrontEnd) -> None:
    values: dict[str, Tensor] = dict(old.named_parameters())
    local = old.local
    if isinstance(local, PatchEmbedding) and isinstance(local.project, nn.Linear):
        assert local.patches.bias is not None
        kernels = local.patches.weight
        values["local.patches.weight"] = (local.project.weight @ kernels.flatten(1)).unflatten(1, kernels.shape[1:])
        values["local.patches.bias"] = local.project(local.patches.bias)
    if old.fixed_positions is not None:
        values["absolute_positions"] = old.fixed_positions
    if isinstance(local, TokenEmbedding):
        assert isinstance(new.local, TokenEmbedding)
        values["local.tokens.weight"] = local.scale * local.tokens.weight
        if local.positions is None:
            assert new.local.positions is not None
            none = torch.zeros_like(new.local.positions.weight)
            values["local.positions.weight"] = none if local.waves is None else local.waves
        if old.norm is not None:
            values |= {f"local.norm.{name}": value for name, value in old.norm.named_parameters()}
    _take(new, values)


# ------------------------------------------------------------------------------------------------------ heads


def _with_head(model: FineTuned, modality: Modality) -> Any:
    head = model.head_config
    if model.head is None:
        raise ConversionError("the model has no labels yet. Train it first.")
    _check_head(head, modality, model.encoder)
    values = {name: p.detach().clone() for name, p in model.head.named_parameters(remove_duplicate=False)}
    if modality == "speech" and head.kind == "classification" and head.inner is None:
        # transformers has a linear layer there; ours is the identity.
        head = dataclasses.replace(head, inner=model.encoder.config.width)
        values |= {"inner.weight": torch.eye(head.inner or 0), "inner.bias": torch.zeros(head.inner or 0)}
    if head.kind == "regression":
        mean, std = model.scale
        values["output.weight"] *= std
        values["output.bias"] = values["output.bias"] * std + mean
    encoder = plain(model.encoder, modality)
    front = model.encoder.front_end(modality).config
    if isinstance(front, TextConfig) and front.scale_embedding:
        # The embedding is scaled and the output layer is not, so they can no longer be tied.
        head = dataclasses.replace(head, tied=False)
    return _build(CLASS_OF[modality, head.kind], encoder, modality, head, values, _head_settings(model, head, modality))


def _check_head(head: HeadConfig, modality: Modality, encoder: Encoder) -> None:
    if (modality, head.kind) not in CLASS_OF:
        raise ConversionError(
            f"head.kind {head.kind}: transformers has no data2vec model of {modality} with this head."
        )
    expected: dict[str, Any] = {}
    if modality == "text" and head.kind in ("classification", "regression", "choice"):
        expected = {"pooling": "first", "norm": False, "inner": encoder.config.width, "activation": "tanh"}
    elif modality == "image":
        mean = head.pooling == "mean"
        expected = {"norm": mean, "inner": None}
        if mean == (encoder.norm is not None):
            raise ConversionError(
                f"head.pooling {head.pooling} with encoder.final_norm {encoder.config.final_norm}: transformers "
                "normalises either the mean of the patches or the output of the last block."
            )
    elif modality == "speech" and head.kind == "classification":
        expected = {"pooling": "mean", "norm": False, "activation": "none"}
    if modality != "speech" or head.kind == "ctc":
        expected["layer_sum"] = False
    problems = [
        f"head.{name} is {getattr(head, name)}; in transformers it is {value}"
        for name, value in expected.items()
        if getattr(head, name) != value
    ]
    if problems:
        settings = " ".join(
            f"--model.head.{name}={json.dumps(value)}"
            for name, value in expected.items()
            if getattr(head, name) != value
        )
        raise ConversionError(
            f"transformers cannot represent this head. {'; '.join(problems)}. Fine-tune the model with {settings}."
        )


_PROBLEMS = {"classification": "single_label_classification", "regression": "regression"}


def _head_settings(model: FineTuned, head: HeadConfig, modality: Modality) -> dict[str, Any]:
    labels = model.labels
    settings: dict[str, Any] = {}
    if modality != "speech":
        settings["problem_type"] = _PROBLEMS.get(head.kind)
    if labels and head.kind != "ctc":
        settings["id2label"] = dict(enumerate(labels))
        settings["label2id"] = {label: n for n, label in enumerate(labels)}
    elif head.kind == "regression":
        settings["num_labels"] = 1
    if modality == "text" and head.kind in ("classification", "regression", "tagging"):
        settings["classifier_dropout"] = head.dropout
    if head.kind == "language":
        settings["tie_word_embeddings"] = head.tied
    if modality == "speech":
        settings["use_weighted_layer_sum"] = head.layer_sum
    if head.kind == "ctc":
        settings |= {"vocab_size": len(labels), "final_dropout": head.dropout}
    elif modality == "speech" and head.kind == "classification":
        settings["classifier_proj_size"] = head.inner
    elif head.kind == "speaker":
        dim, kernel, dilation = (list(column) for column in zip(*head.convolutions, strict=True))
        settings |= {"tdnn_dim": dim, "tdnn_kernel": kernel, "tdnn_dilation": dilation}
        settings["xvector_output_dim"] = head.inner or model.encoder.config.width
    return settings


# ----------------------------------------------------------------------------- step 2: transformers' own names


def _build(
    architecture: str,
    encoder: Encoder,
    modality: Modality,
    head: HeadConfig | None,
    values: Mapping[str, Tensor] | None,
    settings: dict[str, Any],
) -> Any:
    """transformers' model with the weights of this encoder and head."""
    front = encoder.front_end(modality)
    kind = getattr(transformers, architecture)
    config = kind.config_class(
        **to_theirs(encoder.config, ENCODER_SETTINGS[modality]),
        **to_theirs(front.config, FRONT_END_SETTINGS[modality]),
        **_composed(encoder, front),
        **settings,
    )
    # An encoder without a head has no trained pooler; its class makes a random one when the model is opened.
    made = kind(config, add_pooling_layer=False) if architecture == ENCODERS["text"] else kind(config)
    theirs = made.state_dict()
    ours = tensors(encoder, values)
    names = keys(encoder, modality, values, None if head is None else head.kind)
    state = {key: slot.of(ours) for key, slot in names.items()}
    prefix = "" if head is None else PREFIXES[modality]
    state = unfold(state, modality, prefix, encoder.config.width)
    made.load_state_dict({key: value.reshape(theirs[key].shape) for key, value in state.items()}, strict=True)
    return made.eval()


def _composed(encoder: Encoder, front: FrontEnd) -> dict[str, Any]:
    """Settings that are computed from ours, not merely renamed."""
    config, shared = front.config, encoder.config
    if isinstance(config, TextConfig):
        return {"max_position_embeddings": config.padding_id + 1 + config.max_length, "type_vocab_size": 1}
    if isinstance(config, ImageConfig):
        return {
            "use_absolute_position_embeddings": config.positions == "absolute",
            "use_shared_relative_position_bias": config.positions == "relative" and not config.relative_per_layer,
            "use_mean_pooling": not shared.final_norm,
            "use_mask_token": front.mask_token is not None,
            # The scales themselves are among the tensors; a value above 0 means that they exist.
            "layer_scale_init_value": 0.0 if shared.layer_scale is None else max(shared.layer_scale, 1e-6),
            "drop_path_rate": float(shared.drop_path[1]),
        }
    assert isinstance(config, SpeechConfig)
    dim, kernel, stride = (list(column) for column in zip(*config.convolutions, strict=True))
    settings: dict[str, Any] = {"conv_dim": dim, "conv_kernel": kernel, "conv_stride": stride}
    settings["conv_pos_kernel_size"] = max(3, config.position_kernel // config.position_depth)
    if front.mask_token is None:
        settings |= {"mask_time_prob": 0.0, "mask_feature_prob": 0.0}
    return settings


# ------------------------------------------------------------------------------------------------------ inputs


def _input_files(inputs: Inputs, modality: Modality) -> dict[str, str]:
    """Files that configure transformers' tokenizers and processors to prepare inputs as vislang does."""
    if modality == "text" and inputs.text is not None:
        settings = {
            "tokenizer_class": "PreTrainedTokenizerFast",
            "model_max_length": inputs.text.max_length,
            "bos_token": START,
            "cls_token": START,
            "eos_token": END,
            "sep_token": END,
            "pad_token": PADDING,
            "unk_token": UNKNOWN,
            "mask_token": MASK,
        }
        return {TOKENIZER_FILE: inputs.text.tokenizer.to_str(), "tokenizer_config.json": _json(settings)}
    if modality == "image" and inputs.image is not None:
        # The largest central square: resize the shorter edge, then crop the centre.
        size = inputs.image.size
        settings = {
            "image_processor_type": "CLIPImageProcessor",
            "size": {"shortest_edge": size},
            "crop_size": {"height": size, "width": size},
            "resample": 3,
            "image_mean": list(inputs.image.mean),
            "image_std": list(inputs.image.std),
        }
        return {"preprocessor_config.json": _json(settings)}
    if modality == "speech" and inputs.speech is not None:
        settings = {
            "feature_extractor_type": "Wav2Vec2FeatureExtractor",
            "sampling_rate": inputs.speech.rate,
            "do_normalize": inputs.speech.normalise,
            "return_attention_mask": True,
        }
        return {"preprocessor_config.json": _json(settings)}
    return {}


def _vocabulary(labels: list[str]) -> dict[str, str]:
    """A speech recogniser's symbols, in the format of transformers' tokenizer for CTC."""
    symbols = {{BLANK: PADDING, " ": "|"}.get(label, label): n for n, label in enumerate(labels)}
    settings = {"tokenizer_class": "Wav2Vec2CTCTokenizer", "pad_token": PADDING, "word_delimiter_token": "|"}
    return {"vocab.json": _json(symbols), "tokenizer_config.json": _json(settings)}


def _json(values: dict[str, Any]) -> str:
    return json.dumps(values, indent=2, ensure_ascii=False) + "\n"
