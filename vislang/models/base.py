"""What every model that vislang trains has in common: how it is trained, saved and opened.

A model is a module whose ``forward(batch)`` gives its losses by name, so that anything that wraps modules can wrap it.
It knows nothing of processes, checkpoints or logging.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import safetensors.torch
import torch
from jaxtyping import Float
from torch import Tensor, nn

from vislang.capabilities import Progress
from vislang.errors import UserError
from vislang.example import Example
from vislang.models.loading import current_settings
from vislang.models.settings import Settings, settings_of


class TrainableModel(nn.Module):
    """A model for :mod:`vislang.train`. What most models leave empty has a default here.

    Attributes:
        collate: examples and a seed -> a batch of tensors, with the ``names`` of the examples. Whatever is random in a
            batch follows from the seed alone. An object that can be pickled, since worker processes run it.
        dtype: number type of the arithmetic; what trains is kept in float32.
    """

    collate: Callable[[Sequence[Example], int], Any]
    dtype: torch.dtype = torch.float32

    def forward(self, batch: Any) -> dict[str, Float[Tensor, ""]]:
        """The losses of a batch by name, scalars whose sum is minimised."""
        raise NotImplementedError

    def prepare(self, examples: Sequence[Example], progress: Progress | None = None) -> int:
        """Compute what is computed once for these examples; returns for how many media it was."""
        return 0

    def expand(self, examples: Sequence[Example]) -> Sequence[Example]:
        """The examples that a step draws from: the same ones, or a pair for each reference, say."""
        return examples

    def fit(self, examples: Sequence[Example]) -> None:
        """Measure on the prepared training examples what is measured and not learned, before the first step."""

    def after_step(self) -> None:
        """What follows an optimizer step: a teacher that moves, say."""

    def as_prepared(self, batch: Any) -> Any:
        """The batch as it is once :meth:`prepare` has been called for its examples."""
        return batch

    def contents(self, batch: Any) -> dict[str, int]:
        """How much a batch holds, by kind: ``tokens``, ``images`` and so on; for plans."""
        return {}

    def parts(self) -> dict[str, nn.Module]:
        """The parts of the model by name, for a table of their sizes: the modules that it consists of."""
        found: nn.Module = self
        while len(inner := dict(found.named_children())) == 1:
            (found,) = inner.values()
        return inner or {"model": found}

    def diagnostics(self) -> dict[str, float]:
        """Numbers worth watching in training, by name."""
        return {}

    def rate_group(self, name: str) -> str:
        """The group of a parameter, by its name: a recipe may give a group a learning rate of its own."""
        return "other"

    def decays(self, name: str, parameter: Tensor) -> bool:
        """Whether weight decay applies to a parameter: to matrices and kernels, not to biases, norms, embeddings, gates
        and single numbers."""
        return parameter.ndim > 1 and "embedding" not in name

    def parameter_groups(self) -> dict[str, list[tuple[str, nn.Parameter]]]:
        """The named parameters that train, by :meth:`rate_group`."""
        groups: dict[str, list[tuple[str, nn.Parameter]]] = {}
        for name, parameter in self.named_parameters():
            if parameter.requires_grad:
                groups.setdefault(self.rate_group(name), []).append((name, parameter))
        return groups

    def trainable_state(self) -> dict[str, Tensor]:
        """The tensors that a checkpoint must hold of the model, by name."""
        return {name: tensor.detach() for name, tensor in self.state_dict().items()}

    def load_trainable_state(self, state: Mapping[str, Tensor]) -> None:
        """Restore what :meth:`trainable_state` gave.

        Raises:
            UserError: names are missing or unexpected, or shapes differ; the message lists them.
        """
        copy_state(self.trainable_state(), state)

    def extra_state(self) -> dict[str, Any]:
        """What a checkpoint must hold beside tensors, as JSON values: a tokenizer, labels, tasks."""
        return {}

    def load_extra_state(self, state: Mapping[str, Any]) -> None:
        """Restore what :meth:`extra_state` gave; called before :meth:`load_trainable_state`, since shapes may depend on
        it."""

    @property
    def device(self) -> torch.device:
        """Where the model's parameters are."""
        return next(self.parameters()).device

    def save(self, folder: Path) -> None:
        """Write a folder that :func:`vislang.load` opens."""
        raise NotImplementedError


def copy_state(own: Mapping[str, Tensor], state: Mapping[str, Tensor]) -> None:
    """Copy tensors into others of the same names.

    Raises:
        UserError: names are missing or unexpected, or shapes differ; the message lists them.
    """
    faults = [f"missing {name}" for name in own if name not in state]
    faults += [f"unexpected {name}" for name in state if name not in own]
    faults += [
        f"{name} is {tuple(state[name].shape)}, not {tuple(own[name].shape)}"
        for name in own
        if name in state and state[name].shape != own[name].shape
    ]
    if faults:
        raise UserError("weights of another model: " + "; ".join(faults[:10]))
    with torch.no_grad():
        for name, tensor in own.items():
            tensor.copy_(state[name])


def fingerprint(state: Mapping[str, Tensor]) -> str:
    """SHA-256 over names, types, shapes and values of a state dict, in the order of names."""
    digest = hashlib.sha256()
    for name in sorted(state):
        tensor = state[name].detach().cpu().contiguous()
        digest.update(f"{name} {tensor.dtype} {tuple(tensor.shape)}".encode())
        digest.update(tensor.view(-1).view(torch.uint8).numpy().data)
    return digest.hexdigest()


def write_model(
    folder: Path | str, model: nn.Module, settings: Mapping[str, Any], state: Mapping[str, Tensor] | None = None
) -> None:
    """Write a model as ``config.json`` (its class, its settings and a hash of its weights) and ``model.safetensors``.

    Args:
        folder: is made, where it is missing.
        model: its class must be one of ``vislang.models``.
        settings: what its ``load`` needs to build it again.
        state: the weights to write; None writes all, shared ones once.
    """
    folder = Path(folder)
    folder.mkdir(parents=True, exist_ok=True)
    file = folder / "model.safetensors"
    if state is None:
        safetensors.torch.save_model(model, str(file), metadata={"format": "pt"})
        state = safetensors.torch.load_file(file)
    else:
        state = {name: tensor.detach().cpu().contiguous() for name, tensor in state.items()}
        safetensors.torch.save_file(state, file, metadata={"format": "pt"})
    config = {
        "model": f"{type(model).__module__}.{type(model).__name__}",
        "weights_sha256": fingerprint(state),
        **settings,
    }
    (folder / "config.json").write_text(json.dumps(config, indent=2) + "\n", encoding="utf-8")


def read_config(folder: Path) -> dict[str, Any]:
    """The settings that :func:`write_model` wrote, by the names that they have in this version."""
    return current_settings(json.loads((folder / "config.json").read_text(encoding="utf-8")))


def read_settings(kind: type[Settings], folder: Path) -> Settings:
    """The same as a dataclass with a field for each of them; see :func:`~vislang.models.settings.settings_of`.

    Raises:
        UserError: a setting is unknown, missing, or of another type.
    """
    values = read_config(folder)
    own = {name: value for name, value in values.items() if name not in ("model", "weights_sha256")}
    return settings_of(kind, own, folder / "config.json")


def read_weights(folder: Path) -> dict[str, Tensor]:
    """The weights that :func:`write_model` wrote.

    Raises:
        UserError: they are not the ones that were written: a file was damaged, or replaced.
    """
    file = folder / "model.safetensors"
    state = safetensors.torch.load_file(file)
    expected = read_config(folder).get("weights_sha256")
    # Models of version 0.1.0 have no hash.
    if expected is not None and fingerprint(state) != expected:
        raise UserError(
            f"{file}: damaged, or of another model: its weights are not those of config.json. Copy both again."
        )
    return state


def fill_model(model: nn.Module, folder: Path) -> None:
    """Read all weights of a folder into a model that was built by its config.

    Raises:
        UserError: they do not fit, or are damaged.
    """
    read_weights(folder)
    try:
        safetensors.torch.load_model(model, folder / "model.safetensors")
    except RuntimeError as error:
        raise UserError(f"{folder}: its weights do not fit its config. {error}") from None
