"""What of a tower trains: nothing, low-rank updates of its linear layers (LoRA), or all of it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Literal

import torch
from torch import nn
from transformers.pytorch_utils import Conv1D

from vislang.errors import UserError

Tuned = Literal["frozen", "lora", "full"]


@dataclass
class LoraConfig:
    """Low-rank updates (Hu et al. 2021, section 4.1): a layer's matrix W becomes W + (alpha / rank) B A.

    Attributes:
        rank: rows of A and columns of B.
        alpha: see above.
        dropout: in training, share of the layer's input that A does not see.
        targets: ends of the names of the linear layers that are updated, such as ``[q_proj, v_proj]``; none names all
            but the language model's output layer.
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
    """What trains of the towers.

    Attributes:
        language_model, vision_tower: ``frozen``; ``lora`` trains low-rank updates of the linear layers; ``full`` trains
            all weights.
        lora: shape of the updates.
    """

    language_model: Tuned = "frozen"
    vision_tower: Tuned = "frozen"
    lora: LoraConfig = field(default_factory=LoraConfig)


def tune(model: nn.Module, how: Tuned, lora: LoraConfig, name: str, spared: Sequence[nn.Module] = ()) -> None:
    """Choose what of a tower trains, and add the updates where there are to be some. What trains is float32.

    Args:
        model: of the tower; it is changed.
        how: see :class:`TuneConfig`.
        lora: shape of the updates.
        name: of the tower, for messages.
        spared: parts that stay frozen in any case.

    Raises:
        UserError: peft is not installed, or there are no such layers to update.
    """
    model.requires_grad_(how == "full")
    for part in spared:
        part.requires_grad_(False)
    if how == "lora":
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
        # GPT-2's layers have their matrices on their side.
        fan_in_fan_out=any(isinstance(linear[n], Conv1D) for n in chosen),
    )
    peft.inject_adapter_in_model(updates, model)


def updates_of(model: nn.Module) -> list[nn.Module]:
    """The matrices A and B of every update, as linear layers."""
    return [m for name, m in model.named_modules() if ".lora_" in f".{name}" and isinstance(m, nn.Linear)]


def set_update_dropout(model: nn.Module, training: bool) -> None:
    """Switch the dropout of the updates; the tower's own stays off."""
    for module in model.modules():
        dropouts = getattr(module, "lora_dropout", None)
        if isinstance(dropouts, nn.ModuleDict):
            dropouts.train(training)


def merge_updates(model: nn.Module) -> None:
    """Add every update to the matrix of its layer, so that it costs nothing any more; it can then not be trained.

    Matrices that would lose what is added are left alone: those in 8 bits, or in less than float32.
    """
    for module in model.modules():
        if hasattr(module, "lora_A"):
            weight = getattr(module.get_base_layer(), "weight", None)  # type: ignore[operator]
            if isinstance(weight, nn.Parameter) and weight.dtype in (torch.float32, torch.float64):
                module.merge()  # type: ignore[operator]
