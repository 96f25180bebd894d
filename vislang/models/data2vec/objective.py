"""data2vec's objective: masked batches, targets, losses, and measures of collapse.

Targets are normalised averages of the teacher's last layers for the whole input (data2vec, arXiv 2202.03555, sections
3.3 and 3.4).
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
from vislang.models.settings import must_be_at_least
from vislang.nn.precision import at_least_float32

Norm = Literal["batch", "instance", "group", "layer", "instance_across", "group_across"]


@dataclass
class ObjectiveConfig:
    """Targets and losses (v1, sections 3.3 and 3.4).

    Attributes:
        generation: ``v1`` or ``v2``.
        top_k: number of the teacher's last layers that are averaged.
        end_of_block: regress the outputs of blocks, and not their feed-forward outputs before the residual connection.
        local_targets: let each token of the teacher attend only to itself, so that a target holds nothing of its
            context but what the front end gives it (v1, ablations, restricts the context of targets step by step).
        layer_norms: normalisations of the output of each layer, in order.
        mean_norms: normalisations of the mean over layers, in order.
        beta: beta of the smooth L1 loss; 0 for the squared error.
        scale: factor on the loss, which is summed over features; None for 1 / sqrt(width).
        copies: number of masks of a sample that share one pass of the teacher (v2).
        class_loss: weight of predicting the mean target from the class token (v2).
        weight: weight of the regression loss.
        min_target_std, min_prediction_std: if, from update ``watch_from`` on, the standard deviation of targets or
            predictions over positions is lower, the run has collapsed.
        watch_from: number of updates during which they may be lower.
    """

    generation: Literal["v1", "v2"] = "v1"
    top_k: int = 8
    end_of_block: bool = False
    local_targets: bool = False
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

    def __post_init__(self):
        must_be_at_least(1, self, "top_k", "copies", of="objective.")
        not_negative = ("beta", "class_loss", "weight", "min_target_std", "min_prediction_std", "watch_from")
        must_be_at_least(0, self, *not_negative, of="objective.")


class Masked(NamedTuple):
    """A batch of whole inputs, and the positions that are masked for the student.

    Attributes:
        modality: name of the modality.
        values: token ids, pixels (batch, channels, height, width) or waveforms (batch, samples).
        mask: (batch * copies, tokens) True at the positions to predict.
        student_values: the input of the student, if it differs from ``values``: token ids with mask tokens.
        padding: (batch, inputs) True at padding, in the units of ``values``.
        names: names of the examples, for messages.
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
    """The losses, predictions and targets of a batch.

    Attributes:
        losses: losses by name, summed over positions (and features).
        positions: number of predicted positions.
        predictions, targets: predictions and targets at these positions.
        class_predictions, class_targets: those of the class loss, if there is one.
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

    ``instance_across`` and ``group_across`` swap batch and time, as fairseq's v1 speech model does if no other
    normalisation precedes them.

    With ``real``, positions that are False there (padding) are excluded from means and variances.
    """
    x = at_least_float32(x)
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
    """Standardise over these dimensions, with statistics of real positions only."""
    counted = real[..., None].expand_as(x)
    count = counted.sum(over, keepdim=True)
    centred = x - (x * counted).sum(over, keepdim=True) / count
    return centred * ((centred.square() * counted).sum(over, keepdim=True) / count + eps).rsqrt()


def make_targets(
    results: Sequence[Tensor], config: ObjectiveConfig, real: Bool[Tensor, "batch tokens"] | None = None
) -> Float[Tensor, "*batch width"]:
    """Normalise the output of each layer, average, and normalise the mean (v1, section 3.3); see :func:`normalise`."""
    total = torch.zeros((), device=results[0].device)
    for result in results:
        for norm in config.layer_norms:
            result = normalise(result, norm, real)
        total = total + at_least_float32(result)
    mean = total / len(results)
    for norm in config.mean_norms:
        mean = normalise(mean, norm, real)
    return mean


def channel_std(x: Float[Tensor, "positions width"]) -> Float[Tensor, ""]:
    """Standard deviation over positions, averaged over channels; near 0, all inputs have the same representation.

    A single position has none. It gives 1, that of normalised targets, so that it is no sign of a collapse.
    """
    if len(x) < 2:
        return x.new_ones((), dtype=torch.float32)
    return (at_least_float32(x).var(dim=0) + 1e-6).sqrt().mean()


def explained_variance(
    predictions: Float[Tensor, "positions width"], targets: Float[Tensor, "positions width"]
) -> Float[Tensor, ""]:
    """Share of the targets' variance over positions that the predictions explain; predicting the mean gives 0. A single
    position has no variance, and gives 0 too."""
    if len(targets) < 2:
        return targets.new_zeros((), dtype=torch.float32)
    predictions, targets = at_least_float32(predictions), at_least_float32(targets)
    left = (targets - predictions).square().sum()
    return 1 - left / (targets - targets.mean(dim=0)).square().sum().clamp(min=1e-6)


class Collapsed(UserError):
    """All inputs have nearly the same representation."""


class TooEasy(UserWarning):
    """Nearly all of the targets' variance is predicted, probably without using the input."""


TOO_EASY = 0.98
"""Above this explained variance, something other than the content must predict the targets."""
