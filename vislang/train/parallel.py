"""How a model is spread over processes: not at all, replicated (DDP), or sharded (FSDP2).

A model knows nothing of this. An engine calls it, and sees to it that after the last backward pass of a step every
process has the gradient of the whole batch:

* each process computes the losses of its part of the batch, in one or several micro-batches; :func:`weights` says by
  how much each of these losses counts, so that their sum over parts and processes is the loss of the whole batch;
* the gradients of all parts are summed, and cross between processes once, with the last backward pass.
"""

from __future__ import annotations

import copy
import warnings
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor, nn
from torch import distributed as dist
from torch.distributed.device_mesh import init_device_mesh
from torch.distributed.fsdp import FSDPModule, MixedPrecisionPolicy, fully_shard
from torch.distributed.tensor import DTensor
from torch.nn.parallel import DistributedDataParallel

from vislang.errors import UserError
from vislang.train.batches import Part
from vislang.train.config import Parallel, TrainConfig
from vislang.train.processes import Processes

# A block may return a view, which nothing here changes in place.
warnings.filterwarnings("ignore", "FSDP2-wrapped module .* returned a view tensor", UserWarning)
# What replaces it is not in all versions of torch that are supported.
warnings.filterwarnings("ignore", "`broadcast_buffers` is deprecated", FutureWarning)


class Engine:
    """A model in one process.

    Attributes:
        model: what trains: its parameters are updated, its names are those of the checkpoint.
    """

    def __init__(self, model: nn.Module, processes: Processes):
        self.model: Any = model
        self.processes = processes

    def losses(self, batch: Any) -> dict[str, Tensor]:
        """The model's losses of a batch."""
        return self.model(batch)

    @contextmanager
    def last(self, is_last: bool) -> Iterator[None]:
        """Around a forward and backward pass: whether gradients cross between processes in it."""
        yield

    def backward(self, loss: Tensor) -> None:
        """Add the gradients of this process's share of the loss."""
        loss.backward()

    def clip(self, most: float) -> Tensor:
        """Scale the gradients down to a norm of ``most`` at the most; returns their norm before, on the device."""
        gradients = [p.grad for p in self.model.parameters() if p.grad is not None]
        norm = self.norm(gradients)
        # The same bound as torch.nn.utils.clip_grad_norm_; a norm that is not finite spoils what is skipped anyway.
        torch._foreach_mul_([local(gradient) for gradient in gradients], (most / (norm + 1e-6)).clamp(max=1.0))
        return norm

    def norm(self, gradients: Sequence[Tensor]) -> Tensor:
        """The norm of all gradients together, a scalar that every process has."""
        return torch.nn.utils.get_total_norm(gradients)

    def compile(self) -> None:
        """Compile each of the model's repeated blocks; see ``torch.compile``."""
        for block in self.model.repeated_blocks():
            block.compile()

    def complete(self) -> None:
        """Bring the model that the caller gave up to date with what was trained, before it is evaluated or saved."""


class ReplicatedEngine(Engine):
    """A replica of the model in each process, whose gradients are averaged (torch's DDP).

    Losses of a process are therefore multiplied by the number of processes.
    """

    def __init__(self, model: nn.Module, processes: Processes):
        super().__init__(model, processes)
        # A stream of a mixture need not use every parameter.
        self.wrapped = DistributedDataParallel(
            model, broadcast_buffers=False, find_unused_parameters=True, init_sync=False, gradient_as_bucket_view=True
        )

    def losses(self, batch: Any) -> dict[str, Tensor]:
        """See :meth:`Engine.losses`."""
        return self.wrapped(batch)

    @contextmanager
    def last(self, is_last: bool) -> Iterator[None]:
        """See :meth:`Engine.last`."""
        if is_last:
            yield
            return
        with self.wrapped.no_sync():
            yield

    def backward(self, loss: Tensor) -> None:
        """See :meth:`Engine.backward`."""
        (loss * self.processes.count).backward()


class ShardedEngine(Engine):
    """Parameters, gradients and moments cut into a shard for each process (torch's FSDP2).

    What is sharded is a copy: the model that the caller gave stays whole, for evaluation and for saving, and
    :meth:`complete` fills it. It may be on the host (see :func:`home_of`); its parts are then copied to the device one
    by one. Each of the model's repeated blocks is gathered on its own, when it runs. Frozen towers stay whole on each
    device, unless they have more parameters than ``shard_above``; then their blocks are sharded too.

    Args:
        model: whole.
        processes: of the run.
        shard_above: parameters of a frozen tower above which its blocks are sharded; and trained parameters above which
            gradients are reduced in every backward pass of a step, because between passes they are as large as all
            trained parameters. With fewer, they are reduced once.
        dtype: that parameters are gathered in; shards, gradients and moments are float32 in any case.
        device: where to train; None trains where the model is.
    """

    def __init__(
        self,
        model: nn.Module,
        processes: Processes,
        shard_above: float,
        dtype: torch.dtype = torch.float32,
        device: torch.device | None = None,
    ):
        whole: Any = model
        device = device or whole.device
        unsharded = kept_whole(whole, shard_above)
        frozen = [parameter for tower in whole.frozen_towers() for parameter in tower.parameters()]
        # Frozen parameters are not copied on the device that they are on.
        shared = {id(p): nn.Parameter(p.to(device) if p in unsharded else p.detach(), False) for p in frozen}
        sharded = copy.deepcopy(model, dict(shared))
        super().__init__(sharded, processes)
        self.whole = whole
        self._scalars = [p for p in sharded.parameters() if p.requires_grad and p.ndim == 0]
        for scalar in self._scalars:
            scalar.data = scalar.data.to(device)
        if large_towers(whole, shard_above):
            self.model.run_uniformly()
        self._reduces_each_pass = reduces_each_pass(sharded, shard_above)
        kept = {shared[id(parameter)] for parameter in unsharded} | set(self._scalars)
        mesh = init_device_mesh(device.type, (processes.count,))
        policy = MixedPrecisionPolicy()
        if dtype in (torch.bfloat16, torch.float16):
            policy = MixedPrecisionPolicy(dtype, reduce_dtype=torch.float32, cast_forward_inputs=False)
        for block in self.model.repeated_blocks():
            if any(parameter not in kept for parameter in block.parameters()):
                fully_shard(block, mesh=mesh, mp_policy=policy, ignored_params=kept)
        # Resharded after its forward pass, the rest is never whole while moments, averages and checkpoints read it.
        fully_shard(sharded, mesh=mesh, mp_policy=policy, ignored_params=kept, reshard_after_forward=True)

    @contextmanager
    def last(self, is_last: bool) -> Iterator[None]:
        """See :meth:`Engine.last`."""
        assert isinstance(self.model, FSDPModule)
        self.model.set_requires_gradient_sync(is_last or self._reduces_each_pass)
        yield

    def backward(self, loss: Tensor) -> None:
        """See :meth:`Engine.backward`."""
        (loss * self.processes.count).backward()

    def clip(self, most: float) -> Tensor:
        """See :meth:`Engine.clip`; first the gradients of single numbers, which FSDP2 does not shard, are averaged."""
        for parameter in self._scalars:
            if parameter.grad is not None:
                self.processes.sum_tensor(parameter.grad).div_(self.processes.count)
        return super().clip(most)

    def norm(self, gradients: Sequence[Tensor]) -> Tensor:
        """See :meth:`Engine.norm`."""
        sharded = [local(gradient) for gradient in gradients if isinstance(gradient, DTensor)]
        whole = [gradient for gradient in gradients if not isinstance(gradient, DTensor)]
        total = self.processes.sum_tensor(torch.nn.utils.get_total_norm(sharded).square())
        return (total + torch.nn.utils.get_total_norm(whole).square()).sqrt() if whole else total.sqrt()

    def complete(self) -> None:
        """See :meth:`Engine.complete`."""
        home = self.whole.device
        state = {name: whole_tensor(tensor).to(home) for name, tensor in self.model.trainable_state().items()}
        self.whole.load_extra_state(self.model.extra_state())
        self.whole.load_trainable_state(state)


def large_towers(model: Any, shard_above: float) -> list[nn.Module]:
    """The frozen towers of a model whose blocks ``fsdp2`` shards."""
    return [tower for tower in model.frozen_towers() if sum(p.numel() for p in tower.parameters()) > shard_above]


def kept_whole(model: Any, shard_above: float) -> set[nn.Parameter]:
    """The parameters of frozen towers that ``fsdp2`` does not shard: those of small towers, and those of large towers
    that are in no block."""
    own = {module for tower in large_towers(model, shard_above) for module in tower.modules()}
    blocks = {parameter for block in model.repeated_blocks() if block in own for parameter in block.parameters()}
    return {parameter for tower in model.frozen_towers() for parameter in tower.parameters()} - blocks


def reduces_each_pass(model: nn.Module, shard_above: float) -> bool:
    """Whether ``fsdp2`` reduces gradients in every backward pass of a step; see :class:`ShardedEngine`."""
    return sum(p.numel() for p in model.parameters() if p.requires_grad) > shard_above


def home_of(model: nn.Module, config: TrainConfig, processes: Processes, device: torch.device) -> torch.device:
    """Where the whole model of a run is kept: on its device, or on the host if ``fsdp2`` shards a large frozen tower.
    Then a device need not have memory for the whole model."""
    sharded = config.parallel == "fsdp2" and processes.count > 1
    return torch.device("cpu") if sharded and large_towers(model, config.shard_above) else device


def engine_for(
    model: nn.Module,
    parallel: Parallel,
    processes: Processes,
    shard_above: float,
    dtype: torch.dtype,
    device: torch.device,
) -> Engine:
    """The engine that a setting names.

    Raises:
        UserError: several processes without a way to share the work, or one process with nobody to share it with.
    """
    if parallel == "none":
        if processes.count > 1:
            raise UserError(
                f"train.parallel is none, and {processes.count} processes were started; set it to ddp or fsdp2."
            )
        return Engine(model, processes)
    if processes.count == 1:
        # A run of several processes continues in one, which then has the whole model.
        return Engine(model, processes)
    synchronise(model, processes)
    if parallel == "ddp":
        return ReplicatedEngine(model, processes)
    return ShardedEngine(model, processes, shard_above, dtype, device)


def synchronise(model: Any, processes: Processes) -> None:
    """Give each process the first one's tokenizer, labels and trainable tensors, should its own differ."""
    extra = processes.from_first(model.extra_state)
    if extra != model.extra_state():
        model.load_extra_state(extra)
    for tensor in model.trainable_state().values():
        dist.broadcast(tensor, src=0)


def weights(names: Iterable[str], part: Part, totals: Mapping[str, float], batch_size: int) -> dict[str, float]:
    """By how much each loss of a part counts in the loss of the whole batch.

    Args:
        names: of the losses.
        part: of the batch.
        totals: items of each loss in the whole batch, by the names that ``part.counts`` has.
        batch_size: examples in the whole batch.
    """
    found = {}
    for name in names:
        count = part.counts.get(name, part.examples)
        if not part.examples:
            # A stand-in: this process has no example of the batch.
            found[name] = 0.0
        elif count is None:
            found[name] = 1.0
        else:
            found[name] = count / max(1, totals.get(name, batch_size))
    return found


def local(tensor: Tensor) -> Tensor:
    """This process's shard of a tensor; the whole tensor where it is not sharded."""
    return tensor.to_local() if isinstance(tensor, DTensor) else tensor


def whole_tensor(tensor: Tensor) -> Tensor:
    """A tensor with the shards of all processes, which all have to ask for it."""
    return tensor.full_tensor() if isinstance(tensor, DTensor) else tensor
