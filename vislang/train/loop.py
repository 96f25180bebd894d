"""The training loop: any model that is :class:`~vislang.capabilities.Trainable`, one process."""

from __future__ import annotations

import math
import random
import signal
import time
import warnings
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any, Protocol

import numpy as np
import torch
from torch import nn
from torch.utils.data import DataLoader, Dataset

from vislang.capabilities import Trainable
from vislang.data.order import Shuffled
from vislang.errors import UserError
from vislang.example import Example
from vislang.train.checkpoint import CheckpointError, load_checkpoint, save_checkpoint
from vislang.train.config import TrainConfig
from vislang.train.log import MetricsLog
from vislang.train.optimizer import Optimizer
from vislang.train.schedule import StopAndGo, warmup_cosine


class TrainingDiverged(UserError):
    """A loss or a gradient is NaN or infinite; the message names the step and the records."""


class ResumeNotice(UserWarning):
    """A run continues otherwise than one would expect: from its start, or for more steps."""


class Monitor(Protocol):
    """Shows how training goes."""

    def step(self, step: int, row: dict[str, Any]) -> None:
        """Called after each step, with what was logged."""
        ...

    def evaluated(self, step: int, row: dict[str, Any]) -> None:
        """Called after each evaluation."""
        ...


@dataclass(frozen=True)
class Stream:
    """Examples to learn from, beside other streams or alone.

    Attributes:
        name: what to call it in logs, where there are several.
        examples: what it holds.
        weight: of its loss in the sum that a step minimises.
        batch_size: examples a step.
        watched: the name of the evaluated figure that shows how well it is learned, the higher the better; empty where
            there is none.
    """

    name: str
    examples: Sequence[Example]
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
    """Train, log, evaluate and keep checkpoints; with ``resume``, continue exactly where a run stopped.

    Args:
        model: a module that is Trainable.
        streams: what to learn from. An optimizer step minimises the weighted sum over all of them (Flamingo,
            section 2.4: gradients are accumulated, not taken in turns), unless ``config.mixing`` says otherwise.
        config: how to train.
        folder: of the run: ``metrics.jsonl`` and ``checkpoints/`` are written into it.
        monitor: shows how it goes.
        evaluate: scores the model, by name; called every ``eval_every`` steps and at the end. What it draws from
            torch's generator does not change the training.
        resume: continue from the folder's latest checkpoint. Without one (see
            :func:`~vislang.train.checkpoint.list_checkpoints`) the run starts from step 0, and the caller must have
            prepared and fitted the model as for a new run. More ``steps`` than before extend the run.

    Returns:
        How it ended. After Ctrl-C or SIGTERM the state is saved first, and ``interrupted`` is true.

    Raises:
        TrainingDiverged: a loss or a gradient is NaN or infinite; the last checkpoint stays as it was.
        CheckpointError: all checkpoints are damaged, or the run had other settings.
    """
    assert isinstance(model, Trainable)
    streams = [replace(stream, examples=model.expand(stream.examples)) for stream in streams]
    checkpoints = folder / "checkpoints"
    done, seconds = 0, 0.0
    state = load_checkpoint(checkpoints) if resume else None
    if resume and state is None:
        warnings.warn(f"{folder}: stopped before its first checkpoint; starts from step 0.", ResumeNotice, stacklevel=2)
    if state is not None:
        _check_same_run(state["config"], config, checkpoints)
        done, seconds = state["step"], state["seconds"]
        model.load_extra_state(state["extra"])
        model.load_trainable_state(state["model"])
    optimizer = Optimizer(model, config)
    schedule = _stop_and_go(streams, config)
    if state is not None:
        optimizer.load_state(state["optimizer"])
        schedule.load_state(state["schedule"])
        _set_random_state(state["random"])
    parameters = list(optimizer.named.values())
    batches = _batches(model, streams, config, done)
    log = MetricsLog(folder / "metrics.jsonl", done)

    def save() -> None:
        state = {
            "seconds": seconds,
            "config": asdict(config),
            "model": model.trainable_state(),
            "extra": model.extra_state(),
            "optimizer": optimizer.state(),
            "schedule": schedule.state(),
            "random": _random_state(),
        }
        save_checkpoint(checkpoints, done, state, config.keep_checkpoints)

    model.train()
    with _stop_signals() as stop:
        while done < config.steps and not stop.requested:
            started = time.perf_counter()
            per_stream = next(batches)
            factor = warmup_cosine(done, config.steps, config.warmup_steps, config.final_lr)
            optimizer.zero_grad()
            loss = 0.0
            seen: dict[str, float] = {}
            for stream, batch in zip(streams, per_stream, strict=True):
                turn = done // len(streams) if config.mixing == "round-robin" else done
                if batch is None or not schedule.takes_part(stream.name, turn):
                    continue
                losses = model(batch)
                total = torch.stack(list(losses.values())).sum()
                (stream.weight * total if stream.weight != 1 else total).backward()
                values = {name: value.item() for name, value in losses.items()}
                _check_finite(done + 1, values, batch.names, checkpoints)
                loss += stream.weight * total.item()
                prefix = f"{stream.name}/" if len(streams) > 1 else ""
                seen |= {f"loss/{prefix}{name}": value for name, value in values.items()}
                seen |= {f"{prefix}{name}": value for name, value in model.diagnostics().items()}
            norm = nn.utils.clip_grad_norm_(parameters, config.clip_norm).item()
            names = [name for batch in per_stream if batch is not None for name in batch.names]
            _check_finite(done + 1, {"gradient norm": norm}, names, checkpoints)
            optimizer.step(factor)
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
        if stop.requested and done % config.checkpoint_every:
            save()
    if not stop.requested and (not config.eval_every or done % config.eval_every):
        _evaluate(model, evaluate, done, log, monitor)
    log.close()
    model.eval()
    return Outcome(done, seconds, stop.requested)


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
    """The schedule of the streams; without ``stop_and_go`` none ever rests.

    Raises:
        UserError: it is wanted, and no figure is watched.
    """
    if config.stop_and_go and not any(stream.watched for stream in streams):
        raise UserError(
            "train.stop_and_go goes by scores on held-out examples, and no stream of this run has such scores."
        )
    return StopAndGo([stream.name for stream in streams])


class _Steps(Dataset):
    """The batches of each step, one a stream, None for streams whose turn it is not: a pure function of the seed and of
    the step.

    So a resumed run gets the batches that it would have had, random draws included, whichever process prepares them.
    """

    def __init__(
        self, collate: Callable[[Sequence[Example], int], Any], streams: Sequence[Stream], seed: int, in_turn: bool
    ):
        self.collate = collate
        self.streams = streams
        self.seed = seed
        self.in_turn = in_turn
        self.orders = [Shuffled(len(stream.examples), seed) for stream in streams]

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
            examples = [stream.examples[order[index]] for index in range(first, first + stream.batch_size)]
            seed = (self.seed * 1_000_003 + step) * len(self.streams) + number
            batches.append(self.collate(examples, seed))
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


def _check_finite(step: int, values: dict[str, float], names: Sequence[str], checkpoints: Path) -> None:
    faults = [f"{name} is {value}" for name, value in values.items() if not math.isfinite(value)]
    if faults:
        shown = ", ".join(names[:8]) + (f" and {len(names) - 8} more" if len(names) > 8 else "")
        raise TrainingDiverged(
            f"step {step}: {'; '.join(faults)}. The records of this step: {shown}. Nothing was updated, and the "
            f"last checkpoint in {checkpoints} is from before. Lower train.lr, or look at these records."
        )


def _check_same_run(saved: dict[str, Any], config: TrainConfig, checkpoints: Path) -> None:
    """Check that the settings are those of the run that is resumed; more steps extend it.

    Raises:
        CheckpointError: they would make another run of it.
    """
    if changed := changed_settings(saved, config):
        raise CheckpointError(
            f"{checkpoints} is of a run with other settings ({'; '.join(changed)}). Resume with the same, or "
            "start a new run in another folder."
        )
    if config.steps > saved["steps"]:
        warnings.warn(
            f"{checkpoints.parent}: extended from {saved['steps']} to {config.steps} steps; the rate continues as in a "
            "run of that length.",
            ResumeNotice,
            stacklevel=3,
        )


def changed_settings(saved: Mapping[str, Any], config: TrainConfig) -> list[str]:
    """What differs between recorded settings and those of now, and would make another run of it; more steps do not."""
    free = {"eval_every", "eval_examples", "checkpoint_every", "keep_checkpoints", "log_every", "workers", "threads"}
    if config.stop_and_go:
        # What is evaluated, and when, decides which tasks rest.
        free -= {"eval_every", "eval_examples"}
    if config.steps > saved.get("steps", 0):
        free = free | {"steps"}
    now = asdict(config)
    return [
        f"{name} was {saved[name]}, is {now[name]}"
        for name in now
        if name not in free and name in saved and _plain(saved[name]) != _plain(now[name])
    ]


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
    requested = False


@contextmanager
def _stop_signals():
    """Turn Ctrl-C and SIGTERM into a request that the loop heeds after the step; a second Ctrl-C stops at once."""
    stop = _Stop()
    before = {}

    def ask(number, frame):
        if stop.requested:
            raise KeyboardInterrupt
        stop.requested = True

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
