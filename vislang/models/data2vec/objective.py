"""data2vec's objective: what is masked and predicted, the targets, and signs that they have collapsed.

Targets are averages of what the teacher's last layers make of the whole input, normalised (data2vec, arXiv 2202.03555,
sections 3.3 and 3.4).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal, NamedTuple

import torch
import torch.nn.functional as F
from jaxtyping import Bool, Float
from torch import Tensor

from vislang.errors import UserError
from vislang.models.data2vec.inputs import Whole

Norm = Literal["batch", "instance", "group", "layer", "instance_across", "group_across"]


@dataclass
class ObjectiveConfig:
    """What is regressed, and how (v1 sections 3.3 and 3.4).

    Attributes:
        generation: ``v1`` or ``v2``.
        top_k: number of the teacher's last layers that are averaged.
        end_of_block: regress the blocks' outputs rather than their feed-forwards' (before the residual).
        layer_norms: normalisations of each layer's result, in order.
        mean_norms: normalisations of their mean, in order.
        beta: of the smooth L1 loss; 0 for the squared error.
        scale: factor on the loss, which is summed over features; None for 1 / sqrt(width).
        copies: masks of a sample that share one reading by the teacher (v2).
        class_loss: weight of predicting the mean target from the class token (v2).
        weight: of the regression.
        min_target_std, min_prediction_std: least standard deviations of targets and predictions over positions; below
            these, from update ``watch_from`` on, the run has collapsed.
        watch_from: updates during which these may still be small.
    """

    generation: Literal["v1", "v2"] = "v1"
    top_k: int = 8
    end_of_block: bool = False
    layer_norms: Sequence[Norm] = ("layer",)
    mean_norms: Sequence[Norm] = ()
    beta: float = 0.0
    scale: float | None = None
    copies: int = 1
    class_loss: float = 0.0
    weight: float = 1.0
    min_target_std: float = 0.1
    min_prediction_std: float = 0.01
    watch_from: int = 5000


class Masked(NamedTuple):
    """A batch: whole inputs, and which positions of them are masked for the student.

    Attributes:
        modality: its name.
        values: token ids, pixels (batch, channels, height, width) or waveforms (batch, samples).
        mask: (batch * copies, tokens) True at the positions to predict.
        student_values: what the student reads instead of ``values``: token ids with mask tokens among them.
        padding: (batch, inputs) True where there is nothing, in the units of ``values``.
        names: of the examples, for messages.
    """

    modality: str
    values: Tensor
    mask: Bool[Tensor, "copies tokens"]
    student_values: Tensor | None = None
    padding: Tensor | None = None
    names: Sequence[str] = ()

    @property
    def tokens(self) -> int:
        """Tokens of texts, padding not counted; images and recordings have none."""
        return Whole(self.modality, self.values, self.padding).tokens


class Objective(NamedTuple):
    """Everything that the objective computes.

    Attributes:
        losses: by name, each summed over positions (and over features).
        positions: number of predicted positions.
        predictions, targets: at those positions.
        class_predictions, class_targets: of the class loss, where there is one.
    """

    losses: dict[str, Float[Tensor, ""]]
    positions: int
    predictions: Float[Tensor, "positions width"]
    targets: Float[Tensor, "positions width"]
    class_predictions: Float[Tensor, "copies width"] | None = None
    class_targets: Float[Tensor, "copies width"] | None = None


def normalise(
    x: Float[Tensor, "*batch width"], norm: Norm, real: Bool[Tensor, "batch tokens"] | None = None
) -> Float[Tensor, "*batch width"]:
    """Normalise without weights: each channel over a sample's tokens (``instance``) or over the batch's
    (``batch``), each token over its channels (``layer``), or a sample as a whole (``group``). All but ``layer``
    want (batch, tokens, width).

    ``instance_across`` and ``group_across`` take the batch for time and time for the batch, as fairseq's v1 speech
    model does where no other normalisation has put its axes in order before.

    With ``real``, what is False there (padding) counts in no mean and no variance.
    """
    x = x.float()
    if norm in ("instance_across", "group_across"):
        return normalise(x.transpose(0, 1), "instance" if norm == "instance_across" else "group").transpose(0, 1)
    if norm == "layer":
        return F.layer_norm(x, x.shape[-1:])
    if real is not None:
        return _standardise(x, {"instance": (1,), "batch": (0, 1), "group": (1, 2)}[norm], real)
    if norm == "instance":
        return F.instance_norm(x.transpose(1, 2)).transpose(1, 2)
    if norm == "batch":
        return F.batch_norm(x.transpose(1, 2), None, None, training=True).transpose(1, 2)
    return F.layer_norm(x, x.shape[-2:])


def _standardise(x: Tensor, over: tuple[int, ...], real: Tensor, eps: float = 1e-5) -> Tensor:
    """Mean 0 and variance 1 over these dimensions, of what is real."""
    counted = real[..., None].expand_as(x)
    count = counted.sum(over, keepdim=True)
    centred = x - (x * counted).sum(over, keepdim=True) / count
    return centred * ((centred.square() * counted).sum(over, keepdim=True) / count + eps).rsqrt()


def make_targets(
    results: Sequence[Tensor], config: ObjectiveConfig, real: Bool[Tensor, "batch tokens"] | None = None
) -> Float[Tensor, "*batch width"]:
    """Normalise each layer's result, average them, normalise the mean (v1, section 3.3); see :func:`normalise`."""
    total = torch.zeros((), device=results[0].device)
    for result in results:
        for norm in config.layer_norms:
            result = normalise(result, norm, real)
        total = total + result.float()
    mean = total / len(results)
    for norm in config.mean_norms:
        mean = normalise(mean, norm, real)
    return mean


def channel_std(x: Float[Tensor, "positions width"]) -> Float[Tensor, ""]:
    """Standard deviation of each channel over positions, averaged: near 0, all inputs look the same."""
    return (x.float().var(dim=0) + 1e-6).sqrt().mean()


def explained_variance(
    predictions: Float[Tensor, "positions width"], targets: Float[Tensor, "positions width"]
) -> Float[Tensor, ""]:
    """Share of the targets' variance over positions that the predictions explain: 1 is all, 0 is a constant guess."""
    predictions, targets = predictions.float(), targets.float()
    left = (targets - predictions).square().sum()
    return 1 - left / (targets - targets.mean(dim=0)).square().sum().clamp(min=1e-6)


class Collapsed(UserError):
    """Every input is given the same representation: the easiest way to predict one's own average."""


class TooEasy(UserWarning):
    """Nearly all of the targets is predicted: there is a way to do so without reading."""


TOO_EASY = 0.98
"""A share of the targets' variance above which something other than the content must give them away."""
