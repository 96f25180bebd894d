"""data2vec models go out to transformers: a folder from which its Auto classes give the same hidden states or logits.

transformers has three fixed encoders, vislang's is composed. So the way out has two steps: :func:`plain` states the
same function as an encoder of the composition that transformers has, or raises an error with the reasons; then tensors
and settings take their names from :mod:`~vislang.convert.transformers_names`.
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
    """Write a folder for transformers: of a data2vec model the student's encoder, of a fine-tuned one its head too.

    Beside weights and configuration it holds the tokenizer, or how images or recordings are prepared, where the model
    knows it.

    Args:
        model: what to write.
        out: folder to write; files of these names in it are replaced.
        modality: which of the front ends, where there are several.

    Returns:
        Notes on what differs from vislang for some inputs; none for most models.

    Raises:
        ConversionError: transformers' classes cannot express the model, or the modality is not named.
    """
    chosen = _modality(model, modality)
    if isinstance(model, FineTuned):
        theirs = _with_head(model, chosen)
    else:
        encoder = plain(model.student, chosen)
        theirs = _build(ENCODERS[chosen], encoder, chosen, None, None, {})
    out.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=out, prefix=".unfinished-") as unfinished:
        theirs.save_pretrained(unfinished)
        files = _input_files(model.inputs, chosen)
        if isinstance(model, FineTuned) and model.head_config.kind == "ctc":
            files |= _vocabulary(model.labels)
        for name, content in files.items():
            (Path(unfinished) / name).write_text(content, encoding="utf-8")
        for file in sorted(Path(unfinished).iterdir(), key=lambda file: file.name == "config.json"):
            os.replace(file, out / file.name)
    return _notes(model, chosen)


def _modality(model: Data2Vec | FineTuned, wanted: str | None) -> Modality:
    present = list(model.modalities.present())
    known = dict.fromkeys(MODALITIES.values())
    if wanted is None and len(present) > 1:
        raise ConversionError(
            f"the model reads {', '.join(present)}, and a model of transformers reads one: add --modality "
            f"{' or --modality '.join(present)}."
        )
    if wanted is not None and wanted not in present:
        raise ConversionError(f"the model reads no {wanted}; --modality may be {' or '.join(present)}.")
    (found,) = (modality for modality in known if modality == (wanted or present[0]))
    return found


def _notes(model: Data2Vec | FineTuned, modality: Modality) -> list[str]:
    config = model.modalities.present()[modality]
    if not isinstance(config, SpeechConfig):
        return []
    if config.zero_padding and not (config.strict_padding and config.position_depth > 1):
        return []
    return [
        "of recordings of unequal length in one batch, transformers reads the shorter ones' ends a little differently: "
        "it keeps padding out of the first layer of positions alone. Give it one at a time, or equal lengths."
    ]


# ------------------------------------------------------------------------------- step 1: a plain encoder's form


def plain(encoder: Encoder, modality: Modality) -> Encoder:
    """The same function as an encoder of transformers' composition.

    Blocks of the front end's own come before the shared ones in one stack. Factors of a branch go into its last layer
    (but images' blocks have such factors themselves), a scale of embeddings and a map behind the patches into those,
    fixed positions into a learned table; norms without weights get weights of 1 and biases of 0.

    Raises:
        ConversionError: there is no such encoder; the message names each setting that is in the way.
    """
    front = encoder.front_end(modality)
    _refuse(encoder, front.config)
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


def _refuse(encoder: Encoder, config: FrontEndConfig) -> None:
    """Raise, with all reasons, where transformers has no such composition."""
    image = isinstance(config, ImageConfig)
    shared = encoder.config
    faults = []
    if shared.norm_first != image:
        faults.append(
            f"encoder.norm_first is {shared.norm_first}: transformers' blocks normalise before each branch for images "
            "and after each addition for text and speech"
        )
    if shared.final_norm and not image:
        faults.append("encoder.final_norm: for text and speech, transformers has no norm behind the last block")
    if config.alibi is not None:
        faults.append("alibi: transformers has no attention bias that falls with distance")
    if config.class_tokens != int(image):
        faults.append(f"class_tokens is {config.class_tokens}: transformers has one for images and none otherwise")
    if image and config.norm:
        faults.append("norm: for images, transformers has no norm before the first block")
    if isinstance(config, TextConfig):
        if config.norm == config.embedding_norm:
            number = "two norms" if config.norm else "no norm"
            faults.append(f"norm and embedding_norm: {number} before the first block, where transformers has one")
        elif config.embedding_norm and config.embedding_eps != shared.eps:
            faults.append(f"embedding_eps {config.embedding_eps}: transformers has one eps, encoder.eps {shared.eps}")
    if isinstance(config, SpeechConfig):
        if not config.norm:
            faults.append("norm: for speech, transformers normalises before the first block")
        if config.log_mel:
            faults.append("log_mel: in transformers, convolutions read the waveform itself")
        if config.convolution_norm != "layer":
            faults.append("convolution_norm group: transformers normalises each convolution's channels (layer)")
        if config.position_norm:
            faults.append("position_norm: transformers does not normalise before the positions' convolutions")
        if config.position_weight_norm:
            faults.append("position_weight_norm: transformers normalises the positions' outputs, not their weights")
        if config.feature_eps != shared.eps:
            faults.append(f"feature_eps {config.feature_eps}: transformers has one eps, encoder.eps {shared.eps}")
    if faults:
        raise ConversionError("transformers cannot express this model. " + "; ".join(faults) + ".")


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
    """Give a module's parameters the values of the same name; norms may be without."""
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
        raise ConversionError("the model knows no labels yet: train it first.")
    _refuse_head(head, modality, model.encoder)
    values = {name: p.detach().clone() for name, p in model.head.named_parameters(remove_duplicate=False)}
    if modality == "speech" and head.kind == "classification" and head.inner is None:
        # transformers has a linear layer there: one that changes nothing.
        head = dataclasses.replace(head, inner=model.encoder.config.width)
        values |= {"inner.weight": torch.eye(head.inner or 0), "inner.bias": torch.zeros(head.inner or 0)}
    if head.kind == "regression":
        mean, std = model.scale
        values["output.weight"] *= std
        values["output.bias"] = values["output.bias"] * std + mean
    encoder = plain(model.encoder, modality)
    front = model.encoder.front_end(modality).config
    if isinstance(front, TextConfig) and front.scale_embedding:
        # What is embedded is scaled, and what predicts is not.
        head = dataclasses.replace(head, tied=False)
    return _build(CLASS_OF[modality, head.kind], encoder, modality, head, values, _head_settings(model, head, modality))


def _refuse_head(head: HeadConfig, modality: Modality, encoder: Encoder) -> None:
    if (modality, head.kind) not in CLASS_OF:
        raise ConversionError(f"head.kind {head.kind}: transformers' data2vec has no such model of {modality}.")
    wanted: dict[str, Any] = {}
    if modality == "text" and head.kind in ("classification", "regression", "choice"):
        wanted = {"pooling": "first", "norm": False, "inner": encoder.config.width, "activation": "tanh"}
    elif modality == "image":
        mean = head.pooling == "mean"
        wanted = {"norm": mean, "inner": None}
        if mean == (encoder.norm is not None):
            raise ConversionError(
                f"head.pooling {head.pooling} with encoder.final_norm {encoder.config.final_norm}: transformers "
                "normalises either the patches' mean or all of the last block's output."
            )
    elif modality == "speech" and head.kind == "classification":
        wanted = {"pooling": "mean", "norm": False, "activation": "none"}
    if modality != "speech" or head.kind == "ctc":
        wanted["layer_sum"] = False
    faults = [
        f"head.{name} is {getattr(head, name)}, and transformers' is {value}"
        for name, value in wanted.items()
        if getattr(head, name) != value
    ]
    if faults:
        raise ConversionError("transformers cannot express this head. " + "; ".join(faults) + ".")


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
    """The model of transformers that is this plain encoder with this head."""
    front = encoder.front_end(modality)
    kind = getattr(transformers, architecture)
    config = kind.config_class(
        **to_theirs(encoder.config, ENCODER_SETTINGS[modality]),
        **to_theirs(front.config, FRONT_END_SETTINGS[modality]),
        **_composed(encoder, front),
        **settings,
    )
    # The pooler of an encoder alone is nobody's: its class makes a random one when it is opened.
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
    """Settings that are not one of ours under another name."""
    config, shared = front.config, encoder.config
    if isinstance(config, TextConfig):
        return {"max_position_embeddings": config.padding_id + 1 + config.max_length, "type_vocab_size": 1}
    if isinstance(config, ImageConfig):
        return {
            "use_absolute_position_embeddings": config.positions == "absolute",
            "use_shared_relative_position_bias": config.positions == "relative" and not config.relative_per_layer,
            "use_mean_pooling": not shared.final_norm,
            "use_mask_token": front.mask_token is not None,
            # The factors themselves are among the tensors; here, above 0 says that there are any.
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
    """Files by which transformers' tokenizers and processors read as vislang does."""
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
        # The largest central square: the shorter edge to the size, then the centre.
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
    """A recogniser's symbols, as transformers' tokenizer for CTC reads them."""
    symbols = {{BLANK: PADDING, " ": "|"}.get(label, label): n for n, label in enumerate(labels)}
    settings = {"tokenizer_class": "Wav2Vec2CTCTokenizer", "pad_token": PADDING, "word_delimiter_token": "|"}
    return {"vocab.json": _json(symbols), "tokenizer_config.json": _json(settings)}


def _json(values: dict[str, Any]) -> str:
    return json.dumps(values, indent=2, ensure_ascii=False) + "\n"
