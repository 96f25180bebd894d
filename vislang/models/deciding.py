"""Which head of a model answers an example; see :class:`~vislang.capabilities.Decides`."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence

from vislang.errors import UserError
from vislang.example import Example, kind_of


def head_for(heads: Mapping[str, str], kind: str, name: str | None = None) -> str:
    """The head for a kind of target: the one of this name, or the only one.

    Args:
        heads: for each head, the kind of target that it predicts.
        kind: kind of target; ``none`` if it is not known.
        name: name of the head.

    Raises:
        UserError: there is no such head, or several; the message lists them.
    """
    fitting = [head for head, decided in heads.items() if kind in (decided, "none")]
    if name in fitting:
        return name
    if name is None and len(fitting) == 1:
        return fitting[0]
    have = ", ".join(f"{head} ({decided})" for head, decided in heads.items()) or "no heads"
    wanted = "" if kind == "none" else f" for targets of the kind {kind}"
    problem = f"no head {name!r}" if name else "cannot choose a head"
    remedy = " Choose one with --head." if heads else ""
    raise UserError(f"{problem}{wanted}: this model has {have}.{remedy}")


def heads_of(heads: Mapping[str, str], examples: Sequence[Example], head: str | None = None) -> list[str]:
    """The head for each example: ``head``, or the one of its ``task``, or the only one for its kind of target.

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
    """Why no head predicts this kind of target with these labels; None if one does.

    Args:
        heads: for each head, the kind of target that it predicts.
        known: the labels of each head that has labels.
        kind: kind of target.
        labels: labels that a head must know.
    """
    fitting = [head for head, decided in heads.items() if decided == kind]
    if not fitting:
        have = ", ".join(f"{head} ({decided})" for head, decided in heads.items())
        return f"has no head for targets of the kind {kind}" + (f"; it has {have}" if have else "")
    missing = [next((label for label in labels if label not in known.get(head, ())), None) for head in fitting]
    if all(label is not None for label in missing):
        return f"was not trained on the label {missing[0]!r}"
    return None
