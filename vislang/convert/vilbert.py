"""ViLBERT checkpoints of vilbert-multi-task, vilbert_beta and MMF.

This module converts the configuration and maps the keys of a checkpoint to our parameters. The heads are determined
from the keys and shapes in the checkpoint, so any number of answers is supported.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from vislang.convert.keys import ConversionError, Keys, Slot, fill, linear
from vislang.convert.settings import Settings
from vislang.models.vilbert.config import TextStreamConfig, ViLBERTConfig, VisionStreamConfig
from vislang.models.vilbert.heads import HeadConfig
from vislang.models.vilbert.model import PretrainingLabels, ViLBERT, pretraining_losses
from vislang.models.vilbert.streams import Encoded, TwoStreams

HEADS = {
    "vil_prediction": ("answers", "fused"),
    "vil_prediction_gqa": ("answers-gqa", "fused"),
    "vil_binary_prediction": ("pairs", "pairs"),
    "vil_logit": ("match", "fused"),
    "vil_tri_prediction": ("entailment", "fused"),
    "vision_logit": ("region", "regions"),
    "linguisic_logit": ("token", "tokens"),
    "classifier": ("classes", "fused"),
}
"""Their name of a head -> our name, and our kind of head; ``classifier`` is MMF's."""

_UNUSED = re.compile(r"\.biOutput\.q_dense[12]\.|\.position_ids$")
"""Layers that the original builds in each co-attention block and never applies, and MMF's position index."""


def streams_of(config: Mapping[str, Any]) -> ViLBERTConfig:
    """Our configuration from the original's.

    Raises:
        ConversionError: a field is missing or has an unsupported value.
    """
    settings = Settings(config)
    if settings.get("model", "bert") not in ("bert", "vilbert", "roberta"):
        raise ConversionError(f"configuration: model {config['model']!r} is not a ViLBERT.")
    activations = {"gelu": "gelu", "relu": "relu"}
    for name in ("hidden_act", "v_hidden_act"):
        if settings.get(name, "gelu") not in activations:
            raise ConversionError(f"configuration: {name} {config[name]!r} is not supported, only gelu and relu.")
    fusions = {"mul": "product", "sum": "sum"}
    fusion = settings.get("fusion_method", "mul")
    if fusion not in fusions:
        raise ConversionError(f"configuration: fusion_method {fusion!r} is not supported, only mul and sum.")
    text = TextStreamConfig(
        vocabulary_size=settings.need("vocab_size", int),
        max_length=settings.get("max_position_embeddings", 512),
        segments=settings.get("type_vocab_size", 2),
        task_tokens=20 if settings.get("task_specific_tokens", False) else 0,
        width=settings.get("hidden_size", 768),
        depth=settings.get("num_hidden_layers", 12),
        heads=settings.get("num_attention_heads", 12),
        mlp_width=settings.get("intermediate_size", 3072),
        activation=settings.get("hidden_act", "gelu"),
        dropout=settings.get("hidden_dropout_prob", 0.1),
        attention_dropout=settings.get("attention_probs_dropout_prob", 0.1),
    )
    vision = VisionStreamConfig(
        feature_width=settings.get("v_feature_size", 2048),
        classes=settings.get("v_target_size", 1601),
        width=settings.get("v_hidden_size", 768),
        depth=settings.get("v_num_hidden_layers", 3),
        heads=settings.get("v_num_attention_heads", 12),
        mlp_width=settings.get("v_intermediate_size", 3072),
        activation=settings.get("v_hidden_act", "gelu"),
        dropout=settings.get("v_hidden_dropout_prob", 0.1),
        attention_dropout=settings.get("v_attention_probs_dropout_prob", 0.1),
    )
    text_layers = _numbers_of_layers(settings, "t_biattention_id")
    vision_layers = _numbers_of_layers(settings, "v_biattention_id")
    if len(text_layers) != len(vision_layers):
        raise ConversionError(
            f"configuration: t_biattention_id and v_biattention_id have {len(text_layers)} and {len(vision_layers)} "
            "layers; they must have the same number."
        )
    return ViLBERTConfig(
        text,
        vision,
        co_attention_layers=list(zip(text_layers, vision_layers, strict=True)),
        co_attention=settings.get("with_coattention", True),
        width=settings.get("bi_hidden_size", 1024),
        heads=settings.get("bi_num_attention_heads", 16),
        fusion=fusions[fusion],  # type: ignore[arg-type]
        dynamic_attention=settings.get("dynamic_attention", False),
        # The original's head for region classes ignores v_hidden_act and uses hidden_act.
        region_activation=text.activation,
    )


def _numbers_of_layers(settings: Settings, name: str) -> list[int]:
    layers = settings.need(name, list)
    if any(type(layer) is not int for layer in layers):
        raise ConversionError(f"configuration: {name} is {layers}; it must be a list of whole numbers.")
    return layers


def canonical(weights: Mapping[str, Any]) -> dict[str, Tensor]:
    """A checkpoint's tensors with the key names of vilbert-multi-task.

    Prefixes of wrappers (``module.``, MMF's ``model.``) are removed, TensorFlow's names of norm parameters are
    translated, and weights with weight normalisation (in vilbert_beta's classifiers) are computed from length and
    direction.
    """
    for inner in ("model_state_dict", "state_dict", "model"):
        if isinstance(weights.get(inner), Mapping):
            weights = weights[inner]
    state: dict[str, Tensor] = {}
    for key, value in weights.items():
        if isinstance(value, Tensor):
            key = re.sub(r"^((module|model)\.)+", "", key)
            # In MMF's older checkpoints, all keys have the additional prefix "bert.".
            key = re.sub(r"^bert\.(?=(bert|cls|classifier)\.)", "", key)
            key = re.sub(r"\.gamma$", ".weight", key)
            state[re.sub(r"\.beta$", ".bias", key)] = value
    for key in [key for key in state if key.endswith(".weight_g")]:
        name = key.removesuffix("_g")
        length, direction = state.pop(key), state.pop(f"{name}_v")
        state[name] = direction * (length / direction.norm())
    return state


def build(config: Mapping[str, Any], state: Mapping[str, Tensor]) -> ViLBERT:
    """Make the model of a configuration and a checkpoint's keys, with initialised weights.

    Args:
        config: the original's fields, by their original names.
        state: from :func:`canonical`.

    Raises:
        ConversionError: see :func:`streams_of`.
    """
    heads, layouts = {}, {}
    for theirs, (ours, kind) in HEADS.items():
        layers = _layers(theirs, state)
        if not layers:
            continue
        layouts[ours] = layers
        heads[ours] = HeadConfig(kind, len(state[f"{layers[-1]}.weight"]))  # type: ignore[arg-type]
        if len(layers) > 1:
            # vilbert_beta's classifiers are two linear layers; the others have a norm between them.
            plain = len(layers) == 2
            heads[ours].mlp_width = len(state[f"{layers[0]}.weight"])
            heads[ours].activation, heads[ours].norm = ("relu", False) if plain else ("gelu", True)
            heads[ours].dropout = 0.5 if plain else 0.0
    pretraining = any(key.startswith("cls.") for key in state)
    origin = {"format": "vilbert", "config": dict(config), "heads": layouts}
    return ViLBERT(streams_of(config), heads, pretraining, origin)


def _layers(head: str, state: Mapping[str, Tensor]) -> list[str]:
    """The names of the linear layers and norms of a head, in order."""
    arrangements = (
        [head],
        [f"{head}.logit_fc.{n}" for n in (0, 2, 3)],
        [f"{head}.main.{n}" for n in (0, 3)],
        [f"{head}.0.dense", f"{head}.0.LayerNorm", f"{head}.1"],
    )
    for names in arrangements:
        if all(f"{name}.weight" in state for name in names):
            return names
    return []


# ------------------------------------------------------------------------------------------ which key is which


def _attention(theirs: tuple[str, str, str], ours: str) -> Iterator[tuple[str, Slot]]:
    """Separate projections of queries, keys and values, which are one layer here."""
    for part, name in enumerate(theirs):
        for kind in ("weight", "bias"):
            yield f"{name}.{kind}", Slot(f"{ours}.to_queries_keys_values.{kind}", part, 3)


def _block(theirs: str, ours: str) -> Iterator[tuple[str, Slot]]:
    inside = f"{theirs}.attention.self"
    yield from _attention((f"{inside}.query", f"{inside}.key", f"{inside}.value"), f"{ours}.attention")
    yield from linear(f"{theirs}.attention.output.dense", f"{ours}.attention.to_output")
    yield from linear(f"{theirs}.attention.output.LayerNorm", f"{ours}.attention_norm")
    yield from linear(f"{theirs}.intermediate.dense", f"{ours}.widen")
    yield from linear(f"{theirs}.output.dense", f"{ours}.narrow")
    yield from linear(f"{theirs}.output.LayerNorm", f"{ours}.feed_forward_norm")


def _co_attention(theirs: str, ours: str) -> Iterator[tuple[str, Slot]]:
    for number, letter, stream in ((1, "v", "vision"), (2, "t", "text")):
        inside = f"{theirs}.biattention"
        side = f"{ours}.{stream}"
        yield from _attention((f"{inside}.query{number}", f"{inside}.key{number}", f"{inside}.value{number}"), side)
        yield from linear(f"{theirs}.biOutput.dense{number}", f"{side}.to_output")
        yield from linear(f"{theirs}.biOutput.LayerNorm{number}", f"{side}.attention_norm")
        yield from linear(f"{theirs}.{letter}_intermediate.dense", f"{side}.widen")
        yield from linear(f"{theirs}.{letter}_output.dense", f"{side}.narrow")
        yield from linear(f"{theirs}.{letter}_output.LayerNorm", f"{side}.feed_forward_norm")


def keys(model: ViLBERT) -> Keys:
    """Their key -> our slot, for a model that :func:`build` made."""
    return dict(_keys(model))


def _keys(model: ViLBERT) -> Iterator[tuple[str, Slot]]:
    config = model.config
    embedding = "streams.text_embedding"
    for theirs, ours in (("word", "words"), ("position", "positions"), ("token_type", "segments")):
        yield from linear(f"bert.embeddings.{theirs}_embeddings", f"{embedding}.{ours}", "weight")
    if config.text.task_tokens:
        yield from linear("bert.embeddings.task_embeddings", f"{embedding}.tasks", "weight")
    yield from linear("bert.embeddings.LayerNorm", f"{embedding}.norm")
    regions = "streams.region_embedding"
    yield from linear("bert.v_embeddings.image_embeddings", f"{regions}.features")
    yield from linear("bert.v_embeddings.image_location_embeddings", f"{regions}.boxes")
    yield from linear("bert.v_embeddings.LayerNorm", f"{regions}.norm")
    for index in range(config.text.depth):
        yield from _block(f"bert.encoder.layer.{index}", f"streams.text_blocks.{index}")
    for index in range(config.vision.depth):
        layer = f"bert.encoder.v_layer.{index}"
        yield from _block(layer, f"streams.vision_blocks.{index}")
        if config.dynamic_attention:
            for part, side in enumerate("qk"):
                for kind in ("weight", "bias"):
                    slot = Slot(f"streams.query_key_gates.{index}.{kind}", part, 2)
                    yield f"{layer}.attention.self.dyLinear_{side}.{kind}", slot
    assert isinstance(model.streams, TwoStreams)
    for index in range(len(model.streams.co_attention)):
        yield from _co_attention(f"bert.encoder.c_layer.{index}", f"streams.co_attention.{index}")
    yield from linear("bert.t_pooler.dense", "streams.pool_text")
    yield from linear("bert.v_pooler.dense", "streams.pool_vision")
    if model.pretraining is not None:
        yield "cls.predictions.bias", Slot("pretraining.word_bias")
        yield from linear("cls.predictions.transform.dense", "pretraining.words.0")
        yield from linear("cls.predictions.transform.LayerNorm", "pretraining.words.2")
        yield from linear("cls.imagePredictions.transform.dense", "pretraining.regions.0")
        yield from linear("cls.imagePredictions.transform.LayerNorm", "pretraining.regions.2")
        yield from linear("cls.imagePredictions.decoder", "pretraining.regions.3")
        yield from linear("cls.bi_seq_relationship", "pretraining.alignment")
    assert model.origin is not None
    for name, theirs in model.origin["heads"].items():
        head = model.heads[name]
        # Activations in a head have no weights.
        layers = [f".{index}" for index, layer in head.named_children() if any(True for _ in layer.parameters())]
        for their, our in zip(theirs, layers or [""], strict=True):
            yield from linear(their, f"heads.{name}{our}")


def load_weights(model: ViLBERT, state: Mapping[str, Tensor], lenient: bool = False) -> list[str]:
    """Load the weights of a checkpoint.

    Args:
        model: from :func:`build` with this state.
        state: from :func:`canonical`.
        lenient: continue if keys are missing or unexpected; parameters without a key keep their initial values.

    Returns:
        What was ignored: keys that the original never uses and, with ``lenient``, all problems.

    Raises:
        ConversionError: keys are missing or unexpected, or shapes differ; the message lists them.
    """
    known = keys(model)
    tied, words = "cls.predictions.decoder.weight", "bert.embeddings.word_embeddings.weight"
    problems = [f"missing {key}" for key in known if key not in state]
    unused = []
    for key in state:
        if _UNUSED.search(key) or (key.startswith("bert.encoder.c_layer.") and not model.config.co_attention):
            unused.append(f"unused {key}")
        elif key not in known and key != tied:
            problems.append(f"unexpected {key}")
    if tied in state and words in state and not torch.equal(state[tied], state[words]):
        problems.append(f"{tied} should equal the word embedding, but differs")
    if problems and not lenient:
        shown = "; ".join(problems[:20]) + (f"; and {len(problems) - 20} more" if len(problems) > 20 else "")
        raise ConversionError(f"checkpoint: {shown}. To convert it anyway, add --lenient.")
    with torch.no_grad():
        fill(dict(model.named_parameters()), known, state)
    return unused + problems


# ------------------------------------------------------------------------------------------------ verification


def outputs(model: ViLBERT, inputs: Mapping[str, Any], labels: Mapping[str, Any] | None) -> dict[str, Any]:
    """Compute the outputs that were recorded from the original model, by their recorded names.

    Args:
        model: the converted model; it is set to eval mode.
        inputs: the recorded inputs.
        labels: the labels of pretraining, if its losses were recorded; the gradients are those of their sum.
    """
    model.eval()
    encoded = _encode(model, inputs)
    fused = model.fuse(encoded)
    found: dict[str, Any] = {}
    if model.pretraining is not None:
        logits = model.pretraining_logits(encoded.text, encoded.vision, fused)
        found["linguisic_prediction"] = found["prediction_scores_t"] = logits.words
        found["vision_prediction"] = found["prediction_scores_v"] = logits.regions
        found["seq_relationship_score"] = logits.alignment
    for theirs, (ours, kind) in HEADS.items():
        # An odd batch cannot be paired; the original then returns the alignment scores.
        if ours in model.heads and (kind != "pairs" or len(fused) % 2 == 0):
            found[theirs] = model.predict(ours, encoded, fused)
    if len(fused) % 2 and "seq_relationship_score" in found:
        found["vil_binary_prediction"] = found["seq_relationship_score"]
    if labels is not None:
        losses = pretraining_losses(model, encoded, _labels(labels))
        model.zero_grad(set_to_none=True)
        torch.stack(list(losses.values())).sum().backward()
        gradients = {
            name: torch.zeros_like(parameter) if parameter.grad is None else parameter.grad
            for name, parameter in model.named_parameters()
        }
        found["losses"] = {"lm": losses["words"], "img_kl": losses["regions"], "align": losses["alignment"]}
        found["grad_norms"] = {key: slot.of(gradients).norm() for key, slot in keys(model).items()}
    return found


def _encode(model: ViLBERT, inputs: Mapping[str, Any]) -> Encoded:
    ids = inputs["input_txt"] if "input_txt" in inputs else inputs["input_ids"]
    features = inputs["input_imgs"] if "input_imgs" in inputs else inputs["image_feat"]
    tasks = inputs["task_ids"].flatten() if model.config.text.task_tokens else None
    return model(
        ids,
        inputs["token_type_ids"],
        features,
        inputs["image_loc"],
        inputs["attention_mask"] == 0,
        inputs["image_attention_mask"] == 0,
        tasks=tasks,
    )


def _labels(labels: Mapping[str, Any]) -> PretrainingLabels:
    """Labels in our format. The original has none for the first region, which is the whole image."""
    return PretrainingLabels(
        labels["masked_lm_labels"],
        F.pad(labels["image_label"] == 1, (1, 0)),
        F.pad(labels["image_target"], (0, 0, 1, 0)),
        labels["next_sentence_label"] == 0,
    )
