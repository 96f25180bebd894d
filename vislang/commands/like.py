"""``vislang eval --like card.json``: run an evaluation again, or say what differs."""

from __future__ import annotations

import sys
import tempfile
from dataclasses import fields, replace
from pathlib import Path
from typing import Any

from vislang.commands.options import given
from vislang.errors import UserError
from vislang.evaluate.card import MATTERS, card_differences, in_words, read_card

RESULT = ("decoding", "shots", "prompts", "answers")
"""Entries of a card that only a finished evaluation has."""


NOT_IN_CARDS = ("model", "device", "report", "like", "out", "json")
"""Options that do not change the result of an evaluation, and the model, which has an entry of its own."""


def must_match(path: Path, made: dict[str, Any]) -> None:
    """Check before a model runs that an evaluation is that of a card.

    Args:
        path: the card. Its model may be another one.
        made: the card of now.

    Raises:
        UserError: data, scorer or weights are not those of the card.
    """
    card = read_card(path)
    names = [*MATTERS, "support"]
    if made["model"]["source"] == card["model"]["source"]:
        names.append("model")
    if found := card_differences(card, made, names):
        raise UserError(
            f"the evaluation of {path} cannot be run again; these differ (in the card, now): {in_words(found)}. "
            "Restore what has changed, or evaluate without --like."
        )


def rerun(options: Any, path: Path) -> int:
    """Run the evaluation of a card again; returns 0, or 1 if the answers differ.

    Args:
        options: the command, an :class:`~vislang.commands.evaluate.Evaluate`. Beside the model and where results are
            written, all options are those of the card.
        path: the card, or its folder.

    Raises:
        UserError: the card is of another version or cannot be run again, or something that matters differs.
    """
    card = read_card(path)
    known = {own.name for own in fields(options)} - set(NOT_IN_CARDS)
    if ignored := given(options, sorted(known)):
        raise UserError(f"{ignored}: not used together with --like, because the card has it. Leave it out.")
    recorded = card["options"]
    if not recorded or not set(recorded) <= known:
        raise UserError(f"{path}: was not written by vislang eval of this version, so it cannot be run again.")
    source = card["model"].get("source")
    if options.model is None and "class" not in card["model"]:
        raise UserError(f"{path}: scores a file of predictions and names no model. Give a model, too.")
    with tempfile.TemporaryDirectory() as temporary:
        out = Path(temporary) / "out" if options.out is None else options.out
        if out.resolve() == (path if path.is_dir() else path.parent).resolve():
            raise UserError(f"--out {out}: holds the card that is run again. Give another folder.")
        replace(options, **recorded, model=options.model or source, out=out).evaluate()
        made = read_card(out)
    differences = card_differences(card, made, (*RESULT, "environment"))
    matter = [own for own in differences if not own[0].startswith("environment")]
    where = sys.stderr if options.json else sys.stdout
    if options.model not in (None, source):
        print(f"another model than in {path}: {source}", file=where)
        return 0
    print("the same prompts and answers as in the card" if not matter else "not the same as in the card:", file=where)
    for difference in differences:
        print(f"  {in_words([difference])}", file=where)
    return 1 if any(name.startswith("answers") for name, _ in matter) else 0
