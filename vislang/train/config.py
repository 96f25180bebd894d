"""Settings of a training run: one dataclass, checked before anything starts."""

from __future__ import annotations

import math
from dataclasses import dataclass, field
from typing import Literal

from vislang.errors import UserError

Device = Literal["auto", "cpu", "cuda", "mps"]
Parallel = Literal["none", "ddp", "fsdp2"]

DEFAULT_STEPS = 1000
"""Number of steps of a run whose recipe sets neither ``steps`` nor ``minutes``."""


@dataclass(frozen=True)
class TrainConfig:
    """How to train.

    Attributes:
        steps: number of optimizer steps; None means 1,000, or with ``minutes`` as many as fit.
        minutes: time budget for the training steps, without preparation, evaluation and checkpoints. Some steps are
            timed in a trial, and the run gets as many as fit, at most ``steps`` unless that is None. 0 means no budget.
        batch_size: examples a step.
        lr: peak learning rate.
        lr_scale: factors on ``lr`` for groups of parameters, such as ``{"gates": 20}``.
        schedule: shape of the learning rate after the warm-up; see :func:`~vislang.train.schedule.rate_factor`.
        warmup_steps: steps over which the rate rises from 0, in a straight line.
        final_lr: learning rate at the end of ``cosine``, ``linear`` and ``tri-stage``, as a share of the peak.
        decay_share: share of the steps in which the learning rate of ``tri-stage`` falls.
        optimizer: ``adamw``; or ``muon``, which updates the matrices of hidden linear layers by Muon and all other
            parameters by AdamW; see :class:`~vislang.train.optimizer.Optimizer`.
        weight_decay: of matrices and kernels; see :meth:`~vislang.models.base.TrainableModel.decays`.
        betas: of AdamW.
        momentum: of Muon.
        clip_norm: largest norm of the gradient.
        freeze: patterns of the names of parameters that are not trained, such as ``["resampler.*"]``; see
            :func:`~vislang.train.freezing.freeze`.
        gradient_checkpointing: keep only the inputs of blocks for the backward pass, and recompute their inner
            activations: less memory, more time.
        eval_every: steps between evaluations; 0 for none but the last.
        eval_examples: test examples of an evaluation during training, the same ones each time.
        checkpoint_every: steps between checkpoints.
        keep_checkpoints: how many of the latest checkpoints stay.
        log_every: steps between lines of progress where output is no terminal.
        seed: of the order of the data and of the new parameters.
        stop_and_go: rest tasks that have stopped improving, by what is watched of them at each evaluation; see
            :class:`~vislang.train.schedule.StopAndGo`.
        mixing: ``sum`` minimises the weighted sum over all streams in each step (Flamingo, section 2.4: gradients are
            accumulated); ``round-robin`` takes one stream a step, in turn.
        workers: processes that prepare batches; 0 prepares them in the training process.
        threads: CPU threads; 0 leaves torch's choice.
        device: where to train; ``auto`` takes a GPU where there is one.
        parallel: how several processes share the work: ``ddp`` gives each a replica, ``fsdp2`` a shard of the
            parameters, gradients and moments (docs/training.md); ``none`` for one process.
        shard_above: with ``fsdp2``, parameters of a frozen tower above which its blocks are sharded as well; and
            trained parameters above which gradients are exchanged in every backward pass, not once per step.
        accumulate: micro-batches that a process computes one after the other, to save memory; the loss stays that of
            the whole batch.
        compile: compile the repeated blocks of the model (torch.compile).
        skip_steps: how many steps in a row may be skipped because the gradient is not finite, before the run stops.
        best: name of an evaluated figure; the checkpoint that was best by it is kept beside the latest. Empty takes
            what is watched of the streams, where there is something.
        hang_minutes: minutes after which a step that does not end says where it stands and ends its process; 0 for
            never.
    """

    steps: int | None = None
    minutes: float = 0.0
    batch_size: int = 32
    lr: float = 1e-3
    lr_scale: dict[str, float] = field(default_factory=dict)
    schedule: Literal["cosine", "constant", "linear", "tri-stage", "inverse-sqrt"] = "cosine"
    warmup_steps: int = 20
    final_lr: float = 0.0
    decay_share: float = 0.07
    optimizer: Literal["adamw", "muon"] = "adamw"
    weight_decay: float = 0.1
    betas: tuple[float, float] = (0.9, 0.95)
    momentum: float = 0.95
    clip_norm: float = 1.0
    freeze: list[str] = field(default_factory=list)
    gradient_checkpointing: bool = False
    eval_every: int = 0
    eval_examples: int = 500
    checkpoint_every: int = 200
    keep_checkpoints: int = 2
    log_every: int = 10
    seed: int = 0
    stop_and_go: bool = False
    mixing: Literal["sum", "round-robin"] = "sum"
    workers: int = 0
    threads: int = 0
    device: Device = "auto"
    parallel: Parallel = "none"
    shard_above: float = 1e9
    accumulate: int = 1
    compile: bool = False
    skip_steps: int = 3
    best: str = ""
    hang_minutes: float = 30.0

    def __post_init__(self):
        for name in ("lr", "clip_norm", "weight_decay", "final_lr", "minutes", "decay_share", "momentum"):
            if not math.isfinite(getattr(self, name)):
                raise UserError(f"train.{name} is {getattr(self, name)}; it must be a finite number.")
        if self.steps is None and not self.minutes:
            object.__setattr__(self, "steps", DEFAULT_STEPS)
        least_one = ("batch_size", "checkpoint_every", "keep_checkpoints", "log_every", "eval_examples", "accumulate")
        for name in least_one:
            if getattr(self, name) < 1:
                raise UserError(f"train.{name} is {getattr(self, name)}; it must be at least 1.")
        if self.steps is not None and self.steps < 1:
            raise UserError(
                f"train.steps is {self.steps}; it must be at least 1. Without it (or with null) a run has "
                f"{DEFAULT_STEPS:,} steps, or with train.minutes as many as fit."
            )
        for name in (
            *("minutes", "warmup_steps", "eval_every", "workers", "threads", "weight_decay"),
            *("shard_above", "skip_steps", "hang_minutes"),
        ):
            if getattr(self, name) < 0:
                raise UserError(f"train.{name} is {getattr(self, name)}; it must not be negative.")
        for name in ("lr", "clip_norm"):
            if not getattr(self, name) > 0:
                raise UserError(f"train.{name} is {getattr(self, name)}; it must be above 0.")
        if not 0 <= self.final_lr <= 1:
            raise UserError(f"train.final_lr is {self.final_lr}; it is a share of the peak rate, from 0 to 1.")
        if self.final_lr and self.schedule in ("constant", "inverse-sqrt"):
            raise UserError(f"train.final_lr is {self.final_lr}; the {self.schedule} schedule has none. Leave it out.")
        if not self.final_lr and self.schedule == "tri-stage":
            raise UserError("train.final_lr is 0, which a tri-stage schedule never reaches; set it to 0.01, say.")
        if not 0 < self.decay_share <= 1:
            raise UserError(f"train.decay_share is {self.decay_share}; it must be above 0, up to 1.")
        if not all(0 <= beta < 1 for beta in self.betas):
            raise UserError(f"train.betas is {list(self.betas)}; both must be at least 0 and below 1.")
        if not 0 <= self.momentum < 1:
            raise UserError(f"train.momentum is {self.momentum}; it must be at least 0 and below 1.")
        if self.stop_and_go and not self.eval_every:
            raise UserError("train.stop_and_go goes by scores on held-out examples. Set train.eval_every, too.")
        # Orders and batches have seeds of 64 bits, which are made from it.
        if not -(2**40) < self.seed < 2**40:
            raise UserError(f"train.seed is {self.seed}; it must be between -2**40 and 2**40.")
        for group, scale in self.lr_scale.items():
            if not (scale >= 0 and math.isfinite(scale)):
                raise UserError(f"train.lr_scale: {group} is {scale}; it must be a finite number, not negative.")

    @property
    def number_of_steps(self) -> int:
        """``steps`` as a number: always known, except before the trial of a time budget."""
        assert self.steps is not None
        return self.steps
