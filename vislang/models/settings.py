"""Settings of models: checks of their ranges, and dataclasses from the JSON values of a saved model."""

from __future__ import annotations

import dataclasses
import math
import types
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Literal, TypeVar, Union, get_args, get_origin, get_type_hints

from vislang.errors import UserError

Settings = TypeVar("Settings")


def must_be_at_least(least: int, settings: Any, *names: str, of: str = "") -> None:
    """Raise an error if a setting is below ``least``; None is accepted.

    Args:
        least: the least value.
        settings: a dataclass.
        names: names of fields.
        of: prefix of the names in messages, such as ``bridge.``.

    Raises:
        UserError: a setting is below it.
    """
    for name in names:
        value = getattr(settings, name)
        if value is not None and value < least:
            raise UserError(f"{of}{name} is {value}; it must be at least {least}.")


def must_be_rates(settings: Any, *names: str, of: str = "") -> None:
    """Raise an error if a rate, such as that of dropout, is not at least 0 and below 1; see :func:`must_be_at_least`.

    Raises:
        UserError: one is not.
    """
    for name in names:
        rate = getattr(settings, name)
        if not 0 <= rate < 1:
            raise UserError(f"{of}{name} is {rate}; it must be at least 0 and below 1.")


def must_be_above_zero(settings: Any, *names: str, of: str = "") -> None:
    """Raise an error for a setting that is not above 0; see :func:`must_be_at_least`.

    Raises:
        UserError: one is not.
    """
    for name in names:
        value = getattr(settings, name)
        if not value > 0:
            raise UserError(f"{of}{name} is {value}; it must be above 0.")


def settings_of(kind: type[Settings], values: Any, file: Path | str) -> Settings:
    """A dataclass from the JSON values of a file; dataclasses inside it are built in the same way.

    Args:
        kind: the dataclass. Settings with a default may be missing, because an older version may not have had them.
        values: the output of ``dataclasses.asdict``, read from JSON.
        file: the file of the values, for messages.

    Raises:
        UserError: a setting is unknown, missing, of the wrong type or out of range; the message names the file and the
            setting.
    """
    return _dataclass(kind, values, file, "")


def _dataclass(kind: type[Settings], values: Any, file: Path | str, path: str) -> Settings:
    if not isinstance(values, Mapping):
        raise UserError(f"{file}: {path or 'the whole'} must be an object with settings, not {values!r}.")
    fields = {field.name: field for field in dataclasses.fields(kind) if field.init}  # type: ignore[arg-type]
    prefix = f"{path}." if path else ""
    for name in values:
        if name not in fields:
            raise UserError(f"{file}: {prefix}{name} is unknown; the settings are {_list(fields)}.")
    for name, field in fields.items():
        required = field.default is dataclasses.MISSING and field.default_factory is dataclasses.MISSING
        if required and name not in values:
            raise UserError(f"{file}: {prefix}{name} is missing. Copy the file again, or save the model again.")
    hints = get_type_hints(kind)
    made = {name: _value(hints[name], value, file, prefix + name) for name, value in values.items()}
    try:
        return kind(**made)
    except ValueError as error:
        # Some messages begin with the last part of the path themselves, since a recipe's errors come without a path.
        before, dot, own = path.rpartition(".")
        named = f"{before}{dot}" if str(error).startswith(f"{own}.") else f"{path}: " if path else ""
        raise UserError(f"{file}: {named}{error}") from None


def _value(hint: Any, value: Any, file: Path | str, path: str) -> Any:
    """A value, converted to its annotated type."""
    origin, arguments = get_origin(hint), get_args(hint)
    if origin in (Union, types.UnionType):
        return _one_of(arguments, value, file, path)
    if dataclasses.is_dataclass(hint):
        return _dataclass(hint, value, file, path)  # type: ignore[arg-type]
    if not _fits(hint, value):
        raise UserError(f"{file}: {path} is {value!r}; it must be {_named(hint)}.")
    if hint is float:
        return float(value)
    if origin is tuple and arguments[-1:] != (...,):
        if len(arguments) != len(value):
            raise UserError(f"{file}: {path} is {value!r}; it must have {len(arguments)} values.")
        return tuple(_value(inner, each, file, path) for inner, each in zip(arguments, value, strict=True))
    if origin in (list, tuple, Sequence) or getattr(origin, "__name__", "") == "Sequence":
        made = [_value(arguments[0], each, file, f"{path}[{number}]") for number, each in enumerate(value)]
        return tuple(made) if origin is tuple else made
    if isinstance(value, Mapping) and arguments:
        return {name: _value(arguments[1], each, file, f"{path}.{name}") for name, each in value.items()}
    return value


def _one_of(hints: Sequence[Any], value: Any, file: Path | str, path: str) -> Any:
    fitting = [hint for hint in hints if _fits(hint, value)]
    if not fitting:
        raise UserError(f"{file}: {path} is {value!r}; it must be {' or '.join(_named(hint) for hint in hints)}.")
    return _value(fitting[0], value, file, path)


def _fits(hint: Any, value: Any) -> bool:
    """Whether a value has the outer type of an annotation; the contents of containers are not checked."""
    kind = get_origin(hint) or hint
    if kind is Any:
        return True
    if kind is Literal:
        return any(value == known and type(value) is type(known) for known in get_args(hint))
    if kind in (None, types.NoneType):
        return value is None
    if kind in (Union, types.UnionType):
        return any(_fits(inner, value) for inner in get_args(hint))
    if kind is float:
        return isinstance(value, int | float) and not isinstance(value, bool) and math.isfinite(value)
    if kind is int:
        return isinstance(value, int) and not isinstance(value, bool)
    if kind in (bool, str):
        return isinstance(value, kind)
    if dataclasses.is_dataclass(kind) or issubclass(kind, Mapping):
        return isinstance(value, Mapping)
    return isinstance(value, list | tuple)


def _named(hint: Any) -> str:
    """An annotation in words."""
    kind = get_origin(hint) or hint
    if kind is Literal:
        return _list([repr(value) for value in get_args(hint)], "or")
    if kind in (None, types.NoneType):
        return "null"
    words = {int: "a whole number", float: "a finite number", bool: "true or false", str: "text"}
    if kind in words:
        return words[kind]
    return "an object" if dataclasses.is_dataclass(kind) or issubclass(kind, Mapping) else "a list"


def _list(names: Any, last: str = "and") -> str:
    names = list(names)
    return f" {last} ".join([", ".join(names[:-1]), names[-1]] if len(names) > 1 else names)
