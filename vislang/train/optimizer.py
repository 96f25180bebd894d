"""The optimizer of a model's parameters, and its state by the parameters' names."""

from __future__ import annotations

from collections.abc import Mapping, Set
from typing import Any

import torch
from torch import Tensor

from vislang.capabilities import Trainable
from vislang.errors import UserError
from vislang.train.config import TrainConfig
from vislang.train.muon import Muon


class Optimizer:
    """AdamW; or Muon for the matrices of hidden linear layers, with AdamW for all other parameters.

    Groups of parameters may have their own learning rates. The model decides which parameters have weight decay and
    which are matrices of hidden layers.

    Args:
        model: the trained model.
        config: optimizer, learning rates, weight decay, betas and momentum.

    Raises:
        UserError: ``lr_scale`` names an unknown group, or there is no matrix for Muon.
    """

    def __init__(self, model: Trainable, config: TrainConfig):
        rate_groups = model.parameter_groups()
        unknown = set(config.lr_scale) - set(rate_groups)
        if unknown:
            raise UserError(f"train.lr_scale names {sorted(unknown)}; this model's groups are {sorted(rate_groups)}.")
        self.config = config
        self.named: dict[str, Tensor] = {name: p for group in rate_groups.values() for name, p in group}
        self._decaying = {name for name, parameter in self.named.items() if model.decays(name, parameter)}
        self._rate_groups = {group: [name for name, _ in named] for group, named in rate_groups.items()}
        self._by_muon: set[str] = set()
        if config.optimizer == "muon":
            self._by_muon = {name for name, parameter in self.named.items() if model.is_hidden_matrix(name, parameter)}
            if not self._by_muon:
                raise UserError("train.optimizer is muon, and no matrix of a hidden linear layer trains. Take adamw.")
        self._optimizers: list[torch.optim.Optimizer] = []
        if others := self._groups(set(self.named) - self._by_muon):
            self._optimizers.append(torch.optim.AdamW(others, lr=config.lr, betas=config.betas, fused=True))
        if matrices := self._groups(self._by_muon):
            self._optimizers.append(Muon(matrices, lr=config.lr, momentum=config.momentum))

    def _groups(self, chosen: Set[str]) -> list[dict[str, Any]]:
        """The chosen parameters in groups of equal learning rate and weight decay."""
        groups = []
        for rate_group, names in self._rate_groups.items():
            for decays in (True, False):
                own = [self.named[n] for n in names if n in chosen and (n in self._decaying) == decays]
                decay = self.config.weight_decay if decays else 0.0
                groups += [{"name": rate_group, "params": own, "weight_decay": decay}] if own else []
        return groups

    @property
    def param_groups(self) -> list[dict[str, Any]]:
        """The parameter groups of torch's optimizers."""
        return [group for optimizer in self._optimizers for group in optimizer.param_groups]

    def step(self, factor: float, skip: Tensor | None = None) -> None:
        """Update the parameters.

        Args:
            factor: of the schedule, on every group's peak rate.
            skip: a scalar on their device; where it is true nothing is updated. A GPU is not waited for.
        """
        on_device = skip is not None and skip.device.type == "cuda"
        if skip is not None and not on_device and bool(skip):
            return
        for group in self.param_groups:
            group["lr"] = self.config.lr * self.config.lr_scale.get(group["name"], 1.0) * factor
        for optimizer in self._optimizers:
            if on_device:
                # The update reads it itself; torch's GradScaler has introduced the name.
                optimizer.found_inf = skip.float()  # type: ignore[attr-defined, union-attr]
            optimizer.step()

    def zero_grad(self) -> None:
        """Drop the gradients."""
        for optimizer in self._optimizers:
            optimizer.zero_grad(set_to_none=True)

    def state(self) -> dict[str, dict[str, Tensor]]:
        """The moments of each parameter that has been updated, by its name."""
        moments = {p: state for optimizer in self._optimizers for p, state in optimizer.state.items()}
        return {name: dict(moments[p]) for name, p in self.named.items() if p in moments}

    def load_state(self, state: Mapping[str, Any]) -> None:
        """Restore what :meth:`state` gave.

        Raises:
            UserError: it is of other parameters, or of another optimizer.
        """
        if "param_groups" in state:
            state = self._by_name(state)
        of_parameter = {p: o for o in self._optimizers for group in o.param_groups for p in group["params"]}
        for name, moments in state.items():
            parameter = self.named.get(name)
            kept = "momentum_buffer" if name in self._by_muon else "exp_avg"
            if parameter is None or kept not in moments or moments[kept].shape != parameter.shape:
                raise UserError(f"the checkpoint has an optimizer state of {name}, which does not fit this model.")
            of_parameter[parameter].state[parameter] = {key: value.clone() for key, value in moments.items()}

    def _by_name(self, state: Mapping[str, Any]) -> dict[str, Any]:
        """The state of a checkpoint of version 0.1.0, which numbers the parameters in the order of its groups:
        ``matrices`` (those that decay), one for each rate of its own (such as ``gates``), and one for all others."""
        numbers: dict[int, str] = {}
        own_rates = {name for group, names in self._rate_groups.items() if group != "other" for name in names}
        for group in state["param_groups"]:
            if group["name"] in self._rate_groups:
                names = self._rate_groups[group["name"]]
            else:
                decays = group["name"] == "matrices"
                names = [n for n in self.named if n not in own_rates and (n in self._decaying) == decays]
            if len(names) != (saved := len(group["params"])):
                raise UserError(f"the checkpoint's optimizer has {saved} {group['name']}, and this model {len(names)}.")
            numbers |= dict(zip(group["params"], names, strict=True))
        return {numbers[number]: moments for number, moments in state["state"].items()}
