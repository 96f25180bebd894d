"""Allowed answers, in the forms in which clients send them."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from vislang.serve.errors import invalid, unsupported
from vislang.serve.limits import Limits
from vislang.serve.wire import ChatRequest


@dataclass(frozen=True)
class Allowed:
    """Answers to choose from.

    Attributes:
        answers: the answers.
        written: how the chosen one is written: as it is, or as JSON of the request's schema.
    """

    answers: tuple[str, ...]
    written: Callable[[str], str] = str


def allowed_of(request: ChatRequest, limits: Limits) -> Allowed | None:
    """The allowed answers of a request; None if it asks for free text.

    Raises:
        ApiError: they are given twice, or are no list of different texts.
    """
    choice = request.structured_outputs.choice if request.structured_outputs is not None else None
    given: dict[str, Allowed] = {
        name: Allowed(tuple(answers))
        for name, answers in (
            ("allowed_answers", request.allowed_answers),
            ("guided_choice", request.guided_choice),
            ("structured_outputs", choice),
        )
        if answers is not None
    }
    if (of_schema := _of_format(request.response_format)) is not None:
        given["response_format"] = of_schema
    if len(given) > 1:
        raise invalid(f"{' and '.join(given)} both say which answers are allowed. Give one of them.", list(given)[1])
    for name, allowed in given.items():
        return Allowed(options_of(allowed.answers, limits, name), allowed.written)
    return None


def options_of(options: tuple[str, ...] | list[str], limits: Limits, param: str) -> tuple[str, ...]:
    """The same options, if they can be chosen from.

    Raises:
        ApiError: there are fewer than two, too many, equal or empty ones.
    """
    if len(options) > limits.texts:
        raise invalid(f"{len(options)} answers, and the limit is {limits.texts}.", param)
    if len(set(options)) < max(2, len(options)) or not all(option.strip() for option in options):
        raise invalid("give two or more different answers.", param)
    if sum(map(len, options)) > limits.characters:
        raise invalid(f"more than {limits.characters:,} characters of text. Shorten it.", param)
    return tuple(options)


def _of_format(response_format: dict[str, Any] | None) -> Allowed | None:
    """The answers of a JSON schema that is an enumeration, or an object with one such property."""
    if response_format is None or response_format.get("type") == "text":
        return None
    form = response_format.get("json_schema")
    schema = form.get("schema") if isinstance(form, dict) else None
    if response_format.get("type") != "json_schema" or not isinstance(schema, dict):
        raise unsupported("response_format: only text, and a json_schema that is an enumeration.", "response_format")
    if (answers := _enumeration(schema, schema)) is not None:
        return Allowed(answers, json.dumps)
    properties = schema.get("properties")
    if isinstance(properties, dict) and len(properties) == 1:
        ((name, inner),) = properties.items()
        if (answers := _enumeration(inner, schema)) is not None:
            return Allowed(answers, lambda answer: json.dumps({name: answer}))
    raise unsupported(
        "the schema must be an enumeration of strings, or an object with one such property: the model chooses among "
        "given answers, and writes no other JSON.",
        "response_format",
    )


def _enumeration(schema: Any, root: dict[str, Any]) -> tuple[str, ...] | None:
    """The strings of an enumeration; references are followed once, as pydantic writes them for an enum class."""
    reference = schema.get("$ref") if isinstance(schema, dict) else None
    if isinstance(reference, str) and reference.startswith("#/$defs/") and isinstance(root.get("$defs"), dict):
        schema = root["$defs"].get(reference.removeprefix("#/$defs/"))
    answers = schema.get("enum") if isinstance(schema, dict) else None
    if not isinstance(answers, list) or not all(isinstance(answer, str) for answer in answers):
        return None
    # The schema is the one part of a request whose texts have not been checked.
    return tuple(answer.encode(errors="replace").decode() for answer in answers) or None
