"""Freezing parameters by patterns of their names, and counting the trained ones."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from fnmatch import fnmatchcase

from torch import nn

from vislang.errors import UserError


def freeze(model: nn.Module, patterns: Sequence[str]) -> None:
    """Exclude parameters from training. They keep their values, and are still saved with the model.

    Patterns are those of file names, with ``*``, ``?`` and ``[...]``. A pattern matches the dotted name of a parameter,
    or the rest of that name after a dot: ``resampler.*`` matches ``bridge.resampler.latents``. Freezing twice has no
    further effect.

    Raises:
        UserError: a pattern matches no parameter, or no parameter is left to train.
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
    """The parts of a model that parameters belong to: the first two components of their names, without repetitions."""
    return list(dict.fromkeys(".".join(name.split(".")[:2]) for name in names))


def trained_and_frozen(model: nn.Module) -> dict[str, dict[str, int]]:
    """Sizes of the trained and of the frozen parameters: ``{"trained": {part: count}, "frozen": {part: count}}``."""
    found: dict[str, dict[str, int]] = {"trained": {}, "frozen": {}}
    for name, parameter in model.named_parameters():
        (part,) = parts([name])
        counts = found["trained" if parameter.requires_grad else "frozen"]
        counts[part] = counts.get(part, 0) + parameter.numel()
    return found
