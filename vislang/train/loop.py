"""The training loop: any model that is Trainable, on any device, in any number of processes.

:func:`train` reads as the algorithm. The rest is in components of their own: the batches of a step
(:mod:`~vislang.train.batches`), replicas and shards (:mod:`~vislang.train.parallel`), checkpoints
(:mod:`~vislang.train.checkpoint`), numbers on their way to the log (:mod:`~vislang.train.rows`).
"""

from __future__ import annotations

import copy
import sys
import time
import warnings
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from vislang.capabilities import Trainable
from vislang.data.bad_records import BadRecords
from vislang.data.indexed import expanded
from vislang.errors import UserError
from vislang.nn.device import to_device
from vislang.train.batches import Part, Steps, Stream, batches
from vislang.train.best import Best
from vislang.train.budget import Budget, steps_within
from vislang.train.checkpoint import Checkpoints
from vislang.train.config import TrainConfig
from vislang.train.device import device_of, random_state, seed_everything, set_random_state
from vislang.train.freezing import freeze
from vislang.train.monitor import Monitor
from vislang.train.optimizer import Optimizer
from vislang.train.parallel import Engine, engine_for, home_of, weights
from vislang.train.processes import Processes, current
from vislang.train.rows import StepNumbers, StepSize
from vislang.train.schedule import StopAndGo, rate_factor
from vislang.train.signals import stop_signals
from vislang.train.speed import Stopwatch
from vislang.train.state import ResumeNotice, check_same_run, restore, seed_of, tensors_of
from vislang.train.step_log import StepLog
from vislang.train.watchdog import Watchdog


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
    bad_records: BadRecords | None = None,
    budgeted: Callable[[Budget], None] | None = None,
) -> Outcome:
    """Train, log, evaluate and keep checkpoints; with ``resume``, continue exactly where a run stopped.

    Every process of a run (:func:`vislang.train.processes.joined`) calls this with the same arguments. The first one
    writes the log, shows progress and evaluates.

    Args:
        model: a module that is Trainable; it is moved to the device of ``config``.
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
        bad_records: whether records that turn out to be bad are replaced, and their list; None replaces none.
        budgeted: with ``config.minutes``, called with the chosen number of steps before the first step. The run is the
            same as with this number of steps and no time budget.

    Returns:
        How it ended. After Ctrl-C or SIGTERM the state is saved first, and ``interrupted`` is true, also if all steps
        were done.

    Raises:
        TrainingDiverged: too many gradients in a row are NaN or infinite; the last checkpoint stays as it was.
        CheckpointError: all checkpoints are damaged, the run had other settings, or a checkpoint cannot be written.
        DataError: too many records are bad.
    """
    assert isinstance(model, Trainable)
    processes = current()
    device = device_of(config.device, processes.local_rank)
    streams = [replace(stream, examples=expanded(stream.examples, model.expand)) for stream in streams]
    bad_records = bad_records or BadRecords()
    several = len(streams) > 1
    _check_settings(model, streams, config)
    checkpoints = Checkpoints(folder / "checkpoints", processes, config.keep_checkpoints)
    saved = checkpoints.latest() if resume else None
    if saved is not None:
        if config.minutes:
            # The number of steps was chosen when the run started.
            config = replace(config, steps=saved.values["config"]["steps"], minutes=0.0)
        check_same_run(saved, config)
        model.load_extra_state(saved.values["extra"])
    elif resume:
        warnings.warn(f"{folder}: stopped before its first checkpoint; starts from step 0.", ResumeNotice, stacklevel=2)
    # Only now: heads may have been made for tasks of the data or of the checkpoint.
    model.to(home_of(model, config, processes, device))
    freeze(model, config.freeze)
    if config.gradient_checkpointing:
        model.recompute_activations()

    dtype = getattr(model, "dtype", torch.float32)
    engine = engine_for(model, config.parallel, processes, config.shard_above, dtype, device)
    if config.compile:
        engine.compile()
    steps = Steps(
        *(model.collate, streams, config.seed, config.mixing == "round-robin"),
        *(processes.rank, processes.count, config.accumulate, bad_records.skip),
    )
    if config.minutes:
        budget = _steps_within(engine, steps, streams, config, device)
        config = replace(config, steps=budget.steps, minutes=0.0)
        if budgeted is not None:
            budgeted(budget)
    end = config.number_of_steps
    optimizer = Optimizer(engine.model, config)
    schedule = StopAndGo([stream.name for stream in streams])
    done, clock = 0, Stopwatch()
    if saved is not None:
        done, clock = saved.step, Stopwatch(saved.values["seconds"])
        schedule.load_state(saved.values["schedule"])
        restore(saved, engine, optimizer, device, config)
    elif processes.rank:
        # What processes draw inside of a forward pass, dropout say, should differ.
        seed_everything(seed_of(config, 0, processes.rank))
    checkpoints.check(sum(tensor.nbytes for tensor in tensors_of(engine, optimizer, device).values()))
    # The first process writes the list, the others append to it.
    processes.from_first(lambda: bad_records.start(folder, done))
    if not processes.is_first:
        bad_records.start(folder, done, append_only=True)
    upcoming = batches(steps, done, end, config.workers, bad_records)
    log = StepLog(folder, done, model, streams, config, processes, device, monitor, clock)
    known = checkpoints.best() if saved is not None else None
    # If the best checkpoint was damaged, the run was resumed from an earlier step, and will reach its step again.
    best = Best(known if known is not None and known["step"] <= done else None, streams, config)
    watchdog = Watchdog(config.hang_minutes if processes.count > 1 else 0, processes)

    def save(found_best: dict[str, Any] | None = None) -> None:
        values = {
            "seconds": clock.seconds,
            "config": asdict(config),
            "extra": engine.model.extra_state(),
            "schedule": schedule.state(),
            "processes": processes.count,
            "optimizer": sorted(optimizer.state()),
        }
        checkpoints.save(done, tensors_of(engine, optimizer, device), values, found_best)

    model.train()
    engine.model.train()
    saved_at = done
    with stop_signals() as stop, checkpoints:
        while done < end:
            clock.start()
            with watchdog.step(done + 1):
                taking_part = _taking_part(model, streams, next(upcoming), schedule, done, config)
                stopped, totals, size = _agreed(stop.requested, taking_part, processes)
                if stopped:
                    break
                factor = rate_factor(config, done)
                numbers = StepNumbers(done + 1, size)
                with log.speed.counted(size.streams):
                    norm = _update(engine, optimizer, taking_part, totals, device, numbers, several, factor)
                done += 1
            log.add(numbers, norm, factor)
            evaluates = done == end or (config.eval_every and done % config.eval_every == 0)
            saves = done == end or done % config.checkpoint_every == 0
            if evaluates or saves or device.type == "cpu" or done % config.log_every == 0:
                log.write()
            clock.stop()
            found_best = None
            if evaluates:
                engine.complete()
                figures = processes.from_first(lambda: _evaluate(model, evaluate, device))
                log.evaluated(done, figures)
                if config.stop_and_go and done % config.eval_every == 0:
                    schedule.update({s.name: figures[s.watched] for s in streams if s.watched in figures})
                found_best = best.update(done, figures)
            # A step that was skipped leaves nothing new to be saved.
            if (saves and not log.skipped_in_a_row) or found_best or done == end:
                save(found_best)
                saved_at = done
        if done < end:
            log.write()
            if saved_at < done:
                save()
        # A signal must not end the process before the last checkpoint is written.
        checkpoints.wait()
        interrupted = processes.sum([float(stop.requested)])[0] > 0
    engine.complete()
    log.close()
    model.eval()
    return Outcome(done, clock.seconds, interrupted)


@dataclass(frozen=True)
class _TakingPart:
    """A stream in a step, and this process's parts of its batch."""

    stream: Stream
    parts: list[Part]


def _taking_part(
    model: Trainable,
    streams: Sequence[Stream],
    drawn: Sequence[list[tuple[Any, int]] | None],
    schedule: StopAndGo,
    step: int,
    config: TrainConfig,
) -> list[_TakingPart]:
    """The streams of a step: all, or the one whose turn it is, without those that rest."""
    turn = step // len(streams) if config.mixing == "round-robin" else step
    return [
        _TakingPart(stream, [Part(batch, examples, model.loss_counts(batch)) for batch, examples in own])
        for stream, own in zip(streams, drawn, strict=True)
        if own is not None and schedule.takes_part(stream.name, turn)
    ]


def _agreed(
    stop: bool, taking_part: Sequence[_TakingPart], processes: Processes
) -> tuple[bool, list[dict[str, float]], StepSize]:
    """What all processes must know before a step: whether any of them was asked to stop, how many items each loss of
    the whole batches is a mean over, and the size of the step. One exchange between hosts; no device is waited for."""
    names = [list(taking.parts[0].counts) for taking in taking_part]
    own = [
        float(sum(part.counts[name] or 0 for part in taking.parts if part.examples))
        for taking, counted in zip(taking_part, names, strict=True)
        for name in counted
    ]
    own_tokens = sum(part.tokens for taking in taking_part for part in taking.parts)
    stopped, tokens, *totals = processes.sum([float(stop), float(own_tokens), *own])
    streams = tuple(taking.stream.name for taking in taking_part)
    size = StepSize(streams, sum(taking.stream.batch_size for taking in taking_part), round(tokens))
    found = iter(totals)
    return stopped > 0, [{name: next(found) for name in counted} for counted in names], size


def _update(
    engine: Engine,
    optimizer: Optimizer,
    taking_part: Sequence[_TakingPart],
    totals: Sequence[Mapping[str, float]],
    device: torch.device,
    numbers: StepNumbers,
    several: bool,
    factor: float,
) -> Tensor:
    """One optimizer step; returns the norm of the gradient. If it is not finite, no parameter is updated."""
    optimizer.zero_grad()
    _gradients(engine, taking_part, totals, device, numbers, several)
    norm = engine.clip(optimizer.config.clip_norm)
    optimizer.step(factor, skip=~norm.isfinite())
    engine.model.after_step()
    return norm


def _steps_within(
    engine: Engine, steps: Steps, streams: Sequence[Stream], config: TrainConfig, device: torch.device
) -> Budget:
    """How many steps fit into the time budget of a run. The trial leaves model and random generators unchanged."""
    model, processes = engine.model, engine.processes
    before = {name: tensor.clone() for name, tensor in model.trainable_state().items()}
    extra, random = copy.deepcopy(model.extra_state()), random_state(device)
    optimizer, schedule = Optimizer(model, config), StopAndGo([stream.name for stream in streams])
    upcoming = batches(steps, 0, sys.maxsize, config.workers)

    def try_step(step: int) -> None:
        taking_part = _taking_part(model, streams, next(upcoming), schedule, step, config)
        _, totals, size = _agreed(False, taking_part, processes)
        numbers = StepNumbers(step + 1, size)
        norm = _update(engine, optimizer, taking_part, totals, device, numbers, len(streams) > 1, factor=0.0)
        # The clock is read once the device is done.
        norm.item()

    model.train()
    turns = len(streams) if config.mixing == "round-robin" else 1
    # All processes go by the clock of the first.
    budget = steps_within(
        config.minutes, config.steps, try_step, turns, lambda: processes.from_first(time.perf_counter)
    )
    optimizer.zero_grad()
    if model.extra_state() != extra:
        model.load_extra_state(extra)
    model.load_trainable_state(before)
    set_random_state(random, device)
    return budget


def _gradients(
    engine: Engine,
    taking_part: Sequence[_TakingPart],
    totals: Sequence[Mapping[str, float]],
    device: torch.device,
    numbers: StepNumbers,
    several: bool,
) -> None:
    """The gradient of a step's loss, and its numbers: each part forward and backward, then one synchronisation."""
    passes = [
        (taking.stream, total, part) for taking, total in zip(taking_part, totals, strict=True) for part in taking.parts
    ]
    for number, (stream, total, part) in enumerate(passes, start=1):
        with engine.last(number == len(passes)):
            losses = engine.losses(to_device(part.batch, device))
            counted = weights(losses, part, total, stream.batch_size)
            shares = {name: counted[name] * loss for name, loss in losses.items()}
            loss = stream.weight * torch.stack(list(shares.values())).sum()
            engine.backward(loss)
        prefix = f"{stream.name}/" if several else ""
        logged = {"loss": loss.detach()} | {f"loss/{prefix}{n}": share.detach() for n, share in shares.items()}
        numbers.add(logged)
        numbers.names.append((list(logged), part.batch.names))
        for name, value in engine.model.diagnostics().items():
            if isinstance(value, Tensor):
                numbers.add({f"{prefix}{name}": value.detach() * (part.examples / stream.batch_size)})
            else:
                numbers.same[f"{prefix}{name}"] = value


def _evaluate(model: nn.Module, evaluate: Callable[[], dict[str, float]], device: torch.device) -> dict[str, float]:
    model.eval()
    with torch.random.fork_rng([device] if device.type == "cuda" else []):
        figures = evaluate()
    model.train()
    return figures


def _check_settings(model: Trainable, streams: Sequence[Stream], config: TrainConfig) -> None:
    """Raise an error for settings that do not go together.

    Raises:
        UserError: the message names them.
    """
    if config.stop_and_go and not any(stream.watched for stream in streams):
        raise UserError(
            "train.stop_and_go goes by scores on held-out examples, and no stream of this run has such scores."
        )
    if config.accumulate > 1 and model.needs_whole_batch:
        raise UserError(
            f"train.accumulate is {config.accumulate}, and this model compares the examples of a batch with each "
            "other. Set it to 1; a dual encoder saves memory by model.chunk."
        )
