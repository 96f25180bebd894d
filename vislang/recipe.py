"""A recipe: one YAML file that says all of a run. Any of its values can be changed on the command line."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import yaml
from jsonargparse import ArgumentError, ArgumentParser, Namespace

from vislang.capabilities import ModelRecipe
from vislang.errors import UserError
from vislang.models.loading import current_path, current_settings
from vislang.train.config import TrainConfig


class RecipeError(UserError):
    """A recipe that cannot be run; the message names the value and the remedy."""


@dataclass
class StreamConfig:
    """One of several streams of examples to learn from at once.

    Attributes:
        sources: names of data sets, files or folders.
        name: what to call the stream in logs.
        weight: of its loss in the sum.
        batch_size: examples a step; 0 takes ``train.batch_size``.
        shots: for a model that generates: examples of the same stream before each question or caption, learned from
            too.
    """

    sources: list[str]
    name: str
    weight: float = 1.0
    batch_size: int = 0
    shots: int = 0

    def __post_init__(self):
        if not self.sources:
            raise ValueError(f"stream {self.name!r}: sources is empty; name data sets, files or folders.")
        if self.weight <= 0 or self.batch_size < 0 or self.shots < 0:
            raise ValueError(
                f"stream {self.name!r}: weight must be above 0, batch_size and shots must not be negative."
            )


@dataclass
class Recipe:
    """Model, data, training, and what the trained model is scored on.

    Attributes:
        model: the model, as ``class_path`` (a class that is a ModelRecipe) and ``init_args``.
        data: what to learn from: a source (``vislang data list`` shows them; a file or folder is one too), or a list of
            streams of sources.
        evaluate: tasks that the trained model is scored on, as ``vislang tasks`` names them. None scores it on the test
            split of each source that has one, and otherwise on the examples that are held out.
        eval_data: a source to score on in place of those.
        hold_out: share of the examples that is kept from training, for the curves and, where nothing else is named, for
            the final scores. Examples that share a medium stay on one side.
        limit: examples to learn from at most, the first ones; 0 for all.
        eval_limit: examples of a final score at most, drawn by seed; 0 for all.
        skip_bad_records: train on the good records of a file that has bad ones, and count those.
        train: see TrainConfig.
    """

    model: ModelRecipe
    data: str | list[StreamConfig] = "easy-vqa"
    evaluate: list[str] | None = None
    eval_data: str | None = None
    hold_out: float = 0.05
    limit: int = 0
    eval_limit: int = 0
    skip_bad_records: bool = False
    train: TrainConfig = field(default_factory=TrainConfig)

    def __post_init__(self):
        if not isinstance(self.data, str):
            names = [stream.name for stream in self.data]
            if not names or len(set(names)) < len(names):
                raise ValueError(f"data: the streams {names} need one name each, and there must be at least one.")
        for name in ("limit", "eval_limit"):
            if getattr(self, name) < 0:
                raise ValueError(f"{name} is {getattr(self, name)}; it must not be negative.")
        if not 0 <= self.hold_out < 1:
            raise ValueError(f"hold_out is {self.hold_out}; it must be at least 0 and below 1.")
        if self.evaluate is not None and self.eval_data is not None:
            raise ValueError("evaluate and eval_data both say what to score on; leave one of them out.")


PRESETS = {path.stem: path for path in sorted((Path(__file__).parent / "presets").glob("*.yaml"))}
"""Recipes that come with the package, by name: those of the paper's Flamingos."""


def read_recipe(path: Path, overrides: Sequence[str] = ()) -> tuple[Recipe, dict[str, Any]]:
    """Read a recipe and apply ``--key.subkey value`` overrides.

    Args:
        path: a YAML file, or the name of a preset.
        overrides: words of the command line.

    Returns:
        The recipe, and the same as plain values for the record.

    Raises:
        RecipeError: no such file, an unknown key, or a value of the wrong type.
    """
    file = path if path.is_file() else PRESETS.get(str(path), path)
    if not file.is_file():
        raise RecipeError(
            f"{path}: no such recipe. The ones that come with vislang are in recipes/; presets are {', '.join(PRESETS)}."
        )
    try:
        values = yaml.safe_load(file.read_text(encoding="utf-8"))
    except (OSError, UnicodeDecodeError, yaml.YAMLError) as error:
        raise RecipeError(f"{path}: cannot be read as YAML ({_one_line(error)}).") from None
    return recipe_of(values, overrides, str(path))


def recipe_of(values: Any, overrides: Sequence[str] = (), name: str = "run.json") -> tuple[Recipe, dict[str, Any]]:
    """A recipe from its plain values, such as a run recorded, with overrides.

    Raises:
        RecipeError: a value does not fit.
    """
    if not isinstance(values, dict):
        raise RecipeError(f"{name}: holds no settings. A recipe names a model, data and train.")
    parser = ArgumentParser(exit_on_error=False)
    parser.add_class_arguments(Recipe, as_group=False)
    parser.add_argument("--recipe", action="config")
    try:
        written = json.dumps(with_current_names(values), default=str)
        parsed = parser.parse_args([f"--recipe={written}", *overrides])
        settings = vars(parser.instantiate(parsed))
        del settings["recipe"], parsed["recipe"]
        recipe = Recipe(**settings)
    except (ArgumentError, ValueError, TypeError) as error:
        raise RecipeError(f"{name}: {_one_line(error)}") from None
    return recipe, _as_plain(parsed)


def with_current_names(values: dict[str, Any]) -> dict[str, Any]:
    """The same recipe, its model's class and settings by the names that they have in this version."""
    model = values.get("model")
    if not isinstance(model, dict) or not isinstance(model.get("class_path"), str):
        return values
    return {**values, "model": {**current_settings(model), "class_path": current_path(model["class_path"])}}


def _one_line(error: Exception) -> str:
    """The parser's message in one paragraph."""
    return " ".join(str(error).split())


def _as_plain(value: Any) -> Any:
    if isinstance(value, Namespace):
        return {key: _as_plain(inner) for key, inner in vars(value).items()}
    return [_as_plain(inner) for inner in value] if isinstance(value, list) else value
