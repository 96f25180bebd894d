"""The score card of an evaluation: everything that its scores depend on.

Two scores can be compared if their cards agree in the questions, the data and the scorer. Everything else, such as the
model, the prompts or the decoding, may be what is compared.
"""

from __future__ import annotations

import ast
import hashlib
import importlib
import json
import pkgutil
import re
from collections.abc import Iterable, Mapping, Sequence
from functools import cache
from pathlib import Path
from typing import Any

import vislang.metrics
from vislang.document import Document, Medium
from vislang.errors import UserError
from vislang.evaluate.differences import differing, flat
from vislang.evaluate.generate import MAX_NEW_TOKENS
from vislang.example import Example, Prediction, kind_of
from vislang.files import write_text
from vislang.metrics.figure import SCHEMA
from vislang.tasks.task import Task

CARD = "card.json"

MATTERS = ("data", "scorer")
"""Entries in which two evaluations must agree for their scores to be compared."""


def card_of(task: Task, examples: Sequence[Example], support: Sequence[Example], **about: Any) -> dict[str, Any]:
    """What is known before a model runs.

    Args:
        task: the task.
        examples: the examples to answer.
        support: the examples that shots are drawn from, or a classifier is fitted on.
        about: ``model`` (:func:`vislang.models.loading.identity` and its source), ``options`` of the command, and the
            ``environment``.
    """
    return {
        "schema": SCHEMA,
        "task": task.name,
        "data": {"n": len(examples), "sha256": hash_of(map(_content, examples))},
        "scorer": {"task": f"{type(task).__module__}.{type(task).__name__}", "version": scorer_version(type(task))},
        # Their images are read where they are shots, and are part of the prompts then.
        "support": {"n": len(support), "sha256": hash_of(_content(example, media=False) for example in support)},
        **about,
    }


def completed(
    card: Mapping[str, Any],
    way: str,
    predictions: Iterable[Prediction],
    metric: str,
    media: Iterable[Medium],
    shots: Sequence[Mapping[str, Any]] = (),
) -> dict[str, Any]:
    """The card of a finished evaluation.

    Args:
        card: from :func:`card_of`.
        way: how the model answered.
        predictions: all predictions, in the order of the file.
        metric: the metric of their single scores.
        media: the media in their prompts. Prompts are hashed with the content of media in place of their names.
        shots: the ids of the shots of each setting and trial, in order.
    """
    named = {medium.name.strip("<>"): medium for medium in media}

    def content(found: re.Match[str]) -> str:
        return f"<{_medium(named[found[1]])}>" if found[1] in named else found[0]

    predictions = list(predictions)
    prompts = [re.sub(r"<(?:image|video|audio): ([^>]*)>", content, prediction.prompt) for prediction in predictions]
    decoding: dict[str, Any] = {"way": way}
    if way == "generate":
        decoding |= {"max_new_tokens": MAX_NEW_TOKENS, "temperature": 0.0}
    # Predictions that are scored again keep the decoding and the shots of their evaluation.
    return {
        "decoding": decoding,
        "shots": list(shots),
        **card,
        "metric": metric,
        "prompts": {"n": len(prompts), "sha256": hash_of(prompts)},
        "answers": {"sha256": hash_of_answers(prediction.as_record() for prediction in predictions)},
    }


def write_card(folder: Path, card: Mapping[str, Any]) -> None:
    """Write ``card.json``."""
    write_text(folder / CARD, json.dumps(card, indent=2, allow_nan=False, default=str) + "\n")


def read_card(path: Path) -> dict[str, Any]:
    """The card of an evaluation.

    Args:
        path: the card, or the folder that it is in.

    Raises:
        UserError: there is none, or the file is not a card.
    """
    file = path / CARD if path.is_dir() else path
    try:
        card = json.loads(file.read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise UserError(
            f"{file}: no such file. Give the folder of an evaluation (vislang eval --out), which has a {CARD}."
        ) from None
    except (OSError, ValueError) as error:
        raise UserError(f"{file}: cannot be read as JSON ({error}). Give a {CARD} that vislang eval wrote.") from None
    if not isinstance(card, dict) or not all(isinstance(card.get(name), dict) for name in (*MATTERS, "options")):
        raise UserError(f"{file}: is not a score card. Give a {CARD} that vislang eval wrote.")
    return card


def card_differences(
    one: Mapping[str, Any], other: Mapping[str, Any], names: Sequence[str]
) -> list[tuple[str, list[str]]]:
    """The entries in which two cards differ, by dotted name, with both values.

    Args:
        one, other: the cards.
        names: the parts of the cards that are compared.
    """
    sides = [flat({name: card.get(name) for name in names}) for card in (one, other)]
    return differing(sides)


def in_words(differences: Iterable[tuple[str, Sequence[str]]]) -> str:
    """Differences as one line of text; of hashes, the first digits."""

    def short(value: str) -> str:
        return f"{value[:12]}..." if re.fullmatch(r"[0-9a-f]{40,}", value) else value

    return "; ".join(f"{name}: {', '.join(map(short, values))}" for name, values in differences)


def hash_of(values: Iterable[Any]) -> str:
    """SHA-256 of JSON values, one a line."""
    digest = hashlib.sha256()
    for value in values:
        digest.update(json.dumps(value, ensure_ascii=False, default=str).encode() + b"\n")
    return digest.hexdigest()


def hash_of_answers(records: Iterable[Mapping[str, Any]]) -> str:
    """A hash of predictions as they are in ``predictions.jsonl``, in their order."""
    return hash_of([record["id"], record["answer"]] for record in records)


@cache
def scorer_version(task: type[Task]) -> str:
    """A hash of the code that scores a task: the metrics and the modules of its class, without comments and
    docstrings."""
    names = {f"vislang.metrics.{module.name}" for module in pkgutil.iter_modules(vislang.metrics.__path__)}
    names |= {made.__module__ for made in task.__mro__ if made.__module__.startswith("vislang.tasks.")}
    digest = hashlib.sha256()
    for name in sorted(names):
        file = importlib.import_module(name).__file__
        assert file is not None
        digest.update(_code(Path(file).read_text(encoding="utf-8")).encode())
    return digest.hexdigest()


def _code(source: str) -> str:
    tree = ast.parse(source)
    for node in ast.walk(tree):
        body = getattr(node, "body", None)
        if isinstance(body, list):
            node.body = [  # type: ignore[attr-defined]
                part for part in body if not (isinstance(part, ast.Expr) and isinstance(part.value, ast.Constant))
            ]
    return ast.dump(tree)


def _content(example: Example, media: bool = True) -> list[Any]:
    """An example as JSON values, with the hashes of its media, or without."""
    documents = [_parts(document, media) for document in (example.prompt, *example.choices)]
    target = None if example.target is None else {"kind": kind_of(example.target), **vars(example.target)}
    return [example.id, documents, target, example.group]


def _parts(document: Document, media: bool) -> list[str]:
    return [
        str(part) if not isinstance(part, Medium) else _medium(part) if media else type(part).__name__
        for part in document.parts
    ]


def _medium(medium: Medium) -> str:
    return medium.content_hash if medium.is_there else medium.name
