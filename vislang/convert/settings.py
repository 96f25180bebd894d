"""Reading another project's configuration, with checks."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from vislang.convert.keys import ConversionError

KINDS = {bool: "true or false", int: "a whole number", float: "a number", str: "text", list: "a list"}
"""The types of settings, and their names in messages."""


class Settings:
    """The configuration of an original model; errors name the setting.

    Args:
        values: settings by the original's names.
        where: the path of a nested configuration, with a dot at its end.
    """

    def __init__(self, values: Mapping[str, Any], where: str = ""):
        self.values, self.where = values, where

    def get(self, name: str, default: Any) -> Any:
        """A setting, or the original's default if the setting is missing or null.

        Raises:
            ConversionError: its type is not that of the default.
        """
        value = self.values.get(name)
        if value is None:
            return default
        return value if default is None else self._checked(name, value, type(default))

    def part(self, name: str) -> Settings:
        """A nested configuration.

        Raises:
            ConversionError: it is missing.
        """
        value = self.values.get(name)
        if not isinstance(value, Mapping):
            raise ConversionError(f"configuration: {self.where}{name} is missing.")
        return Settings(value, f"{self.where}{name}.")

    def need(self, name: str, kind: type) -> Any:
        """A setting that has no default.

        Raises:
            ConversionError: it is missing or has another type.
        """
        value = self.values.get(name)
        if value is None:
            raise ConversionError(f"configuration: {self.where}{name} is missing.")
        return self._checked(name, value, kind)

    def _checked(self, name: str, value: Any, kind: type) -> Any:
        # In Python, True is an int; and 12.0 in YAML or JSON is accepted as a whole number.
        fits = isinstance(value, (int, float) if kind is float else kind) and (kind is bool) == isinstance(value, bool)
        if kind is int and isinstance(value, float) and value.is_integer():
            value, fits = int(value), True
        if not fits:
            raise ConversionError(f"configuration: {self.where}{name} is {value!r}; it must be {KINDS[kind]}.")
        return value

    def require(self, **expected: Any) -> None:
        """Raise a ConversionError if a setting has a value that is not implemented here."""
        for name, value in expected.items():
            found = self.values.get(name)
            if found is not None and found != value:
                raise ConversionError(f"configuration: {self.where}{name} {found!r} is not supported, only {value!r}.")
