"""What all trained models have in common: the interface for training, and how models are saved and opened.

A model is a module whose ``forward(batch)`` returns its losses by name, so DDP, FSDP and ``torch.compile`` can wrap it.
It knows nothing about processes, checkpoints or logging.
"""

from __future__ import annotations

import hashlib
import json
from abc import ABC, abstractmethod
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
from vislang.files import whole_file, write_text
from vislang.models.loading import current_settings
from vislang.models.settings import Settings, settings_of
from vislang.nn.recompute import Recomputable
from vislang.nn.transformer import EncoderBlock


class TrainableModel(nn.Module, ABC):
    """A model for :mod:`vislang.train`, with defaults for the methods that most models do not need.

    Attributes:
        collate: (examples, seed, index of the first example) -> a batch of tensors on the host, with the ``names`` of
            the examples. Random choices for an example depend only on the seed and its index, so a batch can be made
            in parts. It must be picklable, because worker processes call it. A batch of texts may have ``tokens``,
            their number without padding; then the log has tokens per second.
        needs_whole_batch: whether a loss compares the examples of a batch with each other, so that it cannot be
            computed from parts of the batch.
    """

    collate: Callable[..., Any]
    needs_whole_batch: bool = False

    @abstractmethod
    def forward(self, batch: Any) -> dict[str, Float[Tensor, ""]]:
        """The losses of a batch by name: scalars whose sum is minimised."""

    def loss_counts(self, batch: Any) -> Mapping[str, int | None]:
        """For each loss of a batch, the number of items (tokens, positions, examples) of its mean; None for a sum.

        With these numbers, the losses of parts of a batch, in several processes or in micro-batches, are averaged: each
        part has the weight of its share of items. A loss without a number is a mean over examples.
        """
        return {}

    def prepare(self, examples: Sequence[Example], progress: Progress | None = None) -> int:
        """Compute and cache features of these examples; returns the number of media that were processed."""
        return 0

    def expand(self, examples: Sequence[Example]) -> Sequence[Example]:
        """The training examples; for example, a model may make one of each reference of a caption."""
        return examples

    def fit(self, examples: Sequence[Example]) -> None:
        """Compute statistics, vocabularies and labels from the prepared training examples, before the first step."""

    def after_step(self) -> None:
        """Called after each optimizer step, for example to update a teacher."""

    def as_prepared(self, batch: Any) -> Any:
        """The batch as :meth:`prepare` would let it be: with cached features, where the model caches them."""
        return batch

    def contents(self, batch: Any) -> dict[str, int]:
        """How much a batch contains, by kind: ``tokens``, ``images`` and so on; for plans."""
        return {}

    def parts(self) -> dict[str, nn.Module]:
        """The parts of the model by name, for a table of their sizes. By default these are its submodules, or those of
        its only submodule."""
        found: nn.Module = self
        while len(inner := dict(found.named_children())) == 1:
            (found,) = inner.values()
        return inner or {"model": found}

    def diagnostics(self) -> dict[str, float | Tensor]:
        """Quantities to log during training, by name; tensors stay on the device until the log reads them."""
        return {}

    def check(self, diagnostics: Mapping[str, float], updates: int) -> None:
        """Called with the diagnostics once they are on the host; raises an error where training should stop.

        Args:
            diagnostics: by name.
            updates: optimizer steps before the one that they are of.
        """

    def rate_group(self, name: str) -> str:
        """The group of a parameter by its name; a recipe may scale the learning rate of a group."""
        return "other"

    def decays(self, name: str, parameter: Tensor) -> bool:
        """Whether weight decay applies to a parameter: to matrices and kernels, not to biases, norms, embeddings and
        scalars."""
        return parameter.ndim > 1 and "embedding" not in name

    def is_hidden_matrix(self, name: str, parameter: Tensor) -> bool:
        """Whether a parameter is the matrix of a hidden linear layer, which Muon may update.

        Embeddings do not count, nor do the layers of heads, which give a model's output (Jordan et al. 2024).
        """
        *path, own = name.split(".")
        hidden = own == "weight" and not {"head", "heads"} & set(path)
        return hidden and isinstance(self.get_submodule(".".join(path)), nn.Linear)

    def recompute_activations(self) -> None:
        """From now on, keep only the inputs of blocks for the backward pass, and recompute their inner activations."""
        for module in self.modules():
            if isinstance(module, Recomputable):
                module.recompute = True

    def parameter_groups(self) -> dict[str, list[tuple[str, nn.Parameter]]]:
        """The named parameters that are trained, by :meth:`rate_group`."""
        groups: dict[str, list[tuple[str, nn.Parameter]]] = {}
        for name, parameter in self.named_parameters():
            if parameter.requires_grad:
                groups.setdefault(self.rate_group(name), []).append((name, parameter))
        return groups

    def repeated_blocks(self) -> list[nn.Module]:
        """The repeated blocks of the model, which are sharded, compiled or recomputed one by one. Each must be called
        as a module; a block inside another comes before it."""
        return [module for module in self.modules() if isinstance(module, EncoderBlock)]

    def frozen_towers(self) -> list[nn.Module]:
        """Frozen pretrained models in this model, which may be large."""
        return []

    def run_uniformly(self) -> None:
        """From now on, run the same blocks equally often for any batch, even those that could be skipped. All processes
        gather the shards of a block together when they run it."""

    def trainable_state(self) -> dict[str, Tensor]:
        """The tensors of the model that a checkpoint must contain, by name."""
        return {name: tensor.detach() for name, tensor in self.state_dict().items()}

    def load_trainable_state(self, state: Mapping[str, Tensor]) -> None:
        """Restore what :meth:`trainable_state` returned.

        Raises:
            UserError: names are missing or unexpected, or shapes differ; the message lists them.
        """
        copy_state(self.trainable_state(), state)

    def extra_state(self) -> dict[str, Any]:
        """Everything else that a checkpoint must contain, as JSON values: a tokenizer, labels, tasks."""
        return {}

    def load_extra_state(self, state: Mapping[str, Any]) -> None:
        """Restore what :meth:`extra_state` returned; called before :meth:`load_trainable_state`, because shapes may
        depend on it."""

    @property
    def device(self) -> torch.device:
        """The device of the model's parameters."""
        return next(self.parameters()).device

    @abstractmethod
    def save(self, folder: Path) -> None:
        """Write a folder that :func:`vislang.load` opens."""


def copy_state(own: Mapping[str, Tensor], state: Mapping[str, Tensor]) -> None:
    """Copy tensors of ``state`` into those of ``own`` by name.

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
        raise UserError("these are the weights of another model: " + "; ".join(faults[:10]))
    with torch.no_grad():
        for name, tensor in own.items():
            tensor.copy_(state[name])


def must_be_numbers(found: Tensor, name: str) -> None:
    """Raise an error if a model's output contains NaN.

    Args:
        found: the output.
        name: what it belongs to, such as a record or the model's folder.

    Raises:
        UserError: it does.
    """
    if bool(found.isnan().any()):
        raise UserError(
            f"{name}: the model's output is not a number (NaN): its weights or those of a tower are damaged. Copy them "
            "again, or train again."
        )


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
    """Write ``config.json`` (the model's class, its settings and a hash of its weights) and ``model.safetensors``.

    Args:
        folder: it is created if it does not exist.
        model: its class must be defined in ``vislang.models``.
        settings: what ``load`` needs to build the model again.
        state: the weights to write; None writes all, and shared ones once.
    """
    folder = Path(folder)
    folder.mkdir(parents=True, exist_ok=True)
    file = folder / "model.safetensors"
    if state is None:
        with whole_file(file) as unfinished:
            safetensors.torch.save_model(model, str(unfinished), metadata={"format": "pt"})
        state = safetensors.torch.load_file(file)
    else:
        state = {name: tensor.detach().cpu().contiguous() for name, tensor in state.items()}
        with whole_file(file) as unfinished:
            safetensors.torch.save_file(state, unfinished, metadata={"format": "pt"})
    config = {
        "model": f"{type(model).__module__}.{type(model).__name__}",
        "weights_sha256": fingerprint(state),
        **settings,
    }
    write_text(folder / "config.json", json.dumps(config, indent=2) + "\n")


def read_config(folder: Path) -> dict[str, Any]:
    """The settings that :func:`write_model` wrote, with the names of this version."""
    return current_settings(json.loads((folder / "config.json").read_text(encoding="utf-8")))


def read_settings(kind: type[Settings], folder: Path) -> Settings:
    """The same as a dataclass with a field for each setting; see :func:`~vislang.models.settings.settings_of`.

    Raises:
        UserError: a setting is unknown, missing, or of the wrong type.
    """
    values = read_config(folder)
    own = {name: value for name, value in values.items() if name not in ("model", "weights_sha256")}
    return settings_of(kind, own, folder / "config.json")


def read_weights(folder: Path) -> dict[str, Tensor]:
    """The weights that :func:`write_model` wrote.

    Raises:
        UserError: the weights do not match the hash in ``config.json``: a file was damaged or replaced.
    """
    file = folder / "model.safetensors"
    state = safetensors.torch.load_file(file)
    expected = read_config(folder).get("weights_sha256")
    # Models of version 0.1.0 have no hash.
    if expected is not None and fingerprint(state) != expected:
        raise UserError(
            f"{file}: damaged or replaced: its weights do not match the hash in config.json. Copy both files again."
        )
    return state


def fill_model(model: nn.Module, folder: Path) -> None:
    """Load all weights of a folder into a model that was built from its config.

    Raises:
        UserError: the weights do not fit the config, or are damaged.
    """
    read_weights(folder)
    try:
        safetensors.torch.load_model(model, folder / "model.safetensors")
    except RuntimeError as error:
        faults = [line.strip().rstrip(".") for line in str(error).splitlines()[1:]]
        more = f"; and {len(faults) - 3} more" if len(faults) > 3 else ""
        raise UserError(
            f"{folder}: the weights do not fit the config: {'; '.join(faults[:3])}{more}. Copy both files again."
        ) from None
