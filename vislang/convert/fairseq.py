"""fairseq's data2vec checkpoints (examples/data2vec), v1 and v2: loading, and comparison with recorded outputs.

:mod:`~vislang.convert.fairseq_config` makes the model, :mod:`~vislang.convert.fairseq_keys` maps keys to tensors.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import Any

import torch
from torch import Tensor

from vislang.convert.fairseq_keys import MODALITIES_THERE, student_keys, teacher_keys
from vislang.convert.keys import ConversionError, fill
from vislang.models.data2vec.blocks import run_blocks
from vislang.models.data2vec.decoder import ConvolutionalDecoder
from vislang.models.data2vec.front_ends import TextConfig
from vislang.models.data2vec.model import Data2Vec
from vislang.models.data2vec.objective import Masked, channel_std

TEXT_LAYOUT = 3.0
"""The value of fairseq's ``version`` keys, which is the version of its transformer checkpoints."""


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
        f"loss_{MODALITIES_THERE[modality]}_regression"
        if v2
        else "loss_main"
        if modality == "text"
        else "loss_regression"
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
        tokens, config = inputs["target_tokens"], model.student.front_end(modality).config
        assert isinstance(config, TextConfig)
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
