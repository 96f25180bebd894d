"""Another code's configuration, read with care."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from vislang.convert.keys import ConversionError


class Settings:
    """A configuration that knows what was asked of it, and what it may not say."""

    def __init__(self, values: Mapping[str, Any], where: str = ""):
        self.values, self.where = values, where

    def get(self, name: str, default: Any) -> Any:
        """A setting, or the original's default where the configuration is silent or says null."""
        value = self.values.get(name)
        return default if value is None else value

    def part(self, name: str) -> Settings:
        """A nested configuration."""
        value = self.values.get(name)
        if not isinstance(value, Mapping):
            raise ConversionError(f"configuration: {self.where}{name} is missing.")
        return Settings(value, f"{self.where}{name}.")

    def need(self, name: str) -> Any:
        """A setting that has no default."""
        if self.values.get(name) is None:
            raise ConversionError(f"configuration: {self.where}{name} is missing.")
        return self.values[name]

    def refuse(self, **expected: Any) -> None:
        """Refuse settings that are not what they must be, since nothing here does what they ask for."""
        for name, value in expected.items():
            found = self.values.get(name)
            if found is not None and found != value:
                raise ConversionError(f"configuration: {self.where}{name} {found!r} is not supported, only {value!r}.")
