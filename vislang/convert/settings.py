"""Another code's configuration, read with care."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from vislang.convert.keys import ConversionError

KINDS = {bool: "true or false", int: "a whole number", float: "a number", str: "text", list: "a list"}
"""What a setting can be, and what that is called."""


class Settings:
    """The configuration of an original model, read setting by setting; errors name the setting.

    Args:
        values: by the original's names.
        where: the name of the configuration that this one is nested in, and a dot.
    """

    def __init__(self, values: Mapping[str, Any], where: str = ""):
        self.values, self.where = values, where

    def get(self, name: str, default: Any) -> Any:
        """A setting, or the original's default where the configuration is silent or says null.

        Raises:
            ConversionError: it is not of the default's kind.
        """
        value = self.values.get(name)
        if value is None:
            return default
        return value if default is None else self._of_kind(name, value, type(default))

    def part(self, name: str) -> Settings:
        """A nested configuration.

        Raises:
            ConversionError: there is none.
        """
        value = self.values.get(name)
        if not isinstance(value, Mapping):
            raise ConversionError(f"configuration: {self.where}{name} is missing.")
        return Settings(value, f"{self.where}{name}.")

    def need(self, name: str, kind: type) -> Any:
        """A setting that has no default.

        Raises:
            ConversionError: it is missing, or of another kind.
        """
        value = self.values.get(name)
        if value is None:
            raise ConversionError(f"configuration: {self.where}{name} is missing.")
        return self._of_kind(name, value, kind)

    def _of_kind(self, name: str, value: Any, kind: type) -> Any:
        # True is an integer to Python, and what YAML or JSON write as 12.0 is a whole number all the same.
        fits = isinstance(value, (int, float) if kind is float else kind) and (kind is bool) == isinstance(value, bool)
        if kind is int and isinstance(value, float) and value.is_integer():
            value, fits = int(value), True
        if not fits:
            raise ConversionError(f"configuration: {self.where}{name} is {value!r}; it must be {KINDS[kind]}.")
        return value

    def require(self, **expected: Any) -> None:
        """Raise a ConversionError for each setting with a value that no model here implements."""
        for name, value in expected.items():
            found = self.values.get(name)
            if found is not None and found != value:
                raise ConversionError(f"configuration: {self.where}{name} {found!r} is not supported, only {value!r}.")
