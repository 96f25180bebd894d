"""Import of transformers' data2vec models: Data2VecText, Data2VecVision and Data2VecAudio, with and without heads.

These models contain the encoder alone. The other parts of a pretraining model are made new: the teacher is a copy of
the student, and the prediction head is initialised. :mod:`~vislang.convert.transformers_export` is the opposite
direction.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
import transformers
from huggingface_hub import hf_hub_download
from huggingface_hub.errors import EntryNotFoundError
from torch import Tensor
from transformers import AutoConfig

from vislang.convert.keys import ConversionError, Keys
from vislang.convert.transformers_names import (
    CLASS_OF,
    ENCODER_SETTINGS,
    ENCODERS,
    FRONT_END_SETTINGS,
    KIND_OF,
    MASK_TOKENS,
    MODALITIES,
    PREFIXES,
    Modality,
    fold,
    keys,
    tensors,
    to_ours,
)
from vislang.models.data2vec.blocks import EncoderConfig
from vislang.models.data2vec.finetuning import BLANK, FineTuned
from vislang.models.data2vec.front_ends import FrontEndConfig, ImageConfig, Modalities, SpeechConfig, TextConfig
from vislang.models.data2vec.heads import HeadConfig
from vislang.models.data2vec.inputs import TOKENIZER_FILE, ImageInput, Inputs, SpeechInput, TextInput
from vislang.models.data2vec.model import Data2Vec, TeacherConfig
from vislang.models.data2vec.objective import ObjectiveConfig


def convert(source: Path | str) -> Data2Vec | FineTuned:
    """Convert a data2vec model of transformers, given by folder or Hub id; one with a head becomes a fine-tuned model.

    Raises:
        ConversionError: there is no model, it has another type or an unsupported setting, or tensors are missing or
            unexpected; the message lists them.
    """
    config = _config(source)
    modality = MODALITIES[config.model_type]
    architecture = (config.architectures or [ENCODERS[modality]])[0]
    if architecture not in (ENCODERS[modality], *CLASS_OF.values()):
        raise ConversionError(
            f"{source}: its architecture {architecture} is not supported. Supported are {_supported()}."
        )
    encoder, front_end = {"text": _text, "image": _image, "speech": _speech}[modality](config)
    modalities = Modalities(**{modality: front_end})  # type: ignore[arg-type]  # of its own kind
    inputs = _inputs(source, front_end)
    origin = {"format": "transformers", "architecture": architecture}
    theirs = _open(source, architecture)
    if architecture in KIND_OF:
        head, labels = _head(source, config, architecture, encoder)
        tuned = FineTuned(encoder, modalities, inputs, head, labels, origin=origin)
        assert tuned.head is not None
        own = dict(tuned.head.named_parameters(remove_duplicate=False))
        _fill(theirs, tensors(tuned.encoder, own), keys(tuned.encoder, modality, own, head.kind), config, modality)
        return tuned.eval()
    model = Data2Vec(encoder, modalities, _objective(modality, encoder.depth), _TEACHERS[modality], origin)
    model.inputs = inputs
    _fill(theirs, tensors(model.student, None), keys(model.student, modality, None, None), config, modality)
    model.reset_teacher()
    return model.eval()


def _supported() -> str:
    return ", ".join([*ENCODERS.values(), *KIND_OF])


def _config(source: Path | str) -> Any:
    try:
        config = AutoConfig.from_pretrained(source)
    except (OSError, ValueError) as error:
        raise ConversionError(f"{source}: cannot be opened by transformers ({_first_line(error)}).") from None
    if config.model_type not in MODALITIES:
        raise ConversionError(
            f"{source}: is a model of the type {config.model_type}; supported are {', '.join(MODALITIES)}."
        )
    return config


def _open(source: Path | str, architecture: str) -> dict[str, Tensor]:
    """The tensors of a model, loaded by its class in transformers."""
    try:
        model, info = getattr(transformers, architecture).from_pretrained(
            source, dtype=torch.float32, output_loading_info=True
        )
    except (OSError, ValueError, RuntimeError) as error:
        raise ConversionError(f"{source}: cannot be opened by transformers ({_first_line(error)}).") from None
    # transformers initialises missing tensors at random and ignores unknown ones.
    _raise_if(
        [f"missing {key}" for key in sorted(info["missing_keys"]) if not _is_pooler(key)]
        + [f"unexpected {key}" for key in sorted(info["unexpected_keys"])]
    )
    return model.state_dict()


def _is_pooler(key: str) -> bool:
    """Whether a tensor belongs to the pooler of the text encoder: a layer after it that data2vec does not train."""
    return key.startswith("pooler.")


def _first_line(error: Exception) -> str:
    return (str(error).strip().splitlines() or [type(error).__name__])[0]


def _raise_if(problems: list[str]) -> None:
    if problems:
        more = f"; and {len(problems) - 20} more" if len(problems) > 20 else ""
        raise ConversionError("weights: " + "; ".join(problems[:20]) + more)


def _fill(state: Mapping[str, Tensor], ours: Mapping[str, Tensor], names: Keys, config: Any, modality: str) -> None:
    """Copy each tensor to its slot."""
    prefix = PREFIXES[modality] if any(key.startswith(PREFIXES[modality]) for key in state) else ""
    state = fold(state, modality, prefix)
    if not _has_mask_token(config):
        names = {key: slot for key, slot in names.items() if key.removeprefix(prefix) not in MASK_TOKENS}
    _raise_if(
        [f"missing {key}" for key in names if key not in state]
        + [f"unexpected {key}" for key in state if key not in names and not _is_pooler(key)]
    )
    with torch.no_grad():
        for name, tensor in ours.items():
            if name.endswith("to_queries_keys_values.bias"):
                tensor.zero_()
        for key, slot in names.items():
            target = slot.of(ours)
            target.copy_(state[key].reshape(target.shape))


def _has_mask_token(config: Any) -> bool:
    if config.model_type == "data2vec-vision":
        return config.use_mask_token
    return config.model_type == "data2vec-audio" and (config.mask_time_prob > 0 or config.mask_feature_prob > 0)


# --------------------------------------------------------------------------------------------------- encoders


def _shared(config: Any, modality: Modality) -> dict[str, Any]:
    if config.hidden_act not in ("gelu", "relu"):
        raise ConversionError(f"configuration: hidden_act {config.hidden_act!r} is not supported, only gelu and relu.")
    values = to_ours(config, ENCODER_SETTINGS[modality])
    # A rate of 0 may be written as a whole number.
    return {name: float(value) if "dropout" in name else value for name, value in values.items()}


def _text(config: Any) -> tuple[EncoderConfig, TextConfig]:
    for setting in ("is_decoder", "add_cross_attention"):
        if getattr(config, setting):
            raise ConversionError(f"configuration: {setting} is not supported; the encoder must be bidirectional.")
    text = TextConfig(
        **to_ours(config, FRONT_END_SETTINGS["text"]),
        max_length=config.max_position_embeddings - config.pad_token_id - 1,
        mask_id=config.vocab_size - 1,
        embedding_eps=config.layer_norm_eps,
        zero_padding=False,
    )
    return EncoderConfig(**_shared(config, "text")), text


def _image(config: Any) -> tuple[EncoderConfig, ImageConfig]:
    kinds = {
        "use_absolute_position_embeddings": "absolute",
        "use_relative_position_bias": "relative",
        "use_shared_relative_position_bias": "relative",
    }
    on = [name for name in kinds if getattr(config, name)]
    if len(on) > 1:
        raise ConversionError(f"configuration: {' and '.join(on)} exclude each other.")
    for name in ("image_size", "patch_size"):
        if not isinstance(getattr(config, name), int):
            raise ConversionError(
                f"configuration: {name} {getattr(config, name)} must be a single number; only squares are supported."
            )
    image = ImageConfig(**to_ours(config, FRONT_END_SETTINGS["image"]), positions=kinds[on[0]] if on else "none")  # type: ignore[arg-type]
    encoder = EncoderConfig(
        **_shared(config, "image"),
        norm_first=True,
        final_norm=not config.use_mean_pooling,
        layer_scale=float(config.layer_scale_init_value) if config.layer_scale_init_value > 0 else None,
        drop_path=(0.0, float(config.drop_path_rate)),
    )
    return encoder, image


def _speech(config: Any) -> tuple[EncoderConfig, SpeechConfig]:
    if config.add_adapter:
        raise ConversionError("configuration: add_adapter is not supported.")
    if config.feat_extract_activation != "gelu":
        raise ConversionError("configuration: feat_extract_activation must be gelu.")
    if config.num_conv_pos_embeddings < 1 or config.conv_pos_kernel_size < 3:
        raise ConversionError(
            "configuration: num_conv_pos_embeddings must be at least 1 and conv_pos_kernel_size at least 3."
        )
    speech = SpeechConfig(
        **to_ours(config, FRONT_END_SETTINGS["speech"]),
        strict_padding=False,
        convolutions=list(zip(config.conv_dim, config.conv_kernel, config.conv_stride, strict=True)),
        position_kernel=config.conv_pos_kernel_size * config.num_conv_pos_embeddings,
        feature_eps=config.layer_norm_eps,
    )
    return EncoderConfig(**_shared(config, "speech")), speech


_TEACHERS = {
    "text": TeacherConfig(scope="all", copied=("front_ends.text.local",)),
    "image": TeacherConfig(0.9998, 0.9998, scope="context", copied=("front_ends.image.class_tokens",)),
    "speech": TeacherConfig(scope="context", copied=("front_ends.speech.positions",)),
}


def _objective(modality: Modality, depth: int) -> ObjectiveConfig:
    """The objective of the first paper for a modality."""
    if modality == "text":
        return ObjectiveConfig(top_k=min(10, depth), beta=4.0)
    if modality == "image":
        return ObjectiveConfig(top_k=min(6, depth), beta=2.0, end_of_block=True)
    return ObjectiveConfig(top_k=min(8, depth), layer_norms=("instance",))


# ------------------------------------------------------------------------------------------------------ heads


def _head(source: Path | str, config: Any, architecture: str, encoder: EncoderConfig) -> tuple[HeadConfig, list[str]]:
    kind = KIND_OF[architecture]
    labels = [config.id2label[n] for n in range(config.num_labels)]
    if not labels:
        raise ConversionError("configuration: num_labels is 0; a head needs labels.")
    if kind == "classification" and not architecture.startswith("Data2VecAudio"):
        if config.problem_type == "multi_label_classification":
            raise ConversionError("configuration: problem_type multi_label_classification is not supported.")
        if config.problem_type == "regression" or (config.problem_type is None and config.num_labels == 1):
            if config.num_labels > 1:
                raise ConversionError(f"configuration: regression of {config.num_labels} numbers is not supported.")
            kind, labels = "regression", []
    if architecture.startswith("Data2VecText"):
        dropout = config.hidden_dropout_prob
        if kind in ("classification", "regression", "tagging") and config.classifier_dropout is not None:
            dropout = config.classifier_dropout
        head = HeadConfig(kind, "first", float(dropout), inner=encoder.width, activation="tanh")
        if kind == "answering" and config.num_labels != 2:
            raise ConversionError(
                f"configuration: num_labels is {config.num_labels}; it must be 2, for the start and end of an answer."
            )
        if kind in ("tagging", "answering", "language"):
            head = HeadConfig(kind, dropout=float(dropout) if kind == "tagging" else 0.0)
        if kind == "language":
            head.tied = config.tie_word_embeddings
        return head, labels if kind in ("classification", "tagging") else []
    if architecture.startswith("Data2VecVision"):
        mean = config.use_mean_pooling
        return HeadConfig(kind, "mean" if mean else "first", 0.0, norm=mean), labels
    if kind == "ctc":
        return HeadConfig(kind, dropout=float(config.final_dropout)), _symbols(source, config)
    head = HeadConfig(kind, dropout=0.0, layer_sum=config.use_weighted_layer_sum)
    if kind == "classification":
        head.inner = config.classifier_proj_size
    if kind == "speaker":
        head.inner = config.xvector_output_dim
        head.convolutions = list(zip(config.tdnn_dim, config.tdnn_kernel, config.tdnn_dilation, strict=True))
    return head, labels


def _symbols(source: Path | str, config: Any) -> list[str]:
    """The symbols of a speech recogniser, from its vocabulary file; without a file, their numbers."""
    if config.pad_token_id != 0:
        raise ConversionError(
            f"configuration: pad_token_id is {config.pad_token_id}; the blank symbol of CTC must be 0."
        )
    file = _file(source, "vocab.json")
    numbers = {} if file is None else json.loads(file.read_text(encoding="utf-8"))
    symbols = {number: " " if symbol == "|" else symbol for symbol, number in numbers.items()}
    return [BLANK, *(symbols.get(n, f"<{n}>") for n in range(1, config.vocab_size))]


# ----------------------------------------------------------------------------------------------------- inputs


def _inputs(source: Path | str, front_end: FrontEndConfig) -> Inputs:
    """The preparation of inputs, as far as files in the model's folder configure it."""
    if isinstance(front_end, TextConfig):
        file = _file(source, TOKENIZER_FILE)
        if file is None:
            return Inputs()
        text = TextInput.load(file, front_end.max_length)
        front_end.mask_id = text.mask_id
        return Inputs(text=text)
    file = _file(source, "preprocessor_config.json")
    if file is None:
        return Inputs()
    values = json.loads(file.read_text(encoding="utf-8"))
    if isinstance(front_end, ImageConfig):
        if not values.get("do_normalize", True) or not {"image_mean", "image_std"} <= set(values):
            return Inputs()
        return Inputs(image=ImageInput(front_end.size, values["image_mean"], values["image_std"]))
    return Inputs(speech=SpeechInput(values.get("sampling_rate", 16_000), values.get("do_normalize", True)))


def _file(source: Path | str, name: str) -> Path | None:
    if Path(source).is_dir():
        file = Path(source) / name
        return file if file.is_file() else None
    try:
        return Path(hf_hub_download(str(source), name))
    except EntryNotFoundError:
        return None
