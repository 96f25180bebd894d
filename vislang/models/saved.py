"""A model in a folder: ``config.json`` names its class and settings, ``model.safetensors`` holds its weights."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import safetensors.torch
from torch import Tensor, nn

from vislang.errors import UserError


def write_model(
    folder: Path | str, model: nn.Module, settings: Mapping[str, Any], state: Mapping[str, Tensor] | None = None
) -> None:
    """Write a model; :func:`vislang.load` finds its class by the config.

    Args:
        folder: is made, where it is missing.
        model: its class must be one of ``vislang.models``.
        settings: what its ``load`` needs to build it again.
        state: the weights to write; None writes all, shared ones once.
    """
    folder = Path(folder)
    folder.mkdir(parents=True, exist_ok=True)
    config = {"model": f"{type(model).__module__}.{type(model).__name__}", **settings}
    (folder / "config.json").write_text(json.dumps(config, indent=2) + "\n", encoding="utf-8")
    if state is None:
        safetensors.torch.save_model(model, str(folder / "model.safetensors"), metadata={"format": "pt"})
        return
    state = {name: tensor.detach().cpu().contiguous() for name, tensor in state.items()}
    safetensors.torch.save_file(state, folder / "model.safetensors", metadata={"format": "pt"})


def read_config(folder: Path) -> dict[str, Any]:
    """The settings that :func:`write_model` wrote."""
    return json.loads((folder / "config.json").read_text(encoding="utf-8"))


def fill_model(model: nn.Module, folder: Path) -> None:
    """Read all weights of a folder into a model that was built by its config.

    Raises:
        UserError: they do not fit.
    """
    try:
        safetensors.torch.load_model(model, folder / "model.safetensors")
    except RuntimeError as error:
        raise UserError(f"{folder}: its weights do not fit its config. {error}") from None
