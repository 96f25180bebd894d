"""A recipe: one YAML file that says all of a run. Any of its values can be changed on the command line."""

from __future__ import annotations

import json
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
    """One of several things to learn from at once; each step sums their losses.

    Attributes:
        sources: names of data sets, files or folders.
        name: what to call the stream in logs.
        weight: of its loss in the sum.
        batch_size: examples a step; 0 takes ``train.batch_size``.
        shots: of a model that writes: examples of the same stream before each question or caption, learned from too.
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
    """Model, data and training.

    Attributes:
        model: the model, as ``class_path`` (a class that is a ModelRecipe) and ``init_args``.
        data: a task's name (``easy-vqa``) or a JSON Lines file to learn from; for a model that needs no labels also
            a folder, a text file, the name of a data set (``vislang data fetch`` lists them), or a list of streams.
        eval_data: what to score the trained model on; None takes the task's test split, and for a file
            the share of it that is held out.
        hold_out: share of a file's records that is kept from training, for the accuracy curve and, without
            ``eval_data``, for the final score. Records that share an image stay on one side.
        limit: examples to learn from at most, the first ones; 0 for all.
        eval_limit: examples of the final score at most, drawn by seed; 0 for all.
        skip_bad_records: train on the good records of a file that has bad ones, and count those.
        train: see TrainConfig.
    """

    model: ModelRecipe
    data: str | list[StreamConfig] = "easy-vqa"
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


def read_recipe(path: Path, overrides: list[str]) -> tuple[Recipe, dict[str, Any]]:
    """Read a recipe and apply ``--key.subkey value`` overrides.

    Returns:
        The recipe, and the same as plain values for the record.

    Raises:
        RecipeError: no such file, an unknown key, or a value of the wrong type.
    """
    if not path.is_file():
        raise RecipeError(f"{path}: no such recipe. The ones that come with vislang are in recipes/.")
    parser = ArgumentParser(prog=f"vislang train {path}", exit_on_error=False)
    parser.add_class_arguments(Recipe, as_group=False)
    parser.add_argument("--recipe", action="config")
    try:
        written = with_current_classes(yaml.safe_load(path.read_text(encoding="utf-8")))
        values = parser.parse_args([f"--recipe={json.dumps(written)}", *overrides])
        settings = vars(parser.instantiate(values))
        del settings["recipe"], values["recipe"]
        recipe = Recipe(**settings)
    except (ArgumentError, ValueError, TypeError, yaml.YAMLError) as error:
        raise RecipeError(f"{path}: {_plain(error)}") from None
    return recipe, _as_plain(values)


def recipe_of(values: dict[str, Any]) -> Recipe:
    """The recipe that a run recorded, from its plain values.

    Raises:
        RecipeError: a value does not fit; the run was made by another version, say.
    """
    parser = ArgumentParser(exit_on_error=False)
    parser.add_class_arguments(Recipe, as_group=False)
    try:
        return Recipe(**vars(parser.instantiate(parser.parse_object(with_current_classes(values)))))
    except (ArgumentError, ValueError, TypeError) as error:
        raise RecipeError(f"the recorded recipe cannot be read: {_plain(error)}") from None


def with_current_classes(values: Any) -> Any:
    """The same recipe, its model's class and settings by the names that they have in this version."""
    model = values.get("model") if isinstance(values, dict) else None
    if not isinstance(model, dict) or not isinstance(model.get("class_path"), str):
        return values
    return {**values, "model": {**current_settings(model), "class_path": current_path(model["class_path"])}}


def _plain(error: Exception) -> str:
    """The parser's message in one paragraph."""
    return " ".join(str(error).split())


def _as_plain(value: Any) -> Any:
    if isinstance(value, Namespace):
        return {key: _as_plain(inner) for key, inner in vars(value).items()}
    return [_as_plain(inner) for inner in value] if isinstance(value, list) else value
