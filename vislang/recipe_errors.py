"""What the parser of recipes (jsonargparse) says of a wrong value, in plain words."""

from __future__ import annotations

import re
from collections.abc import Callable

TYPES = {
    "<class 'int'>": "a whole number",
    "<class 'float'>": "a number",
    "<class 'bool'>": "true or false",
    "<class 'str'>": "text",
    "<class 'list'>": "a list",
    "<class 'tuple'>": "a list",
    "<class 'dict'>": "an object",
}
"""What the parser calls types, and what they are called in a message."""

MODEL = "it must name the recipe of a model, such as vislang.models.flamingo.recipe.FlamingoRecipe"


def in_words(message: str, recipe: str) -> str:
    """A message of the parser in one sentence that names the recipe and the setting.

    >>> in_words('Parser key "train.lr": Expected a <class \\'float\\'>. Got value: fast', "my.yaml")
    'my.yaml: train.lr is fast; it must be a number.'
    >>> in_words("unrecognized arguments: --train.lrr=1", "my.yaml")
    '--train.lrr=1: no such option, and no such setting of my.yaml. See vislang train --help.'
    """
    if unknown := re.fullmatch("unrecognized arguments: (.*)", message):
        return f"{unknown[1]}: no such option, and no such setting of {recipe}. See vislang train --help."
    message = re.sub(r"Problem with given class_path '[^']*': ", "", message)
    key = ".".join(dict.fromkeys(re.findall(r'Parser key "([^"]*)": ', message)))
    message = _most_telling(re.sub(r'Parser key "[^"]*": ', "", message))
    for pattern, worded in _WORDED:
        if found := re.fullmatch(pattern, message, re.DOTALL):
            return f"{recipe}: {worded(key, found)}."
    return f"{recipe}: {f'{key}: ' if key and not message.startswith(key) else ''}{message}"


def _most_telling(message: str) -> str:
    """Of the errors by each kind that a value might have been of, a reason, or else all types but null."""
    if "Errors: - " not in message:
        return message
    given = re.sub(r" Given value type: .*", "", message.rpartition("Errors: - ")[2])
    parts = [part for part in given.split(" - ") if "NoneType" not in part]
    types = [found[1] for part in parts if (found := re.fullmatch(r"Expected a (<class '\w+'>)", part))]
    return next((part for part in parts if not part.startswith("Expected a <class")), f"Expected a {'|'.join(types)}")


def _named(kind: str) -> str:
    """A type as the parser writes it, in words."""
    if choices := re.fullmatch(r"typing\.Literal\[(.*)\]", kind):
        return f"one of {choices[1]}"
    if pair := re.fullmatch(r"tuple with (\d+) elements", kind):
        return f"a list of {pair[1]} values"
    return TYPES.get(kind, kind)


def _within(key: str, name: str) -> str:
    return f"{key}.{name}" if key else name


_WORDED: tuple[tuple[str, Callable[[str, re.Match[str]], str]], ...] = (
    (r"Expected a (.*?)\.? Got value: (.*)", lambda key, found: f"{key} is {found[2]}; it must be {_named(found[1])}"),
    (
        r"Expected a (<class '\w+'>(?:\|<class '\w+'>)*)",
        lambda key, found: f"{key} must be {' or '.join(map(_named, found[1].split('|')))}",
    ),
    (r"Option '(.*)' is not accepted", lambda key, found: f"{_within(key, found[1])} is unknown"),
    (
        r"Group '(.*)' does not accept option '(.*)'",
        lambda key, found: f"{_within(key, f'{found[1]}.{found[2]}')} is unknown",
    ),
    (r"the following arguments are required: (.*)", lambda key, found: f"{_within(key, found[1])} is missing"),
    (
        r"functools.*argument after \*\* must be a mapping, not (.*)",
        lambda key, found: f"{key or 'a group of settings'} must be an object with settings, not {found[1]}",
    ),
    (
        r"Not a valid subclass of ModelRecipe\. Got value: (.*?) Subclass.*",
        lambda key, found: f"{key} is {found[1]}; {MODEL}",
    ),
    (r"Import path (.*) does not correspond to a subclass.*", lambda key, found: f"{key} is {found[1]}; {MODEL}"),
    (r"Expected a dot import path string: (.*)", lambda key, found: f"{key} is {found[1]}; {MODEL}"),
    (
        r"(argument of type .* is not iterable|module .* has no attribute .*|No module named .*)",
        lambda key, found: f"{key}: {found[1]}; {MODEL}",
    ),
)
"""Patterns of the parser's messages, and what is said instead of the key that they are about."""
