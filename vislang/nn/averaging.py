"""The exponentially moving average of a model: a teacher that trails its student."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import nn


def annealed_decay(start: float, end: float, update: int, anneal_steps: int) -> float:
    """The decay at an update: from ``start`` in a straight line to ``end``, then constant (data2vec, section 3.3)."""
    if update >= anneal_steps:
        return end
    return end - (end - start) * (1 - update / anneal_steps)


@torch.no_grad()
def average_into(
    teacher: nn.Module, student: nn.Module, decay: float, copied: Callable[[str], bool] = lambda name: False
) -> None:
    """Move a teacher towards its student: ``teacher = decay * teacher + (1 - decay) * student``.

    The average runs over parameters, by name; those that do not train, and buffers, are copied. Parameters of the
    student that the teacher lacks are passed over. One fused call for all tensors, whatever their number.

    Args:
        teacher: is changed in place; its parameters are float32.
        student: the module it trails, whose parameters bear the same names.
        decay: share of itself that the teacher keeps.
        copied: whether a parameter is copied rather than averaged, by its name.
    """
    of_teacher = dict(teacher.named_parameters())
    averaged: list[tuple[torch.Tensor, torch.Tensor]] = []
    replaced: list[tuple[torch.Tensor, torch.Tensor]] = []
    for name, parameter in student.named_parameters():
        if name in of_teacher:
            pairs = replaced if copied(name) or not parameter.requires_grad else averaged
            pairs.append((of_teacher[name], parameter))
    buffers = dict(teacher.named_buffers())
    replaced += [(buffers[name], buffer) for name, buffer in student.named_buffers() if name in buffers]
    if averaged:
        theirs, ours = (list(side) for side in zip(*averaged, strict=True))
        torch._foreach_lerp_(theirs, [parameter.to(theirs[0].dtype) for parameter in ours], 1 - decay)
    for to, source in replaced:
        to.copy_(source)
