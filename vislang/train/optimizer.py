"""AdamW over a model's parameters, and its state by the parameters' names."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor

from vislang.capabilities import Trainable
from vislang.errors import UserError
from vislang.train.config import TrainConfig


class Optimizer:
    """AdamW. A group of parameters may have a rate of its own; weight decay goes by the model's rule.

    Args:
        model: what trains.
        config: rates, decay and betas.

    Raises:
        UserError: ``lr_scale`` names a group that the model does not have.
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
        groups = []
        for group, names in self._rate_groups.items():
            for decays in (True, False):
                chosen = [self.named[name] for name in names if (name in self._decaying) == decays]
                decay = config.weight_decay if decays else 0.0
                groups += [{"name": group, "params": chosen, "weight_decay": decay}] if chosen else []
        self.adamw = torch.optim.AdamW(groups, lr=config.lr, betas=config.betas, fused=True)

    def step(self, factor: float, skip: Tensor | None = None) -> None:
        """Update the parameters.

        Args:
            factor: of the schedule, on every group's peak rate.
            skip: a scalar on their device; where it is true nothing is updated. A GPU is not waited for.
        """
        if skip is not None and skip.device.type == "cuda":
            # The kernel reads it itself; torch's GradScaler has introduced the name.
            self.adamw.found_inf = skip.float()  # type: ignore[attr-defined]
        elif skip is not None and bool(skip):
            return
        for group in self.adamw.param_groups:
            group["lr"] = self.config.lr * self.config.lr_scale.get(group["name"], 1.0) * factor
        self.adamw.step()

    def zero_grad(self) -> None:
        """Drop the gradients."""
        self.adamw.zero_grad(set_to_none=True)

    def state(self) -> dict[str, dict[str, Tensor]]:
        """The moments of each parameter that has been updated, by its name."""
        return {name: dict(self.adamw.state[p]) for name, p in self.named.items() if p in self.adamw.state}

    def load_state(self, state: Mapping[str, Any]) -> None:
        """Restore what :meth:`state` gave.

        Raises:
            UserError: it is of other parameters.
        """
        if "param_groups" in state:
            state = self._by_name(state)
        for name, moments in state.items():
            parameter = self.named.get(name)
            if parameter is None or moments["exp_avg"].shape != parameter.shape:
                raise UserError(f"the checkpoint has an optimizer state of {name}, which does not fit this model.")
            self.adamw.state[parameter] = {key: value.clone() for key, value in moments.items()}

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
