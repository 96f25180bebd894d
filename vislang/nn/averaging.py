"""The exponential moving average of a model: a teacher that follows its student."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import nn


def annealed_decay(start: float, end: float, update: int, anneal_steps: int) -> float:
    """The decay at an update: linear from ``start`` to ``end``, then constant (data2vec, section 3.3)."""
    if update >= anneal_steps:
        return end
    return end - (end - start) * (1 - update / anneal_steps)


@torch.no_grad()
def average_into(
    teacher: nn.Module, student: nn.Module, decay: float, copied: Callable[[str], bool] = lambda name: False
) -> None:
    """Update a teacher from its student: ``teacher = decay * teacher + (1 - decay) * student``.

    Parameters are averaged by name; frozen parameters and buffers are copied. Parameters that the teacher does not have
    are ignored. All tensors are updated in one fused call.

    Args:
        teacher: the module to update, in place; its parameters are float32.
        student: the module it follows, with parameters of the same names.
        decay: weight of the teacher's old value.
        copied: whether the parameter of a name is copied, not averaged.
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
