"""Settings that differ between runs or evaluations, by dotted name."""

from __future__ import annotations

import json
from collections.abc import Sequence
from typing import Any

ABSENT = "—"
"""Stands for a setting or a figure that a run does not have."""


def differing(settings: Sequence[dict[str, str]]) -> list[tuple[str, list[str]]]:
    """The settings in which runs differ: each with the value of every run."""
    names = dict.fromkeys(name for values in settings for name in values)
    rows = [(name, [values.get(name, ABSENT) for values in settings]) for name in names]
    return [(name, values) for name, values in rows if len(set(values)) > 1]


def flat(values: Any, prefix: str = "") -> dict[str, str]:
    """Nested settings by dotted name, each as JSON has it, but text without its quotes."""
    if isinstance(values, dict) and values:
        pairs = list(values.items())
    elif isinstance(values, list) and any(isinstance(value, dict) for value in values):
        pairs = [
            (value.get("name", number) if isinstance(value, dict) else number, value)
            for number, value in enumerate(values)
        ]
    else:
        return {prefix: values if isinstance(values, str) else json.dumps(values)}
    found: dict[str, str] = {}
    for key, value in pairs:
        found |= flat(value, f"{prefix}.{key}" if prefix else str(key))
    return found
