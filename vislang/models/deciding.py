"""Which head of a model decides an example; see :class:`~vislang.capabilities.Decides`."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence

from vislang.errors import UserError
from vislang.example import Example, kind_of


def head_for(heads: Mapping[str, str], kind: str, name: str | None = None) -> str:
    """The head that decides targets of a kind: the one that is named, or the only one.

    Args:
        heads: for each head, the kind of target that it decides.
        kind: of target; ``none`` where it is not known.
        name: of the head.

    Raises:
        UserError: there is none, or there are several; the message lists them.
    """
    fitting = [head for head, decided in heads.items() if kind in (decided, "none")]
    if name in fitting:
        return name
    if name is None and len(fitting) == 1:
        return fitting[0]
    have = ", ".join(f"{head} ({decided})" for head, decided in heads.items()) or "none that decides"
    wanted = "" if kind == "none" else f" for a target of the kind {kind}"
    raise UserError(f"head {name or '(not named)'}{wanted}: this model has {have}. Name one with --head.")


def heads_of(heads: Mapping[str, str], examples: Sequence[Example], head: str | None = None) -> list[str]:
    """The head that decides each example: ``head``, or the one that its ``task`` names, or the only one of its kind.

    Raises:
        UserError: see :func:`head_for`.
    """
    if head is not None:
        return [head_for(heads, "none", head)] * len(examples)
    found = []
    for example in examples:
        kind = "choice" if example.target is None and example.choices else kind_of(example.target)
        own = example.task in heads and kind in (heads[example.task], "none")
        found.append(head_for(heads, kind, example.task if own else None))
    return found


def why_undecided(
    heads: Mapping[str, str], known: Mapping[str, Collection[str]], kind: str, labels: Sequence[str] = ()
) -> str | None:
    """Why no head decides targets of a kind, or none knows all of these labels; None where one does.

    Args:
        heads: for each head, the kind of target that it decides.
        known: the labels of each head that has some.
        kind: of target.
        labels: that are to be told apart.
    """
    fitting = [head for head, decided in heads.items() if decided == kind]
    if not fitting:
        have = ", ".join(f"{head} ({decided})" for head, decided in heads.items())
        return f"has no head for a target of the kind {kind}" + (f"; it has {have}" if have else "")
    missing = [next((label for label in labels if label not in known.get(head, ())), None) for head in fitting]
    if all(label is not None for label in missing):
        return f"was not trained on the label {missing[0]!r}"
    return None
