"""Command-line options from dataclasses: a verb is a dataclass, and its fields are the options.

``max_new_tokens: int`` becomes ``--max-new-tokens N``, a bool becomes a switch, and :func:`positional` makes a
positional argument. The help of an option is its entry under ``Attributes`` in the docstring.
"""

from __future__ import annotations

import argparse
import dataclasses
import inspect
import re
import typing
from collections.abc import Iterable, Sequence
from typing import Any, ClassVar, NoReturn, Protocol, TypeVar

from vislang.errors import UserError


class Command(Protocol):
    """A verb: a dataclass whose fields are its options."""

    __dataclass_fields__: ClassVar[dict[str, Any]]

    def run(self) -> int:
        """Execute the verb; returns the exit status."""
        ...


Verb = TypeVar("Verb", bound=Command)


def positional() -> Any:
    """A positional argument; a list takes one or more."""
    return dataclasses.field(metadata={"positional": True})


def optional_positional() -> Any:
    """A positional argument that may be omitted and is then None."""
    return dataclasses.field(default=None, metadata={"positional": True})


def required() -> Any:
    """A required option."""
    return dataclasses.field(metadata={"required": True})


def repeated(*metavar: str) -> Any:
    """An option that may be given several times; each time it takes one value for each name."""
    return dataclasses.field(default_factory=list, metadata={"repeated": metavar})


def several() -> Any:
    """An option that takes one or more values."""
    return dataclasses.field(default_factory=list, metadata={"several": True})


def overrides() -> Any:
    """All other options: changes to a recipe, such as ``--train.lr 3e-4``."""
    return dataclasses.field(default_factory=list, metadata={"overrides": True})


def given(command: Any, names: Iterable[str]) -> str:
    """Those of some options that were set to another value than their default, as they are typed; empty for none."""
    fields = {field.name: field for field in dataclasses.fields(command)}
    found = []
    for name in names:
        default, factory = fields[name].default, fields[name].default_factory
        if getattr(command, name) != (default if factory is dataclasses.MISSING else factory()):
            found.append(f"--{name.replace('_', '-')}")
    return ", ".join(found)


class _Parser(argparse.ArgumentParser):
    """A parser that reports a mistake in one sentence, like the rest of vislang, and not with its usage."""

    def error(self, message: str) -> NoReturn:
        raise UserError(f"{message.removeprefix('argument ')}. See {self.prog} --help.")


def parse(command: type[Verb], prog: str, arguments: Sequence[str]) -> Verb:
    """Parse a command line.

    Args:
        command: the dataclass of the verb.
        prog: the command as it is typed, such as ``vislang search``.
        arguments: the words after that.

    Returns:
        An instance of ``command``.

    Raises:
        UserError: an option does not exist, has no value, or has a value of the wrong type.
    """
    about = inspect.cleandoc(command.__doc__ or "").split("\n\n")[0].replace("%", "%%")
    parser = _Parser(prog=prog, description=about, allow_abbrev=False)
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
    # Options may stand between the positional arguments.
    values = vars(parser.parse_intermixed_args(list(arguments)))
    return command(**values, **({} if rest_field is None else {rest_field: rest}))


def _add(parser: argparse.ArgumentParser, field: dataclasses.Field, hint: Any, help_text: str) -> set[str]:
    shape: dict[str, Any] = {**_values(hint), "help": help_text}
    if field.metadata.get("positional"):
        if typing.get_origin(hint) is list:
            shape["nargs"] = "+"
        elif field.default is None:
            shape["nargs"] = "?"
        parser.add_argument(field.name, **shape)
        return set()
    flag = f"--{field.name.replace('_', '-')}" if len(field.name) > 1 else f"-{field.name}"
    if hint is bool:
        parser.add_argument(flag, action="store_true", help=help_text)
    elif "repeated" in field.metadata:
        words = field.metadata["repeated"]
        several = {"nargs": len(words), "metavar": words} if len(words) > 1 else {"metavar": words[0]}
        parser.add_argument(flag, action="append", default=[], help=help_text, **several)
    elif field.metadata.get("several"):
        parser.add_argument(flag, nargs="+", default=[], **shape)
    elif field.metadata.get("required"):
        parser.add_argument(flag, required=True, **shape)
    else:
        if field.default is not None and field.default != "":
            shape["help"] = f"{help_text} (default: %(default)s)"
        parser.add_argument(*(["-o", flag] if field.name == "out" else [flag]), default=field.default, **shape)
    return {flag, "-o"} if field.name == "out" else {flag}


def _values(hint: Any) -> dict[str, Any]:
    """The arguments of ``add_argument`` for a type: the function that reads a value, or the possible values."""
    inner = [part for part in typing.get_args(hint) if part is not type(None)]
    if typing.get_origin(hint) is typing.Literal:
        return {"choices": typing.get_args(hint)}
    return _values(inner[0]) if inner else {"type": hint}


def _split(arguments: Sequence[str], known: set[str]) -> tuple[list[str], list[str]]:
    """Separate the words that the parser knows from changes to a recipe, which are options with one value each."""
    own: list[str] = []
    rest: list[str] = []
    words = iter(arguments)
    for word in words:
        if not word.startswith("--") or word.split("=")[0] in known | {"--help"}:
            own.append(word)
            continue
        rest.append(word)
        if "=" not in word:
            rest += [value for value in [next(words, None)] if value is not None]
    return own, rest


def _helps(command: type) -> dict[str, str]:
    """The help of each field, from the docstring."""
    _, _, section = inspect.cleandoc(command.__doc__ or "").partition("Attributes:\n")
    found: dict[str, str] = {}
    for entry in re.split(r"\n(?=    \w)", section.split("\n\n")[0]):
        names, _, text = entry.strip().partition(": ")
        for name in names.split(", "):
            found[name] = " ".join(text.split()).replace("%", "%%")
    return found
