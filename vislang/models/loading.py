"""Open saved models of any class, and translate the names of earlier versions."""

from __future__ import annotations

import importlib
import inspect
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError

from vislang.errors import UserError

MOVED = {
    "vislang.models.data2vec": "vislang.models.data2vec.model",
    "vislang.models.dual_encoder": "vislang.models.dual_encoder.model",
    "vislang.models.finetuned": "vislang.models.data2vec.finetuning",
    "vislang.models.flamingo": "vislang.models.flamingo.model",
    "vislang.models.flamingo.FlamingoRecipe": "vislang.models.flamingo.recipe.FlamingoRecipe",
    "vislang.models.flamingo.model.FlamingoRecipe": "vislang.models.flamingo.recipe.FlamingoRecipe",
    "vislang.models.old_flamingo.OldFlamingo": "vislang.models.flamingo.converted.ConvertedFlamingo",
    "vislang.models.pretraining": "vislang.models.data2vec.pretraining",
    "vislang.models.vilbert": "vislang.models.vilbert.model",
    "vislang.models.vilbert_pretraining": "vislang.models.vilbert.pretraining",
    "vislang.models.vilbert_tasks": "vislang.models.vilbert.tasks",
}
"""Modules and classes in saved models and recipes of earlier versions, and their current names."""


def current_path(class_path: str) -> str:
    """The current dotted path of a class; see :data:`MOVED`.

    >>> current_path("vislang.models.finetuned.FineTuneRecipe")
    'vislang.models.data2vec.finetuning.FineTuneRecipe'
    """
    if class_path in MOVED:
        return MOVED[class_path]
    module, _, name = class_path.rpartition(".")
    return f"{MOVED.get(module, module)}.{name}" if module else name


RENAMED_SETTINGS: dict[tuple[str, ...], str] = {
    ("encoder", "hidden"): "mlp_width",
    ("text", "hidden"): "mlp_width",
    ("vision", "hidden"): "mlp_width",
    ("heads", "*", "hidden"): "mlp_width",
    ("masking", "image", "hidden"): "mask_ratio",
    ("streams", "meetings"): "co_attention_layers",
    ("objective", "min_target_spread"): "min_target_std",
    ("objective", "min_prediction_spread"): "min_prediction_std",
    ("image", "deviation"): "std",
    ("tasks", "*", "deviation"): "std",
    ("bridge", "look"): "attend_to",
}
"""Settings in saved models and recipes of version 0.1.0 (the last parts of their paths), and their current names."""

RENAMED_VALUES: dict[tuple[str, ...], dict[str, str]] = {
    ("tasks", "*", "kind"): {"place": "box"},
    ("collate", "too_long"): {"refuse": "error"},
}
"""Renamed values of settings: for each setting, the old value and the new one."""


def current_settings(values: Any, path: tuple[str, ...] = ()) -> Any:
    """The same settings with their current names; see :data:`RENAMED_SETTINGS`.

    >>> current_settings({"streams": {"meetings": [[6, 0]]}})
    {'streams': {'co_attention_layers': [[6, 0]]}}
    """
    if isinstance(values, list):
        return [current_settings(value, path) for value in values]
    if isinstance(values, dict):
        own = {name: (*path, str(name)) for name in values}
        return {_renamed(RENAMED_SETTINGS, own[n], n): current_settings(value, own[n]) for n, value in values.items()}
    renamed = _renamed(RENAMED_VALUES, path, {})
    return renamed.get(values, values) if isinstance(values, str) else values


def _renamed(table: Mapping[tuple[str, ...], Any], path: tuple[str, ...], otherwise: Any) -> Any:
    """The entry of a table for the end of a path; ``*`` in the table matches any name."""
    for end, new in table.items():
        own = path[-len(end) :]
        if len(own) == len(end) and all(known in ("*", name) for known, name in zip(end, own, strict=True)):
            return new
    return otherwise


class ModelNotFound(UserError):
    """A folder is not a saved model; the message says what is missing."""


def load(source: str | Path, device: torch.device | str | None = None, **relocated: Any) -> Any:
    """Open a model that vislang saved.

    Args:
        source: the folder of the model, or a Hub id.
        device: where the model will run; None leaves it on the CPU.
        relocated: new locations of what the model needs: ``language_model``, ``vision_tower``, or ``regions`` (a
            :class:`~vislang.models.regions.readers.RegionsConfig`). None keeps the recorded location.

    Returns:
        The model, in evaluation mode; see :mod:`vislang.capabilities` for what it can do.

    Raises:
        ModelNotFound: there is no model at ``source``, its class does not belong to vislang, or it has no part of a
            name in ``relocated``.
        TowerError: a frozen tower is missing or has changed.
    """
    folder = Path(source)
    if not folder.is_dir():
        folder = _from_hub(str(source))
    made = saved_class(folder)
    elsewhere = {name: value for name, value in relocated.items() if value is not None}
    for name in elsewhere:
        if name not in inspect.signature(made.load).parameters:
            raise ModelNotFound(f"{folder}: a {made.__name__} has no {name}.")
    try:
        model = made.load(folder, **elsewhere)
    except UserError as error:
        # What is wrong with a setting, with weights or with a tower: the model is named beside it.
        named = str(error) if str(folder) in str(error) else f"{folder}: {error}"
        raise type(error)(named) from error
    except FileNotFoundError as error:
        raise ModelNotFound(f"{folder}: a file of the model is missing. {error}") from None
    except SafetensorError as error:
        raise ModelNotFound(f"{folder / 'model.safetensors'}: damaged ({error}). Copy it again.") from None
    return model if device is None else model.to(device)


def is_saved_model(folder: str | Path) -> bool:
    """Whether a folder holds a model that vislang saved, and not one of another library."""
    config = Path(folder) / "config.json"
    try:
        values = json.loads(config.read_text(encoding="utf-8")) if config.is_file() else None
    except (OSError, ValueError):
        return False
    return isinstance(values, dict) and str(values.get("model", "")).startswith("vislang.models.")


def saved_class(source: str | Path) -> Any:
    """The class of a saved model, without opening the model.

    Raises:
        ModelNotFound: see :func:`load`.
    """
    folder = Path(source)
    if not folder.is_dir():
        folder = _from_hub(str(source))
    if not (folder / "config.json").is_file():
        raise ModelNotFound(f"{folder}: contains no config.json. Give the folder of a saved model.")
    try:
        config = json.loads((folder / "config.json").read_text(encoding="utf-8"))
    except ValueError as error:
        raise ModelNotFound(f"{folder / 'config.json'}: not JSON ({error}). Copy it again.") from None
    if not isinstance(config, dict) or not isinstance(config.get("model"), str):
        raise ModelNotFound(
            f'{folder / "config.json"}: names no class of vislang under "model". Give the folder of a model that '
            "vislang saved."
        )
    module, _, name = current_path(config["model"]).rpartition(".")
    # A config must not be able to import anything but our own classes.
    if not module.startswith("vislang.models."):
        raise ModelNotFound(f"{folder / 'config.json'}: names {module}.{name}, which is not a model of vislang.")
    try:
        made = getattr(importlib.import_module(module), name)
    except (ImportError, AttributeError):
        made = None
    if not callable(getattr(made, "load", None)):
        raise ModelNotFound(
            f"{folder / 'config.json'}: names {module}.{name}, which this version of vislang does not have as a model."
        )
    return made


def identity(source: str | Path) -> dict[str, Any]:
    """What a saved model is, from its config: its class, and the hashes of its weights and of its towers.

    Returns:
        ``class``, ``weights_sha256`` (None for models of version 0.1.0) and ``fingerprints``: those of the frozen parts
        by the dotted names of their settings.

    Raises:
        ModelNotFound: see :func:`load`.
    """
    folder = Path(source)
    if not folder.is_dir():
        folder = _from_hub(str(source))
    made = saved_class(folder)
    config = json.loads((folder / "config.json").read_text(encoding="utf-8"))
    return {
        "class": f"{made.__module__}.{made.__name__}",
        "weights_sha256": config.get("weights_sha256"),
        "fingerprints": _fingerprints(config),
    }


def _fingerprints(values: Mapping[str, Any], prefix: str = "") -> dict[str, str]:
    found: dict[str, str] = {}
    for name, value in values.items():
        if isinstance(value, dict):
            found |= _fingerprints(value, f"{prefix}{name}.")
        elif name.endswith("fingerprint") and isinstance(value, str) and value:
            found[f"{prefix}{name}"] = value
    return found


def _from_hub(source: str) -> Path:
    from huggingface_hub import snapshot_download
    from huggingface_hub.errors import HfHubHTTPError, HFValidationError, LocalEntryNotFoundError

    if Path(source).exists():
        raise ModelNotFound(f"{source}: is a file. Give the folder of a saved model.")
    try:
        return Path(snapshot_download(source))
    except (HFValidationError, HfHubHTTPError, LocalEntryNotFoundError, OSError) as error:
        reason = (str(error).strip().splitlines() or [type(error).__name__])[0]
        raise ModelNotFound(f"{source}: no such folder, and not on the Hub either ({reason}).") from None
