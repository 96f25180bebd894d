"""data2vec: one self-supervised objective for text, images and speech (Baevski et al. 2022 and 2023).

A front end turns its modality into a sequence of vectors and masks part of it
(:mod:`vislang.models.data2vec.front_ends`). The encoder is independent of the modality
(:mod:`vislang.models.data2vec.encoder`, :mod:`vislang.models.data2vec.blocks`). The teacher, a moving average of the
student, reads the whole input. The student reads the masked input, and its head
(:mod:`vislang.models.data2vec.decoder`) regresses the teacher's representations of the masked positions
(:mod:`vislang.models.data2vec.objective`). This file puts the parts together.

The two generations differ in how the student treats masked positions:

* **v1** (arXiv 2202.03555): mask tokens replace them and pass through the whole encoder.
* **v2** (arXiv 2212.07525): the encoder reads only visible positions; a small convolutional decoder adds the masked
  ones. Several masks of a sample share one pass of the teacher.
"""

from __future__ import annotations

import copy
import dataclasses
import math
import warnings
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

import torch
import torch.nn.functional as F
from jaxtyping import Bool, Float, Int
from torch import Tensor, nn

from vislang.capabilities import Progress
from vislang.document import Document
from vislang.errors import UserError
from vislang.models.base import fill_model, read_settings, write_model
from vislang.models.data2vec.blocks import EncoderConfig, Hidden, run_blocks
from vislang.models.data2vec.decoder import ConvolutionalDecoder, regression_head
from vislang.models.data2vec.encoder import Encoder
from vislang.models.data2vec.front_ends import (
    FrontEnd,
    FrontEndConfig,
    ImageConfig,
    ImageFrontEnd,
    Modalities,
    SpeechFrontEnd,
    must_agree,
)
from vislang.models.data2vec.inputs import Inputs, InputsConfig
from vislang.models.data2vec.objective import (
    TOO_EASY,
    Collapsed,
    Masked,
    Objective,
    ObjectiveConfig,
    TooEasy,
    channel_std,
    explained_variance,
    make_targets,
)
from vislang.models.settings import must_be_at_least
from vislang.nn.averaging import annealed_decay, average_into
from vislang.nn.precision import at_least_float32

if TYPE_CHECKING:
    from vislang.models.data2vec.tower import Data2VecTower


@dataclass
class TeacherConfig:
    """The parts that the teacher has, and how it follows the student.

    Attributes:
        decay, end_decay, anneal_steps: weight of the teacher's old value in the moving average, annealed linearly.
        scope: the teacher's own parts. ``encoder``: only the blocks; it uses the student's front end. ``context``: also
            positions, class token and prenet; it uses the student's local features. ``all``: everything.
        copied: beginnings of the names of parameters that are copied from the student, not averaged.
    """

    decay: float = 0.999
    end_decay: float = 0.9999
    anneal_steps: int = 30_000
    scope: Literal["encoder", "context", "all"] = "context"
    copied: Sequence[str] = ()

    def __post_init__(self):
        must_be_at_least(0, self, "anneal_steps", of="teacher.")
        for name in ("decay", "end_decay"):
            if not 0 <= getattr(self, name) <= 1:
                raise UserError(f"teacher.{name} is {getattr(self, name)}; it is a share, from 0 to 1.")


@dataclass
class SavedData2Vec:
    """The settings in the ``config.json`` of a data2vec model."""

    encoder: EncoderConfig
    modalities: Modalities
    objective: ObjectiveConfig
    teacher: TeacherConfig
    inputs: InputsConfig
    updates: int = 0
    origin: dict[str, Any] | None = None

    def __post_init__(self):
        must_agree(self.modalities, self.inputs)


class Data2Vec(nn.Module):
    """Student, teacher and objective; tensors in, tensors out.

    Args:
        encoder: shape of the shared encoder.
        modalities: the front ends.
        objective: the training objective.
        teacher: how the teacher follows the student.
        origin: the origin of converted weights, for the record.

    Raises:
        UserError: v2 without a decoder, a class loss without a class token, or more layers in a target than blocks.
    """

    def __init__(
        self,
        encoder: EncoderConfig,
        modalities: Modalities,
        objective: ObjectiveConfig | None = None,
        teacher: TeacherConfig | None = None,
        origin: dict[str, Any] | None = None,
    ):
        super().__init__()
        self.modalities = modalities
        self.inputs = Inputs()
        self.origin = origin
        self.objective_config = objective or ObjectiveConfig()
        self.teacher_config = teacher or TeacherConfig()
        _check(encoder, modalities.present(), self.objective_config)
        self.student = Encoder(encoder, modalities)
        self.heads = nn.ModuleDict(
            {name: self._head(name, modality) for name, modality in modalities.present().items()}
        )
        self.teacher = self._make_teacher()
        self.updates = 0
        self._watched: dict[str, float | Tensor] = {}

    def _head(self, name: str, config: FrontEndConfig) -> nn.Module:
        width = self.student.config.width
        if self.objective_config.generation == "v1":
            return regression_head(width, config.head_layers)
        assert config.decoder is not None
        front_end = self.student.front_end(name)
        return ConvolutionalDecoder(
            config.decoder, width, front_end.side if isinstance(front_end, ImageFrontEnd) else None
        )

    def _make_teacher(self) -> Encoder:
        """A copy of the student, without the parts that the teacher shares with it."""
        teacher = copy.deepcopy(self.student).float().requires_grad_(False).eval()
        scope = self.teacher_config.scope
        for name in teacher.front_ends:
            front_end = teacher.front_end(name)
            front_end.mask_token = None
            if scope != "all":
                front_end.local = None
                if isinstance(front_end, SpeechFrontEnd):
                    front_end.project = None
        if scope == "encoder":
            teacher.front_ends = nn.ModuleDict()
        return teacher

    def reset_teacher(self) -> None:
        """Make the teacher a copy of the student."""
        self.teacher = self._make_teacher()

    def train(self, mode: bool = True) -> Data2Vec:
        """Set the mode; the teacher always stays in evaluation mode."""
        super().train(mode)
        self.teacher.eval()
        return self

    @torch.no_grad()
    def targets(
        self,
        batch: Masked,
        local: Float[Tensor, "batch tokens width"],
        padding: Tensor | None,
        positions: Int[Tensor, "..."] | None = None,
    ) -> Float[Tensor, "*chosen width"]:
        """The teacher's targets for whole inputs; ``local`` are the student's local features of them.

        With ``positions`` (indices into the flattened batch and tokens, including class tokens), only these targets.
        """
        scope = self.teacher_config.scope
        config = self.objective_config
        front_end = (self.student if scope == "encoder" else self.teacher).front_end(batch.modality)
        if scope == "all":
            local = front_end.local_features(batch.values)
        hidden = front_end(local.detach(), padding)
        if config.local_targets:
            hidden = _to_themselves(hidden)
        # Other positions are not needed if every norm is over a single token.
        early = positions if set(config.layer_norms) | set(config.mean_norms) <= {"layer"} else None
        _, results = run_blocks(self.teacher.blocks, hidden, config.top_k, config.end_of_block, early)
        if early is not None:
            return make_targets(results, config)
        extra = front_end.config.class_tokens
        real = None if padding is None or not front_end.config.strict_padding else ~padding
        targets = make_targets([result[:, extra:] for result in results], config, real)
        return targets if positions is None else F.pad(targets, (0, 0, extra, 0)).flatten(0, 1)[positions]

    def objective(self, batch: Masked) -> Objective:
        """Predict the masked positions; see :class:`Objective`."""
        config = self.objective_config
        front_end = self.student.front_end(batch.modality)
        local = front_end.local_features(batch.values if batch.student_values is None else batch.student_values)
        padding = None if batch.padding is None else front_end.pad(batch.padding, local.shape[1])
        if config.generation == "v1":
            positions = F.pad(batch.mask, (front_end.config.class_tokens, 0)).flatten().nonzero()[:, 0]
            wanted = self.targets(batch, local, padding, positions)
            predictions = self.heads[batch.modality](self.student(front_end(local, padding, batch.mask), positions))
            loss = self._loss(predictions, wanted)
            return Objective({"regression": loss}, len(wanted), predictions, wanted)
        return self._v2(batch, front_end, local, padding, self.targets(batch, local, padding))

    def _v2(
        self, batch: Masked, front_end: FrontEnd, local: Tensor, padding: Tensor | None, targets: Tensor
    ) -> Objective:
        config = self.objective_config
        copies = len(batch.mask) // len(local)
        mean_targets = _mean(targets, padding if front_end.config.strict_padding else None)
        local = local.repeat_interleave(copies, dim=0)
        padding = None if padding is None else padding.repeat_interleave(copies, dim=0)
        strict = padding if front_end.config.strict_padding else None
        encoded = self.student(front_end(local, padding, batch.mask, leave_out=True))
        extra = front_end.config.class_tokens
        gaps = batch.mask if strict is None else batch.mask | strict
        decoded = self.heads[batch.modality](encoded[:, extra:], gaps, front_end.fixed_positions, strict)
        predictions = decoded[batch.mask]
        wanted = targets.repeat_interleave(copies, dim=0)[batch.mask]
        losses = {}
        class_predictions = class_targets = None
        if config.class_loss > 0:
            class_predictions = encoded[:, extra - 1]
            class_targets = mean_targets.repeat_interleave(copies, dim=0)
            losses["class"] = self._loss(class_predictions, class_targets) * config.class_loss * len(wanted)
        losses["regression"] = self._loss(predictions, wanted) * config.weight
        return Objective(losses, len(wanted), predictions, wanted, class_predictions, class_targets)

    def _loss(self, predictions: Tensor, targets: Tensor) -> Float[Tensor, ""]:
        config = self.objective_config
        scale = 1 / math.sqrt(targets.shape[-1]) if config.scale is None else config.scale
        predictions, targets = at_least_float32(predictions), at_least_float32(targets)
        if config.beta == 0:
            return scale * F.mse_loss(predictions, targets, reduction="sum")
        return scale * F.smooth_l1_loss(predictions, targets, reduction="sum", beta=config.beta)

    def forward(self, batch: Masked) -> dict[str, Float[Tensor, ""]]:
        """The losses per predicted position (v1, section 3.4; fairseq divides by the same number)."""
        found = self.objective(batch)
        self._watched = {
            "target_std": channel_std(found.targets),
            "prediction_std": channel_std(found.predictions.detach()),
            "explained_variance": explained_variance(found.predictions.detach(), found.targets),
            "teacher_decay": self.decay,
        }
        return {name: loss / found.positions for name, loss in found.losses.items()}

    def check(self, diagnostics: Mapping[str, float], updates: int) -> None:
        """See :meth:`~vislang.models.base.TrainableModel.check`.

        Raises:
            Collapsed: targets or predictions are nearly the same at all positions.
        """
        config = self.objective_config
        if updates < config.watch_from:
            return
        for what, least in (("target", config.min_target_std), ("prediction", config.min_prediction_std)):
            found = diagnostics[f"{what}_std"]
            if found < least:
                raise Collapsed(
                    f"update {updates}: the {what}s have collapsed. Their standard deviation over positions is "
                    f"{found:.4f}, below objective.min_{what}_std ({least}): all inputs have nearly the same "
                    "representation, which is easy to predict and useless. Usual causes: a learning rate that is too "
                    "high or a warmup that is too short, a teacher that follows too closely (raise teacher.decay), "
                    "targets that are not normalised, or a mask ratio that is too low."
                )
        if diagnostics["explained_variance"] > TOO_EASY:
            # Python shows repeated warnings of the same line only once.
            warnings.warn(
                f"more than {TOO_EASY:.0%} of the targets' variance is predicted. Probably they can be predicted from "
                "the positions alone, without the input. Use positions: none, with alibi.",
                TooEasy,
                stacklevel=3,
            )

    def embed(
        self,
        documents: Sequence[Document],
        batch_size: int = 64,
        encoder: Literal["student", "teacher"] = "student",
        progress: Progress | None = None,
    ) -> Float[Tensor, "documents width"]:
        """One vector for each document: the mean of the encoder's output over tokens, patches or frames.

        For arguments and errors see :meth:`embed_at`.
        """
        return self.embed_at(documents, [self.depth], batch_size, encoder, progress=progress)[self.depth]

    @property
    def depth(self) -> int:
        """The number of blocks of the shared encoder."""
        return len(self.student.blocks)

    def embed_at(
        self,
        documents: Sequence[Document],
        depths: Sequence[int],
        batch_size: int = 64,
        encoder: Literal["student", "teacher"] = "student",
        parts: int = 1,
        progress: Progress | None = None,
    ) -> dict[int, Float[Tensor, "documents vector"]]:
        """Vectors of documents after several depths, in one pass.

        Args:
            documents: each one text, one image or one recording; all of the same modality.
            depths: numbers of shared blocks, from 1 to all of them.
            batch_size: documents at a time.
            encoder: student or teacher; the teacher can embed only if its scope is ``all``.
            parts: divide each sequence into this many equal parts and concatenate their means, to keep the order of
                sounds in a recording.
            progress: called with (documents done, documents in all).

        Raises:
            MediaError: a medium cannot be used.
            UserError: the model does not read this modality, or its teacher has no front ends.
        """
        if encoder == "teacher" and self.teacher_config.scope != "all":
            raise UserError("this model's teacher has no front ends and cannot embed; use the student.")
        chosen = self.student if encoder == "student" else self.teacher
        return chosen.embed_documents(self.inputs, documents, depths, batch_size, parts, progress)

    def why_unreadable(self, media: frozenset[str]) -> str | None:
        """See :class:`~vislang.capabilities.Reads`."""
        return self.inputs.why_unreadable(media)

    def vision_tower(self, name: str, image_size: int | None = None) -> Data2VecTower:
        """The student's encoder as a frozen tower; see :class:`~vislang.models.towers.vision.GivesVisionTower`."""
        # Towers import transformers, which takes seconds.
        from vislang.models.data2vec.tower import Data2VecTower

        return Data2VecTower(name, self.student, self.inputs, image_size)

    def diagnostics(self) -> dict[str, float | Tensor]:
        """Standard deviations of targets and predictions, explained variance of the last batch, and the teacher's
        decay."""
        return dict(self._watched)

    @property
    def decay(self) -> float:
        """The decay of the teacher's moving average at this update."""
        config = self.teacher_config
        return annealed_decay(config.decay, config.end_decay, self.updates, config.anneal_steps)

    def after_step(self) -> None:
        """Count an update, and update the teacher."""
        self.updates += 1
        average_into(self.teacher, self.student, self.decay, self._is_copied)

    @torch.no_grad()
    def copy_to_teacher(self) -> None:
        """Update the parameters of the teacher that are copied and not averaged."""
        theirs = dict(self.teacher.named_parameters())
        for name, parameter in self.student.named_parameters():
            if name in theirs and self._is_copied(name):
                theirs[name].copy_(parameter)

    def _is_copied(self, name: str) -> bool:
        return any(name.startswith(start) for start in self.teacher_config.copied)

    def save(self, folder: Path | str) -> None:
        """Write config and weights: student, heads and teacher."""
        folder = Path(folder)
        folder.mkdir(parents=True, exist_ok=True)
        settings = {
            "encoder": dataclasses.asdict(self.student.config),
            "modalities": dataclasses.asdict(self.modalities),
            "objective": dataclasses.asdict(self.objective_config),
            "teacher": dataclasses.asdict(self.teacher_config),
            "inputs": self.inputs.save(folder),
            "updates": self.updates,
            "origin": self.origin,
        }
        write_model(folder, self, settings)

    @classmethod
    def load(cls, folder: Path) -> Data2Vec:
        """Open a folder that :meth:`save` wrote.

        Raises:
            UserError: a setting is wrong, or the weights do not fit or are damaged.
        """
        saved = read_settings(SavedData2Vec, folder)
        model = cls(saved.encoder, saved.modalities, saved.objective, saved.teacher, saved.origin)
        fill_model(model, folder)
        model.inputs = Inputs.load(folder, saved.inputs)
        model.updates = saved.updates
        return model.eval()


def _to_themselves(hidden: Hidden) -> Hidden:
    """The same sequence, in which each token attends only to itself."""
    tokens = hidden.tokens.shape[1]
    apart = ~torch.eye(tokens, dtype=torch.bool, device=hidden.tokens.device)
    bias = hidden.tokens.new_zeros(1, 1, 1, tokens, tokens).masked_fill(apart, -torch.inf)
    return hidden._replace(padding=None, bias=bias)


def _mean(
    targets: Float[Tensor, "batch tokens width"], padding: Bool[Tensor, "batch tokens"] | None
) -> Float[Tensor, "batch width"]:
    """The mean target of each sample, over its real positions."""
    if padding is None:
        return targets.mean(dim=1)
    real = ~padding[..., None]
    return (targets * real).sum(dim=1) / real.sum(dim=1)


def _check(encoder: EncoderConfig, modalities: dict[str, FrontEndConfig], objective: ObjectiveConfig) -> None:
    if not 1 <= objective.top_k <= encoder.depth:
        raise UserError(f"objective.top_k is {objective.top_k}; the encoder has {encoder.depth} blocks.")
    if not modalities:
        raise UserError("modalities: name at least one of text, image and speech.")
    for name, modality in modalities.items():
        if objective.generation == "v2" and modality.decoder is None:
            raise UserError(f"modalities.{name}: data2vec v2 needs a decoder.")
        relative = isinstance(modality, ImageConfig) and modality.positions == "relative"
        if relative and (objective.generation == "v2" or modality.class_tokens != 1):
            raise UserError(
                f"modalities.{name}.positions: relative positions need v1 and exactly one class token. Use fixed "
                "positions."
            )
        if objective.class_loss > 0 and modality.class_tokens == 0:
            raise UserError(f"modalities.{name}: objective.class_loss needs a class token.")
