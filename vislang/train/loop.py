"""The training loop: any model that is :class:`~vislang.capabilities.Trainable`, one process."""

from __future__ import annotations

import math
import random
import signal
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Protocol

import numpy as np
import torch
from torch import Tensor, nn
from torch.utils.data import DataLoader, Dataset

from vislang.capabilities import Lesson, Trainable
from vislang.data.order import Shuffled
from vislang.errors import UserError
from vislang.train.checkpoint import CheckpointError, load_checkpoint, save_checkpoint
from vislang.train.config import TrainConfig
from vislang.train.log import MetricsLog
from vislang.train.schedule import StopAndGo, warmup_cosine


class TrainingDiverged(UserError):
    """The loss is no number any more; the message names the step and the records."""


class Monitor(Protocol):
    """Sees how training goes, to show it."""

    def step(self, step: int, row: dict[str, Any]) -> None:
        """After each step, with what was logged."""
        ...

    def evaluated(self, step: int, row: dict[str, Any]) -> None:
        """After each evaluation."""
        ...


@dataclass(frozen=True)
class Stream:
    """Something to learn from, beside other streams or alone.

    Attributes:
        name: what to call it in logs, where there are several.
        lessons: what it holds.
        weight: of its loss in the sum that a step minimises.
        batch_size: lessons a step.
        watched: the name of the figure among those that are evaluated that tells how well it goes, the higher the
            better; empty where there is none.
    """

    name: str
    lessons: Sequence[Lesson]
    weight: float
    batch_size: int
    watched: str = ""


@dataclass(frozen=True)
class Outcome:
    """How a run ended: ``steps`` done, ``seconds`` of training steps in all, whether it was ``interrupted``."""

    steps: int
    seconds: float
    interrupted: bool


def train(
    model: nn.Module,
    streams: Sequence[Stream],
    config: TrainConfig,
    folder: Path,
    monitor: Monitor,
    evaluate: Callable[[], dict[str, float]] = dict,
    resume: bool = False,
) -> Outcome:
    """Train, log, evaluate and keep checkpoints; go on exactly where a run stopped, if told to.

    Args:
        model: a module that is Trainable.
        streams: what to learn from. An optimizer step minimises the weighted sum over all of them (Flamingo,
            section 2.4: gradients are accumulated, not taken in turns), unless ``config.mixing`` says otherwise.
        config: how to train.
        folder: of the run: ``metrics.jsonl`` and ``checkpoints/`` are written into it.
        monitor: is told how it goes.
        evaluate: scores the model, by name; called every ``eval_every`` steps and at the end. What it draws from
            torch's generator changes nothing of the training.
        resume: go on from the folder's latest checkpoint.

    Returns:
        How it ended. After Ctrl-C or SIGTERM the state is saved first, and ``interrupted`` is true.

    Raises:
        TrainingDiverged: a loss or a gradient is NaN or infinite; the last checkpoint stays as it was.
        CheckpointError: nothing to resume, or the run was configured otherwise.
    """
    assert isinstance(model, Trainable)
    checkpoints = folder / "checkpoints"
    done, seconds = 0, 0.0
    if resume:
        state = load_checkpoint(checkpoints)
        _same_run(state["config"], config, checkpoints)
        done, seconds = state["step"], state["seconds"]
        model.load_trainable_state(state["model"])
    groups = model.parameter_groups()
    unknown = set(config.lr_scale) - set(groups)
    if unknown:
        raise UserError(f"train.lr_scale names {sorted(unknown)}; this model's groups are {sorted(groups)}.")
    optimizer = _optimizer(groups, config)
    parameters = [parameter for group in optimizer.param_groups for parameter in group["params"]]
    if resume:
        optimizer.load_state_dict(state["optimizer"])
        _set_random_state(state["random"])
    schedule = _stop_and_go(streams, config)
    if resume:
        schedule.load_state(state["schedule"])
    batches = _batches(model, streams, config, done)
    log = MetricsLog(folder / "metrics.jsonl", done)

    def save() -> None:
        state = {
            "seconds": seconds,
            "config": asdict(config),
            "model": model.trainable_state(),
            "optimizer": optimizer.state_dict(),
            "schedule": schedule.state(),
            "random": _random_state(),
        }
        save_checkpoint(checkpoints, done, state, config.keep_checkpoints)

    model.train()
    with _stop_signals() as stop:
        while done < config.steps and not stop.asked:
            started = time.perf_counter()
            per_stream = next(batches)
            factor = warmup_cosine(done, config.steps, config.warmup_steps, config.final_lr)
            for group in optimizer.param_groups:
                group["lr"] = config.lr * config.lr_scale.get(group["name"], 1.0) * factor
            optimizer.zero_grad(set_to_none=True)
            loss = 0.0
            seen: dict[str, float] = {}
            for stream, batch in zip(streams, per_stream, strict=True):
                turn = done // len(streams) if config.mixing == "round-robin" else done
                if batch is None or not schedule.takes_part(stream.name, turn):
                    continue
                losses = model.losses(batch)
                total = torch.stack(list(losses.values())).sum()
                (stream.weight * total if stream.weight != 1 else total).backward()
                values = {name: value.item() for name, value in losses.items()}
                _must_be_finite(done + 1, values, batch.names, checkpoints)
                loss += stream.weight * total.item()
                prefix = f"{stream.name}/" if len(streams) > 1 else ""
                seen |= {f"loss/{prefix}{name}": value for name, value in values.items()}
                seen |= {f"{prefix}{name}": value for name, value in model.diagnostics().items()}
            norm = nn.utils.clip_grad_norm_(parameters, config.clip_norm).item()
            names = [name for batch in per_stream if batch is not None for name in batch.names]
            _must_be_finite(done + 1, {"gradient norm": norm}, names, checkpoints)
            optimizer.step()
            model.after_step()
            done += 1
            seconds += time.perf_counter() - started
            row = {
                "step": done,
                "loss": loss,
                **seen,
                "gradient_norm": norm,
                "lr": config.lr * factor,
                **{f"lr/{name}": config.lr * scale * factor for name, scale in config.lr_scale.items()},
                "seconds": round(seconds, 3),
            }
            log.write(row)
            monitor.step(done, row)
            if config.eval_every and done % config.eval_every == 0:
                figures = _evaluate(model, evaluate, done, log, monitor)
                if config.stop_and_go:
                    schedule.update({s.name: figures[s.watched] for s in streams if s.watched in figures})
            if done % config.checkpoint_every == 0 or done == config.steps:
                save()
        if stop.asked and done % config.checkpoint_every:
            save()
    if not stop.asked and (not config.eval_every or done % config.eval_every):
        _evaluate(model, evaluate, done, log, monitor)
    log.close()
    model.eval()
    return Outcome(done, seconds, stop.asked)


def _evaluate(
    model: nn.Module, evaluate: Callable[[], dict[str, float]], step: int, log: MetricsLog, monitor: Monitor
) -> dict[str, float]:
    model.eval()
    with torch.random.fork_rng():
        figures = evaluate()
    model.train()
    if figures:
        row = {"step": step, **{f"eval/{name}": value for name, value in figures.items()}}
        log.write(row)
        monitor.evaluated(step, row)
    return figures


def _stop_and_go(streams: Sequence[Stream], config: TrainConfig) -> StopAndGo:
    """The schedule of the streams; without ``stop_and_go`` nothing ever rests.

    Raises:
        UserError: it is asked for, and nothing is watched.
    """
    if config.stop_and_go and not (config.eval_every and any(stream.watched for stream in streams)):
        raise UserError(
            "train.stop_and_go goes by scores on examples held out: set train.eval_every, and give tasks that have "
            "such scores."
        )
    return StopAndGo([stream.name for stream in streams])


def _optimizer(groups: dict[str, list[tuple[str, Tensor]]], config: TrainConfig) -> torch.optim.AdamW:
    described = [
        {
            "name": name,
            "params": [parameter for _, parameter in named],
            "weight_decay": config.weight_decay if name == "matrices" else 0.0,
        }
        for name, named in groups.items()
        if named
    ]
    return torch.optim.AdamW(described, lr=config.lr, betas=config.betas, fused=True)


class _Steps(Dataset):
    """The batches of each step, one a stream, None for streams whose turn it is not: a pure function of the seed and of
    the step.

    So a resumed run meets what it would have met, chance in the batches included, whoever prepares them.
    """

    def __init__(
        self, collate: Callable[[Sequence[Lesson], int], Any], streams: Sequence[Stream], seed: int, in_turn: bool
    ):
        self.collate = collate
        self.streams = streams
        self.seed = seed
        self.in_turn = in_turn
        self.orders = [Shuffled(len(stream.lessons), seed) for stream in streams]

    def __getitem__(self, step: int) -> list[Any] | UserError:
        try:
            return self._batches(step)
        except UserError as error:
            # Raised in another process it would come with that one's traceback in its message.
            return error

    def _batches(self, step: int) -> list[Any]:
        batches: list[Any] = []
        for number, (stream, order) in enumerate(zip(self.streams, self.orders, strict=True)):
            if self.in_turn and step % len(self.streams) != number:
                batches.append(None)
                continue
            first = (step // len(self.streams) if self.in_turn else step) * stream.batch_size
            lessons = [stream.lessons[order[first + place]] for place in range(stream.batch_size)]
            chance = (self.seed * 1_000_003 + step) * len(self.streams) + number
            batches.append(self.collate(lessons, chance))
        return batches


def _batches(model: Trainable, streams: Sequence[Stream], config: TrainConfig, done: int) -> Iterator[list[Any]]:
    loader = DataLoader(
        _Steps(model.collate, streams, config.seed, config.mixing == "round-robin"),
        batch_size=None,
        sampler=range(done, config.steps),
        collate_fn=_as_it_is,
        num_workers=config.workers,
        persistent_workers=config.workers > 0,
        # The loader draws a number when it starts; drawn from torch's own generator, a resumed run would differ.
        generator=torch.Generator(),
    )
    for batches in loader:
        if isinstance(batches, UserError):
            raise batches
        yield batches


def _as_it_is(batches: Any) -> Any:
    return batches


def _must_be_finite(step: int, values: dict[str, float], names: Sequence[str], checkpoints: Path) -> None:
    faults = [f"{name} is {value}" for name, value in values.items() if not math.isfinite(value)]
    if faults:
        shown = ", ".join(names[:8]) + (f" and {len(names) - 8} more" if len(names) > 8 else "")
        raise TrainingDiverged(
            f"step {step}: {'; '.join(faults)}. The records of this step: {shown}. Nothing was updated, and the "
            f"last checkpoint in {checkpoints} is from before. Lower train.lr, or look at these records."
        )


def _same_run(saved: dict[str, Any], config: TrainConfig, checkpoints: Path) -> None:
    """Refuse to go on under settings that would make another run of it."""
    free = {"eval_every", "eval_examples", "checkpoint_every", "keep_checkpoints", "log_every", "workers", "threads"}
    if config.stop_and_go:
        # What is evaluated, and when, decides which tasks rest.
        free -= {"eval_every", "eval_examples"}
    now = asdict(config)
    changed = [
        f"{name} was {saved[name]}, is {now[name]}"
        for name in now
        if name not in free and name in saved and _plain(saved[name]) != _plain(now[name])
    ]
    if changed:
        raise CheckpointError(
            f"{checkpoints} is of a run with other settings ({'; '.join(changed)}). Resume with the same, or "
            "start a new run in another folder."
        )


def _plain(value: Any) -> Any:
    return list(value) if isinstance(value, tuple) else value


def _random_state() -> dict[str, Any]:
    """The state of every generator that a step may draw from, in types that are safe to read back."""
    version, internal, gauss = random.getstate()
    name, keys, position, has_gauss, cached = np.random.get_state(legacy=True)
    assert isinstance(keys, np.ndarray)
    return {
        "torch": torch.get_rng_state(),
        "python": [version, list(internal), gauss],
        "numpy": [str(name), keys.tolist(), int(position), int(has_gauss), float(cached)],
    }


def _set_random_state(state: dict[str, Any]) -> None:
    torch.set_rng_state(state["torch"])
    version, internal, gauss = state["python"]
    random.setstate((version, tuple(internal), gauss))
    name, keys, position, has_gauss, cached = state["numpy"]
    np.random.set_state((name, np.array(keys, dtype=np.uint32), position, has_gauss, cached))


class _Stop:
    asked = False


@contextmanager
def _stop_signals():
    """Turn Ctrl-C and SIGTERM into a wish that the loop grants after the step; a second Ctrl-C insists."""
    stop = _Stop()
    before = {}

    def ask(number, frame):
        if stop.asked:
            raise KeyboardInterrupt
        stop.asked = True

    try:
        for number in (signal.SIGINT, signal.SIGTERM):
            before[number] = signal.signal(number, ask)
    except ValueError:
        # Only the main thread may set handlers; elsewhere the caller stops the run its own way.
        before.clear()
    try:
        yield stop
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
