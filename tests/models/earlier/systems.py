"""What the tests of the earlier systems share: short training, and gradients of all parameters."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch

from vislang.example import Example
from vislang.models.earlier.inputs import WordsConfig
from vislang.models.regions.readers import RegionsConfig

WORDS = WordsConfig(vocabulary_size=60, max_length=16, width=12)


def regions_of(towers: tuple[str, str]) -> RegionsConfig:
    """The grid of a tiny random tower."""
    return RegionsConfig(tower=towers[1], image_size=0)


def built(recipe: Any, examples: Sequence[Example]) -> Any:
    """A new model of a recipe, fitted to examples."""
    torch.manual_seed(0)
    model = recipe.build()
    model.fit(examples)
    return model


def train(model: Any, batch: Any, steps: int, lr: float = 5e-3) -> float:
    """Train on one batch; returns the last loss."""
    optimizer = torch.optim.Adam([p for group in model.parameter_groups().values() for _, p in group], lr=lr)
    model.train()
    for _ in range(steps):
        loss = torch.stack(list(model(batch).values())).sum()
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    model.eval()
    return float(loss.detach())


def without_gradient(model: Any, batch: Any) -> list[str]:
    """The parameters that the losses of a batch do not depend on."""
    torch.stack(list(model.train()(batch).values())).sum().backward()
    return [name for name, p in model.named_parameters() if p.grad is None or not p.grad.any()]


def restored(recipe: Any, model: Any) -> Any:
    """A new model with the state of a checkpoint of the model."""
    made = recipe.build()
    made.load_extra_state(json.loads(json.dumps(model.extra_state())))
    made.load_trainable_state(model.trainable_state())
    return made.eval()


def with_setting(folder: Path, name: str, value: Any) -> None:
    """Change a setting of the network of a saved model."""
    config = json.loads((folder / "config.json").read_text())
    config["network"][name] = value
    (folder / "config.json").write_text(json.dumps(config))
