"""Recipes: a YAML file with all settings of a run. Each of them can be changed on the command line."""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Sequence
from dataclasses import dataclass, field
from importlib import import_module
from pathlib import Path
from typing import Any, get_args, get_type_hints

import yaml
from jsonargparse import ArgumentError, ArgumentParser, Namespace

from vislang.capabilities import ModelRecipe
from vislang.data.indexed import INDEX_ABOVE
from vislang.errors import UserError
from vislang.models.loading import current_path, current_settings
from vislang.recipe_errors import in_words
from vislang.train.config import TrainConfig


class RecipeError(UserError):
    """An invalid recipe; the message names the value and the remedy."""


@dataclass
class StreamConfig:
    """A stream of training examples; a run can have several.

    Attributes:
        sources: names of data sets, files or folders.
        name: name of the stream in logs.
        weight: weight of its loss in the sum.
        batch_size: examples per step; 0 takes ``train.batch_size``.
        shots: for generating models: number of examples of the same stream before each question or caption. The model
            learns their answers, too.
    """

    sources: list[str]
    name: str
    weight: float = 1.0
    batch_size: int = 0
    shots: int = 0

    def __post_init__(self):
        if not self.sources:
            raise ValueError(f"stream {self.name!r}: sources is empty; list data sets, files or folders.")
        if self.weight <= 0 or self.batch_size < 0 or self.shots < 0:
            raise ValueError(
                f"stream {self.name!r}: weight must be above 0, batch_size and shots must not be negative."
            )


@dataclass
class Recipe:
    """Model, data, training, and the tasks that the trained model is scored on.

    Attributes:
        model: the model: ``class_path`` (the path of a ModelRecipe class) and its ``init_args``.
        data: the training data: a source (a file, a folder, or a data set of ``vislang data list``), or a list of
            streams.
        evaluate: tasks that the trained model is scored on (``vislang tasks`` lists them). None: the test split of each
            source that has one, and otherwise the examples that are held out.
        eval_data: a source to score the model on instead.
        hold_out: share of the examples that is kept from training. They are used for the curves and, if there are no
            other test examples, for the final scores. Examples that share a medium stay on one side of the split.
        complementary_pairs: draw each training question together with an example that has the same question and another
            answer, if there is one, as in VQA 2.0. The model then cannot learn answers from the questions alone.
        limit: train only on the first examples, at most this many; 0 for all.
        eval_limit: compute final scores on at most this many examples, drawn at random; 0 for all.
        index_above: index sources of files with more records than this, and read their records when they are drawn.
            The records of smaller sources are read into memory and checked before training.
        skip_bad_records: skip bad records, count them and list them in ``bad_records.jsonl``, instead of raising an
            error. A record that turns out to be bad during training is replaced by another one.
        max_bad_share: stop if a larger share of the records that were read or drawn is bad. Ten bad records never stop
            a run.
        train: see TrainConfig.
    """

    model: ModelRecipe
    data: str | list[StreamConfig] = "easy-vqa"
    evaluate: list[str] | None = None
    eval_data: str | None = None
    hold_out: float = 0.05
    complementary_pairs: bool = False
    limit: int = 0
    eval_limit: int = 0
    index_above: int = INDEX_ABOVE
    skip_bad_records: bool = False
    max_bad_share: float = 0.01
    train: TrainConfig = field(default_factory=TrainConfig)

    def __post_init__(self):
        if not isinstance(self.data, str):
            names = [stream.name for stream in self.data]
            if not names or len(set(names)) < len(names):
                raise ValueError(f"data: the streams {names} need one name each, and there must be at least one.")
        for name in ("limit", "eval_limit", "index_above"):
            if getattr(self, name) < 0:
                raise ValueError(f"{name} is {getattr(self, name)}; it must not be negative.")
        if not 0 <= self.hold_out < 1:
            raise ValueError(f"hold_out is {self.hold_out}; it must be at least 0 and below 1.")
        if not 0 <= self.max_bad_share <= 1:
            raise ValueError(f"max_bad_share is {self.max_bad_share}; it is a share, from 0 to 1.")
        if self.evaluate is not None and self.eval_data is not None:
            raise ValueError("evaluate and eval_data cannot be combined; leave one of them out.")


PRESETS = {path.stem: path for path in sorted((Path(__file__).parent / "presets").glob("*.yaml"))}
"""The recipes that are part of the package, by name: the paper's Flamingos, and data2vec 2.0."""


def read_recipe(path: Path, overrides: Sequence[str] = ()) -> tuple[Recipe, dict[str, Any]]:
    """Read a recipe and apply overrides such as ``--train.lr 1e-4``.

    Args:
        path: a YAML file, or the name of a preset.
        overrides: the overrides.

    Returns:
        The recipe, and its values as they are recorded in ``run.json``.

    Raises:
        RecipeError: the file does not exist, or has an unknown key or a value of the wrong type.
    """
    file = path if path.is_file() else PRESETS.get(str(path), path)
    if not file.is_file():
        raise RecipeError(
            f"{path}: no such recipe. vislang's own are in the folder recipes/ of its repository; the presets are "
            f"{', '.join(PRESETS)}."
        )
    try:
        values = yaml.safe_load(file.read_text(encoding="utf-8"))
    except (OSError, UnicodeDecodeError, yaml.YAMLError) as error:
        raise RecipeError(f"{path}: cannot be read as YAML ({_one_line(error)}).") from None
    return recipe_of(values, overrides, str(path))


def recipe_of(values: Any, overrides: Sequence[str] = (), name: str = "run.json") -> tuple[Recipe, dict[str, Any]]:
    """A recipe from its values, such as those in a ``run.json``, with overrides.

    Raises:
        RecipeError: a key is unknown or a value has the wrong type.
    """
    if not isinstance(values, dict):
        raise RecipeError(f"{name}: contains no settings. A recipe has the keys model, data and train.")
    parser = ArgumentParser(exit_on_error=False)
    parser.add_class_arguments(Recipe, as_group=False)
    parser.add_argument("--recipe", action="config")
    try:
        written = json.dumps(with_current_names(values), default=str)
        parsed = parser.parse_args([f"--recipe={written}", *overrides])
        _must_not_be_null(Recipe, Namespace({key: value for key, value in vars(parsed).items() if key != "recipe"}))
        settings = vars(parser.instantiate(parsed))
        del settings["recipe"], parsed["recipe"]
        recipe = Recipe(**settings)
    except (ArgumentError, ValueError, TypeError) as error:
        raise RecipeError(in_words(_one_line(error), name)) from None
    return recipe, _as_plain(parsed)


def with_current_names(values: dict[str, Any]) -> dict[str, Any]:
    """The same recipe with the current names of the model's class and settings."""
    model = values.get("model")
    if not isinstance(model, dict) or not isinstance(model.get("class_path"), str):
        return values
    return {**values, "model": {**current_settings(model), "class_path": current_path(model["class_path"])}}


def _one_line(error: Exception) -> str:
    """A message in one line."""
    return " ".join(str(error).split())


def _must_not_be_null(kind: Any, values: Any, path: str = "") -> None:
    """Raise an error for a setting that is null and must not be: the parser takes null for any value.

    Args:
        kind: the dataclass of the settings.
        values: the parsed settings.
        path: of them in the recipe.

    Raises:
        ValueError: one is null.
    """
    hints = get_type_hints(kind)
    for name, value in vars(values).items():
        hint = hints.get(name)
        inner = [part for part in get_args(hint) if dataclasses.is_dataclass(part)]
        optional = hint is None or hint is Any or type(None) in get_args(hint)
        if value is None and not optional:
            raise ValueError(f"{path}{name} is null; give it a value, or leave it out.")
        if isinstance(value, Namespace):
            if dataclasses.is_dataclass(hint) or inner:
                _must_not_be_null(inner[0] if inner else hint, value, f"{path}{name}.")
            elif "class_path" in value and "init_args" in value:
                module, _, made = value["class_path"].rpartition(".")
                _must_not_be_null(getattr(import_module(module), made), value["init_args"], f"{path}{name}.")


def _as_plain(value: Any) -> Any:
    if isinstance(value, Namespace):
        return {key: _as_plain(inner) for key, inner in vars(value).items()}
    return [_as_plain(inner) for inner in value] if isinstance(value, list) else value
