"""Opening a saved model, whatever it is."""

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
    "vislang.models.old_flamingo.OldFlamingo": "vislang.models.flamingo.converted.ConvertedFlamingo",
    "vislang.models.pretraining": "vislang.models.data2vec.pretraining",
    "vislang.models.vilbert": "vislang.models.vilbert.model",
    "vislang.models.vilbert_pretraining": "vislang.models.vilbert.pretraining",
    "vislang.models.vilbert_tasks": "vislang.models.vilbert.tasks",
}
"""Modules and classes that saved models and recipes of version 0.1.0 name, and what they are called now."""


def current_path(class_path: str) -> str:
    """The dotted path of a class as this version has it; see :data:`MOVED`.

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
"""Settings of saved models and recipes of version 0.1.0, as the ends of paths, and what they are called now."""

RENAMED_VALUES: dict[tuple[str, ...], dict[str, str]] = {
    ("tasks", "*", "kind"): {"place": "box"},
    ("collate", "too_long"): {"refuse": "error"},
}
"""Values of settings that were renamed: by path of the setting, the old value and the new one."""


def current_settings(values: Any, path: tuple[str, ...] = ()) -> Any:
    """The same settings by the names of this version; see :data:`RENAMED_SETTINGS`.

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
    """What a table has for the end of a path; ``*`` in the table stands for any name."""
    for end, new in table.items():
        own = path[-len(end) :]
        if len(own) == len(end) and all(known in ("*", name) for known, name in zip(end, own, strict=True)):
            return new
    return otherwise


class ModelNotFound(UserError):
    """Not a folder with a saved model; the message names what is missing."""


def load(source: str | Path, device: torch.device | str | None = None, **relocated: Any) -> Any:
    """Open a model that vislang saved.

    Args:
        source: its folder, or a Hub id.
        device: where it is to run; None leaves it on the processor.
        relocated: where what it needs lies now, if not where it was: ``language_model``, ``vision_tower``, or
            ``regions``, a :class:`~vislang.models.regions.readers.RegionsConfig`. None leaves it where it was.

    Returns:
        The model, in evaluation mode; see :mod:`vislang.capabilities` for what it can do.

    Raises:
        ModelNotFound: there is no model at ``source``, or its config names a class that is not vislang's, or it needs
            nothing that ``relocated`` names.
        TowerError: a frozen tower is missing or has changed.
    """
    folder = Path(source)
    if not folder.is_dir():
        folder = _from_hub(str(source))
    made = saved_class(folder)
    elsewhere = {name: value for name, value in relocated.items() if value is not None}
    for name in elsewhere:
        if name not in inspect.signature(made.load).parameters:
            raise ModelNotFound(f"{folder}: is a {made.__name__}, which has no {name}.")
    try:
        model = made.load(folder, **elsewhere)
        return model if device is None else model.to(device)
    except FileNotFoundError as error:
        raise ModelNotFound(f"{folder}: not the whole folder that training wrote. {error}") from None
    except SafetensorError as error:
        raise ModelNotFound(f"{folder / 'model.safetensors'}: damaged ({error}). Copy it again.") from None


def is_saved_model(folder: str | Path) -> bool:
    """Whether a folder holds a model that vislang saved, rather than one of another library."""
    config = Path(folder) / "config.json"
    try:
        values = json.loads(config.read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return False
    return isinstance(values, dict) and str(values.get("model", "")).startswith("vislang.models.")


def saved_class(source: str | Path) -> Any:
    """The class of a model that vislang saved, which is not opened.

    Raises:
        ModelNotFound: see :func:`load`.
    """
    folder = Path(source)
    if not folder.is_dir():
        folder = _from_hub(str(source))
    try:
        config = json.loads((folder / "config.json").read_text(encoding="utf-8"))
        module, _, name = current_path(str(config["model"])).rpartition(".")
    except FileNotFoundError:
        raise ModelNotFound(f"{folder}: no config.json in it; give the folder that training wrote.") from None
    except (ValueError, KeyError, TypeError) as error:
        raise ModelNotFound(f"{folder / 'config.json'}: not the config of a vislang model ({error}).") from None
    # Only our own classes: a config must not be able to import anything else.
    if not module.startswith("vislang.models."):
        raise ModelNotFound(f"{folder / 'config.json'}: names {module}.{name}, which is no vislang model.")
    try:
        return getattr(importlib.import_module(module), name)
    except (ImportError, AttributeError):
        raise ModelNotFound(
            f"{folder / 'config.json'}: names {module}.{name}, which this version of vislang does not have."
        ) from None


def _from_hub(source: str) -> Path:
    from huggingface_hub import snapshot_download
    from huggingface_hub.errors import HfHubHTTPError, HFValidationError, LocalEntryNotFoundError

    try:
        return Path(snapshot_download(source))
    except (HFValidationError, HfHubHTTPError, LocalEntryNotFoundError, OSError) as error:
        reason = (str(error).strip().splitlines() or [type(error).__name__])[0]
        raise ModelNotFound(f"{source}: no such folder, and not on the Hub either ({reason}).") from None
