"""``vislang eval --like card.json``: run an evaluation again, or say what differs."""

from __future__ import annotations

import sys
import tempfile
from dataclasses import dataclass, field, fields
from pathlib import Path
from typing import Any

from vislang.commands.evaluate import NOT_IN_CARDS, Evaluate
from vislang.commands.options import given
from vislang.errors import UserError
from vislang.evaluate.card import MATTERS, card_differences, in_words, read_card

RESULT = ("decoding", "shots", "prompts", "answers")
"""Entries of a card that only a finished evaluation has."""


@dataclass(frozen=True)
class Rerun(Evaluate):
    """An evaluation that must be that of a card.

    Attributes:
        expected: the card.
        same_model: whether the model must be that of the card.
    """

    expected: dict[str, Any] = field(default_factory=dict)
    same_model: bool = True

    def options(self) -> dict[str, Any]:
        """See :meth:`Evaluate.options`."""
        return {name: value for name, value in super().options().items() if name not in ("expected", "same_model")}

    def card(self, task: Any, examples: Any, support: Any) -> dict[str, Any]:
        """See :meth:`Evaluate.card`.

        Raises:
            UserError: data, scorer or model are not those of the card.
        """
        made = super().card(task, examples, support)
        before, now = ({**card, "model": {**card["model"], "source": ""}} for card in (self.expected, made))
        names = (*MATTERS, "support", *(("model",) if self.same_model else ()))
        if found := card_differences(before, now, names):
            raise UserError(
                f"the evaluation of the card cannot be run again; these differ (in the card, now): {in_words(found)}. "
                "Restore what has changed, or evaluate without --like."
            )
        return made


def rerun(options: Evaluate, path: Path) -> int:
    """Run the evaluation of a card again; returns 0, or 1 if the answers differ.

    Args:
        options: the command; beside the model and where results are written, all options are those of the card.
        path: the card, or its folder.

    Raises:
        UserError: the card is of another version or cannot be run again, or something that matters differs.
    """
    card = read_card(path)
    known = {own.name for own in fields(Evaluate)} - set(NOT_IN_CARDS)
    if ignored := given(options, sorted(known)):
        raise UserError(f"{ignored}: not used together with --like, because the card has it. Leave it out.")
    recorded = card["options"]
    if not recorded or not set(recorded) <= known:
        raise UserError(f"{path}: was not written by vislang eval of this version, so it cannot be run again.")
    source = card["model"].get("source")
    if options.model is None and "class" not in card["model"]:
        raise UserError(f"{path}: scores a file of predictions and names no model. Give a model, too.")
    values = {own.name: getattr(options, own.name) for own in fields(Evaluate)}
    with tempfile.TemporaryDirectory() as temporary:
        out = Path(temporary) / "out" if options.out is None else options.out
        if out.resolve() == (path if path.is_dir() else path.parent).resolve():
            raise UserError(f"--out {out}: holds the card that is run again. Give another folder.")
        values |= {**recorded, "model": options.model or source, "like": None, "out": out}
        Rerun(**values, expected=card, same_model=options.model in (None, source)).run()
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
