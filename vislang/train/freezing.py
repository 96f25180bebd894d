"""Which parameters train: freezing by patterns of names, and a summary of what is left."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from fnmatch import fnmatchcase

from torch import nn

from vislang.errors import UserError


def freeze(model: nn.Module, patterns: Sequence[str]) -> None:
    """Take parameters out of training, by their names. They stay as they are, and are saved with the model.

    A pattern may have ``*``, ``?`` and ``[...]``, as file names have. It matches a parameter's dotted name or an end of
    that name behind a dot: ``resampler.*`` matches ``bridge.resampler.latents``. Freezing twice changes nothing.

    Raises:
        UserError: a pattern matches no parameter, or nothing is left to train.
    """
    if not patterns:
        return
    named = dict(model.named_parameters())
    for pattern in patterns:
        chosen = [name for name in named if _matches(name, pattern)]
        if not chosen:
            raise UserError(
                f"train.freeze: {pattern!r} matches no parameter. The parameters that train are in "
                f"{', '.join(parts(name for name, p in named.items() if p.requires_grad))}."
            )
        for name in chosen:
            named[name].requires_grad_(False)
    if not any(parameter.requires_grad for parameter in named.values()):
        raise UserError(f"train.freeze: {', '.join(patterns)} leaves nothing to train.")


def _matches(name: str, pattern: str) -> bool:
    return fnmatchcase(name, pattern) or fnmatchcase(name, f"*.{pattern}")


def parts(names: Iterable[str]) -> list[str]:
    """The parts of a model that parameters belong to, as the first two names of their paths, each once."""
    return list(dict.fromkeys(".".join(name.split(".")[:2]) for name in names))


def trained_and_frozen(model: nn.Module) -> dict[str, dict[str, int]]:
    """How many numbers of each part of a model train, and how many are frozen: ``{"trained": {part: count}, ...}``."""
    found: dict[str, dict[str, int]] = {"trained": {}, "frozen": {}}
    for name, parameter in model.named_parameters():
        (part,) = parts([name])
        counts = found["trained" if parameter.requires_grad else "frozen"]
        counts[part] = counts.get(part, 0) + parameter.numel()
    return found
