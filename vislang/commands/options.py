"""A command's options: a dataclass becomes a parser, and the words of the command line become the dataclass.

A field is an option of its type (``max_new_tokens: int`` is ``--max-new-tokens N``), a positional argument where
:func:`positional` makes it, and a switch where it is a bool. What help says of it stands under ``Attributes`` in the
docstring.
"""

from __future__ import annotations

import dataclasses
import inspect
import re
import typing
from collections.abc import Sequence
from typing import Any, Protocol

from jsonargparse import ArgumentParser


class Command(Protocol):
    """A dataclass of options that can be run; returns the exit status."""

    def run(self) -> int:
        """Do it."""
        ...


def positional() -> Any:
    """A positional argument; of a list, one or more."""
    return dataclasses.field(metadata={"positional": True})


def optional_positional() -> Any:
    """A positional argument that may be left out, and is then None."""
    return dataclasses.field(default=None, metadata={"positional": True})


def required() -> Any:
    """An option that must be given."""
    return dataclasses.field(metadata={"required": True})


def repeated(*metavar: str) -> Any:
    """An option that may be given several times, each time with as many words as are named."""
    return dataclasses.field(default_factory=list, metadata={"repeated": metavar})


def overrides() -> Any:
    """What the parser does not know: changes of a recipe, such as ``--train.lr 3e-4``."""
    return dataclasses.field(default_factory=list, metadata={"overrides": True})


def parse(command: type, prog: str, arguments: Sequence[str]) -> Any:
    """The command with the options of a command line; exits with a usage message where they do not fit.

    Args:
        command: the dataclass.
        prog: what it is called, such as ``vislang search``.
        arguments: the words behind that.
    """
    parser = ArgumentParser(prog=prog, description=inspect.cleandoc(command.__doc__ or "").split("\n\n")[0])
    hints = typing.get_type_hints(command)
    helps = _helps(command)
    known: set[str] = set()
    rest_field = None
    for field in dataclasses.fields(command):
        if field.metadata.get("overrides"):
            rest_field = field.name
            continue
        known |= _add(parser, field, hints[field.name], helps.get(field.name, ""))
    rest: list[str] = []
    if rest_field is not None:
        arguments, rest = _split(arguments, known)
    values = {name: value for name, value in vars(parser.parse_args(list(arguments))).items() if name in hints}
    return command(**values, **({} if rest_field is None else {rest_field: rest}))


def _add(parser: ArgumentParser, field: dataclasses.Field, hint: Any, help_text: str) -> set[str]:
    if field.metadata.get("positional"):
        many = typing.get_origin(hint) is list
        nargs: dict[str, Any] = {"nargs": "+"} if many else {"nargs": "?"} if field.default is None else {}
        kind = typing.get_args(hint)[0] if many else hint
        parser.add_argument(field.name, type=kind, help=help_text, **nargs)
        return set()
    flag = f"--{field.name.replace('_', '-')}" if len(field.name) > 1 else f"-{field.name}"
    if hint is bool:
        parser.add_argument(flag, action="store_true", help=help_text)
    elif "repeated" in field.metadata:
        words = field.metadata["repeated"]
        shape: dict[str, Any] = {"nargs": len(words), "metavar": words} if len(words) > 1 else {"metavar": words[0]}
        parser.add_argument(flag, action="append", default=[], help=help_text, **shape)
    elif field.metadata.get("required"):
        parser.add_argument(flag, type=hint, required=True, help=help_text)
    else:
        names = ["-o", flag] if field.name == "out" else [flag]
        parser.add_argument(*names, type=hint, default=field.default, help=help_text)
    return {flag}


def _split(arguments: Sequence[str], known: set[str]) -> tuple[list[str], list[str]]:
    """The words of a parser's own options and positional arguments, and all others."""
    own: list[str] = []
    rest: list[str] = []
    into = own
    for word in arguments:
        if word.startswith("--"):
            into = own if word.split("=")[0] in known | {"--help"} else rest
        into.append(word)
        # An option with its value in one word takes no further word.
        into = own if word.startswith("--") and "=" in word else into
    return own, rest


def _helps(command: type) -> dict[str, str]:
    """What the docstring says of each field."""
    _, _, section = inspect.cleandoc(command.__doc__ or "").partition("Attributes:\n")
    found: dict[str, str] = {}
    for entry in re.split(r"\n(?=    \w)", section.split("\n\n")[0]):
        names, _, text = entry.strip().partition(": ")
        for name in names.split(", "):
            found[name] = " ".join(text.split()).replace("%", "%%")
    return found
