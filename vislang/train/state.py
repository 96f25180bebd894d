"""All that a run needs to continue: what a checkpoint holds of it, and how it is brought back."""

from __future__ import annotations

import warnings
from collections.abc import Mapping
from dataclasses import asdict
from typing import Any

import torch
from torch import Tensor

from vislang.train.checkpoint import CheckpointError, Saved
from vislang.train.config import TrainConfig
from vislang.train.device import random_state, seed_everything, set_random_state
from vislang.train.optimizer import Optimizer
from vislang.train.parallel import Engine


class ResumeNotice(UserWarning):
    """A run continues otherwise than one would expect: from its start, or for more steps."""


def tensors_of(engine: Engine, optimizer: Optimizer, device: torch.device) -> dict[str, Tensor]:
    """Every tensor of a checkpoint, by name."""
    tensors = {f"model/{name}": tensor for name, tensor in engine.model.trainable_state().items()}
    for name, moments in optimizer.state().items():
        tensors |= {f"optimizer/{name}/{moment}": tensor for moment, tensor in moments.items()}
    rank = engine.processes.rank
    return tensors | {f"random/{rank}/{name}": state for name, state in random_state(device).items()}


def restore(saved: Saved, engine: Engine, optimizer: Optimizer, device: torch.device, config: TrainConfig) -> None:
    """Bring model, moments and generators to where a checkpoint has them.

    Raises:
        CheckpointError: it lacks something.
        UserError: it is of another model.
    """
    if saved.old is not None:
        engine.model.load_trainable_state(saved.old["model"])
        optimizer.load_state(saved.old["optimizer"])
        set_random_state(saved.old["random"], device)
        return
    host, own = torch.device("cpu"), f"random/{engine.processes.rank}/"
    model = {f"model/{name}": tensor for name, tensor in engine.model.trainable_state().items()}
    into: dict[str, Tensor] = {name: tensor for name, tensor in model.items() if name in saved.sizes}
    for name in saved.sizes:
        kind, _, rest = name.partition("/")
        if kind == "model" and name not in into:
            into[name] = torch.empty(0, device=device)
        elif kind == "optimizer":
            parameter = optimizer.named.get(rest.rpartition("/")[0])
            if parameter is None:
                raise CheckpointError(f"{saved.path}: has moments of {rest}, which this model does not train.")
            # Moments have the shape and the shards of their parameter, all but the number of the step.
            fits = saved.sizes[name][0] == parameter.shape and parameter.ndim > 0
            into[name] = parameter.detach() if fits else torch.empty(0, device=device)
        elif name.startswith(own):
            into[name] = torch.empty(0, device=host)
    read = saved.read(into)
    engine.model.load_trainable_state({n.partition("/")[2]: t for n, t in read.items() if n.startswith("model/")})
    moments: dict[str, dict[str, Tensor]] = {}
    for name, tensor in read.items():
        if name.startswith("optimizer/"):
            parameter_name, _, moment = name.partition("/")[2].rpartition("/")
            moments.setdefault(parameter_name, {})[moment] = tensor
    if missing := set(saved.values["optimizer"]) ^ set(moments):
        raise CheckpointError(f"{saved.path}: lacks the moments of {', '.join(sorted(missing)[:5])}.")
    optimizer.load_state(moments)
    state = {name.removeprefix(own): tensor for name, tensor in read.items() if name.startswith(own)}
    if state:
        set_random_state(state, device)
    else:
        # The run had fewer processes.
        seed_everything(seed_of(config, saved.step, engine.processes.rank))


def seed_of(config: TrainConfig, step: int, rank: int) -> int:
    """Where the generators of a process begin that has no state of its own to continue from."""
    return (config.seed * 1_000_003 + step) * 4099 + rank


def check_same_run(saved: Saved, config: TrainConfig) -> None:
    """Check that the settings are those of the run that is resumed; more steps extend it.

    Raises:
        CheckpointError: they would make another run of it.
    """
    before, checkpoints = saved.values["config"], saved.path.parent
    if changed := changed_settings(before, config):
        raise CheckpointError(
            f"{checkpoints} is of a run with other settings ({'; '.join(changed)}). Resume with the same, or "
            "start a new run in another folder."
        )
    if config.number_of_steps > before["steps"]:
        warnings.warn(
            f"{checkpoints.parent}: extended from {before['steps']} to {config.steps} steps; the rate continues as in "
            "a run of that length.",
            ResumeNotice,
            stacklevel=3,
        )


FREE = {
    # The number of steps that was chosen for a time budget is compared itself.
    *("minutes", "gradient_checkpointing"),
    *("eval_every", "eval_examples", "checkpoint_every", "keep_checkpoints", "best", "log_every"),
    *("workers", "threads", "device", "parallel", "shard_above", "accumulate", "compile", "skip_steps", "hang_minutes"),
}
"""Settings that may change when a run is resumed: they say how and where it runs, and not what it computes."""


def changed_settings(saved: Mapping[str, Any], config: TrainConfig) -> list[str]:
    """What differs between recorded settings and those of now, and would make another run of it; more steps do not."""
    free = FREE
    if config.stop_and_go:
        # What is evaluated, and when, decides which tasks rest.
        free = free - {"eval_every", "eval_examples"}
    # A run that was stopped in the trial of its time budget has no number yet.
    if (config.steps or 0) > (saved.get("steps") or 0):
        free = free | {"steps"}
    now = asdict(config)
    return [
        f"{name} was {saved[name]}, is {now[name]}"
        for name in now
        if name not in free and name in saved and _plain(saved[name]) != _plain(now[name])
    ]


def _plain(value: Any) -> Any:
    return list(value) if isinstance(value, tuple) else value
