"""Fields of records: a missing one, or a value of another type, is an error that names the field and the value."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from typing import Any

from vislang.data.problems import RecordError
from vislang.example import finite_number


def kind_of_value(value: Any) -> str:
    """The JSON type of a value, in words.

    >>> kind_of_value(None), kind_of_value(True), kind_of_value([1])
    ('null', 'true or false', 'a list')
    """
    names = {bool: "true or false", int: "a number", float: "a number", str: "text", list: "a list", dict: "an object"}
    return "null" if value is None else names.get(type(value), f"a {type(value).__name__}")


def shown(value: Any) -> str:
    """A value as JSON, cut to the length of a message."""
    return json.dumps(value, default=str)[:60]


def field(record: Any, key: str) -> Any:
    """The value of a field.

    Raises:
        RecordError: the record is no object, or has no such field.
    """
    if not isinstance(record, Mapping):
        raise RecordError(f'is {kind_of_value(record)}, not an object with "{key}".', "format")
    if key not in record:
        raise RecordError(f'has no "{key}".')
    return record[key]


def text_field(record: Any, key: str) -> str:
    """A field that must be text, which may be empty.

    Raises:
        RecordError: it is missing, or no text.
    """
    return as_text(field(record, key), key)


def as_text(value: Any, key: str) -> str:
    """The same value.

    Raises:
        RecordError: it is no text; ``key`` names it.
    """
    if not isinstance(value, str):
        raise RecordError(f'"{key}" is {shown(value)}, not text.')
    return whole_characters(value, f'"{key}"')


def id_field(record: Any, key: str) -> str:
    """An identifier: a whole number, or text that is not blank.

    Raises:
        RecordError: it is missing, or something else.
    """
    value = field(record, key)
    if isinstance(value, int) and not isinstance(value, bool):
        return str(value)
    if not isinstance(value, str) or not value.strip():
        raise RecordError(f'"{key}" is {shown(value)}, not an identifier.', "id")
    return whole_characters(value, f'"{key}"')


def whole_field(record: Any, key: str) -> int:
    """A field that must be a whole number, from 0.

    Raises:
        RecordError: it is missing, or something else.
    """
    value = field(record, key)
    if not isinstance(value, int) or isinstance(value, bool) or value < 0:
        raise RecordError(f'"{key}" is {shown(value)}, not a whole number.')
    return value


def number_field(record: Any, key: str) -> float:
    """A field that must be a finite number.

    Raises:
        RecordError: it is missing, or no number.
    """
    return finite(field(record, key), f'"{key}"')


def index_field(record: Any, key: str, count: int) -> int:
    """A field that counts from 0 to ``count - 1``.

    Raises:
        RecordError: it is missing, no whole number, or out of this range.
    """
    value = field(record, key)
    if not isinstance(value, int) or isinstance(value, bool) or not 0 <= value < count:
        raise RecordError(f'"{key}" is {shown(value)}, not a whole number from 0 to {count - 1}.')
    return value


def list_field(record: Any, key: str, length: int | None = None) -> list[Any]:
    """A field that must be a list that is not empty.

    Args:
        record: the record.
        key: name of the field.
        length: the required length; None accepts any.

    Raises:
        RecordError: it is missing, no list, empty, or of another length.
    """
    return as_list(field(record, key), key, length)


def as_list(value: Any, key: str, length: int | None = None) -> list[Any]:
    """The same value; see :func:`list_field`.

    Raises:
        RecordError: it is no list, empty, or of another length; ``key`` names it.
    """
    if not isinstance(value, list):
        raise RecordError(f'"{key}" is {shown(value)}, not a list.')
    if not value:
        raise RecordError(f'"{key}" is an empty list.')
    if length not in (None, len(value)):
        raise RecordError(f'"{key}" is a list of {len(value)}; it must have {length} entries.')
    return value


def list_of_texts(record: Any, key: str) -> list[str]:
    """A field that must be a list of texts, which may be empty.

    Raises:
        RecordError: it is missing, or something else.
    """
    value = field(record, key)
    if not isinstance(value, list):
        raise RecordError(f'"{key}" is {shown(value)}, not a list.')
    return [as_text(text, key) for text in value]


def one_of(value: Any, labels: Sequence[str]) -> str:
    """One of some labels.

    Raises:
        RecordError: the value is none of them.
    """
    if not isinstance(value, str) or value not in labels:
        raise RecordError(f"{value!r} is none of {', '.join(labels)}.")
    return value


def finite(value: Any, what: str) -> float:
    """A finite number.

    Raises:
        RecordError: the value is none; ``what`` names it.
    """
    number = finite_number(value)
    if number is None:
        raise RecordError(f"{what} contains {shown(value)}, which is not a number.")
    return number


def finite_text(text: Any, what: str) -> float:
    """A finite number that is written as text, such as a cell of a CSV file.

    Raises:
        RecordError: the text is none; ``what`` names it.
    """
    try:
        return finite(float(text), what)
    except (TypeError, ValueError):
        raise RecordError(f"{what} is {shown(text)}, not a number.") from None


def whole_characters(text: str, what: str) -> str:
    """The same text.

    Raises:
        RecordError: it contains half a character, which no tokenizer reads; ``what`` names the text.
    """
    try:
        text.encode()
    except UnicodeEncodeError:
        fault = f"{what} contains half a character (a lone surrogate). Save the file as UTF-8."
        raise RecordError(fault, "format") from None
    return text
