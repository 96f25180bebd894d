"""Training a tower: not at all, by low-rank updates of its linear layers (LoRA), or in full."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Literal

import torch
from torch import nn
from transformers.pytorch_utils import Conv1D

from vislang.errors import UserError

Tuning = Literal["frozen", "lora", "full"]


@dataclass
class LoraConfig:
    """Low-rank updates (Hu et al. 2021, section 4.1): the weight W of a layer becomes W + (alpha / rank) B A.

    Attributes:
        rank: rows of A and columns of B.
        alpha: factor on the update.
        dropout: share of the layer's inputs that A does not read, in training.
        targets: ends of the names of the updated layers, such as ``[q_proj, v_proj]``; an empty list means all linear
            layers except the language model's output layer.
    """

    rank: int = 8
    alpha: float = 16.0
    dropout: float = 0.0
    targets: list[str] = field(default_factory=list)

    def __post_init__(self):
        if self.rank < 1:
            raise ValueError(f"lora.rank is {self.rank}; it must be at least 1.")
        if not self.alpha > 0:
            raise ValueError(f"lora.alpha is {self.alpha}; it must be above 0.")
        if not 0 <= self.dropout < 1:
            raise ValueError(f"lora.dropout is {self.dropout}; it must be at least 0 and below 1.")


@dataclass
class TuneConfig:
    """How the towers of a model are trained.

    Attributes:
        language_model, vision_tower: ``frozen`` trains nothing, ``lora`` low-rank updates of the linear layers, and
            ``full`` all weights.
        lora: shape of the low-rank updates.
    """

    language_model: Tuning = "frozen"
    vision_tower: Tuning = "frozen"
    lora: LoraConfig = field(default_factory=LoraConfig)


def tune(model: nn.Module, tuning: Tuning, lora: LoraConfig, name: str, spared: Sequence[nn.Module] = ()) -> None:
    """Select the trained parameters of a tower, and add low-rank updates if wanted. Trained parameters become float32.

    Args:
        model: the network of the tower; it is changed in place.
        tuning: see :class:`TuneConfig`.
        lora: shape of the low-rank updates.
        name: name of the tower, for messages.
        spared: modules that stay frozen in any case.

    Raises:
        UserError: peft is not installed, or the tower has no such layers.
    """
    model.requires_grad_(tuning == "full")
    for module in spared:
        module.requires_grad_(False)
    if tuning == "lora":
        _add_updates(model, lora, name, spared)
    for parameter in model.parameters():
        if parameter.requires_grad:
            parameter.data = parameter.data.float()


def _add_updates(model: nn.Module, config: LoraConfig, name: str, spared: Sequence[nn.Module]) -> None:
    linear = {n: m for n, m in model.named_modules() if isinstance(m, nn.Linear | Conv1D) and m not in spared}
    chosen = [n for n in linear if not config.targets or any(f".{n}".endswith(f".{end}") for end in config.targets)]
    unknown = [end for end in config.targets if not any(f".{n}".endswith(f".{end}") for n in linear)]
    if unknown or not chosen:
        known = sorted({n.rpartition(".")[2] for n in linear})
        missing = f"no linear layer {', '.join(unknown)}" if unknown else "no linear layers"
        remedy = f"It has {', '.join(known)}." if known else "Tune it in full, or leave it frozen."
        raise UserError(f"tune: {name} has {missing} to update. {remedy}")
    try:
        import peft
    except ModuleNotFoundError:
        raise UserError("tune: low-rank updates need peft. Run: pip install 'vislang[tune]'") from None
    updates = peft.LoraConfig(
        r=config.rank,
        lora_alpha=config.alpha,
        lora_dropout=config.dropout,
        target_modules=chosen,
        # GPT-2's linear layers store the transposed weight.
        fan_in_fan_out=any(isinstance(linear[n], Conv1D) for n in chosen),
    )
    peft.inject_adapter_in_model(updates, model)


def updates_of(model: nn.Module) -> list[nn.Module]:
    """The linear layers A and B of all low-rank updates."""
    return [m for name, m in model.named_modules() if ".lora_" in f".{name}" and isinstance(m, nn.Linear)]


def set_update_dropout(model: nn.Module, training: bool) -> None:
    """Switch the dropout of the low-rank updates on or off; the tower's own dropout stays off."""
    for module in model.modules():
        dropouts = getattr(module, "lora_dropout", None)
        if isinstance(dropouts, nn.ModuleDict):
            dropouts.train(training)


def merge_updates(model: nn.Module) -> None:
    """Add the low-rank updates to the weights of their layers, so they cost no time. They can then not be trained.

    Weights in less than float32 are left alone, because rounding would destroy small updates.
    """
    for module in model.modules():
        if hasattr(module, "lora_A"):
            weight = getattr(module.get_base_layer(), "weight", None)  # type: ignore[operator]
            if isinstance(weight, nn.Parameter) and weight.dtype in (torch.float32, torch.float64):
                module.merge()  # type: ignore[operator]
