"""A model that trains in no time: a line through numbers."""

from __future__ import annotations

import os
import signal
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from vislang.document import Document
from vislang.example import Example, Value
from vislang.models.base import TrainableModel
from vislang.nn.masking import generator_of
from vislang.train.batches import Stream
from vislang.train.config import TrainConfig
from vislang.train.log import read_metrics
from vislang.train.loop import train

EXAMPLES = [Example(str(n), Document([f"number {n}"]), Value(n / 10)) for n in range(10)]


@dataclass(frozen=True)
class Batch:
    names: list[str]
    x: Tensor
    y: Tensor


def collate(examples, seed=0, first=0) -> Batch:
    noise = [torch.randn(3, generator=generator_of(seed, first + n)) for n in range(len(examples))]
    numbers = torch.tensor([example.target.number for example in examples])
    return Batch([example.name for example in examples], numbers[:, None] + torch.stack(noise), numbers)


class Line(TrainableModel):
    """A line through numbers, with some dropout. It keeps the names that it has seen, and sends its process the signal
    to stop after so many steps; 0 for never."""

    def __init__(self, dropout: float = 0.1, stop_after: int = 0):
        super().__init__()
        torch.manual_seed(0)
        self.collate = collate
        self.inner, self.head = nn.Linear(3, 4), nn.Linear(4, 1)
        self.dropout, self.stop_after = dropout, stop_after
        self.steps = 0
        self.seen: list[list[str]] = []

    def forward(self, batch):
        if self.training:
            self.seen.append(batch.names)
        x, y = batch.x.to(self.head.weight.dtype), batch.y.to(self.head.weight.dtype)
        return {"error": F.mse_loss(self.head(F.dropout(self.inner(x), self.dropout, self.training))[:, 0], y)}

    def rate_group(self, name):
        return "head" if name.startswith("head.") else "other"

    def after_step(self):
        self.steps += 1
        if self.steps == self.stop_after:
            os.kill(os.getpid(), signal.SIGTERM)

    def extra_state(self):
        return {"steps": self.steps}

    def load_extra_state(self, state):
        self.steps = state["steps"]

    def save(self, folder):
        torch.save(self.state_dict(), folder / "line.pt")


class Silent:
    def step(self, step, row):
        pass

    def evaluated(self, step, row):
        pass


def run(folder: Path, steps: int, resume: bool = False, model: Any = None, evaluate=dict, **settings):
    """Train a line; returns it, and the loss of each step that is in the log."""
    model = model or Line()
    options = {"batch_size": 4, "warmup_steps": 0, "checkpoint_every": 4, "lr_scale": {"head": 2.0}, "device": "cpu"}
    config = TrainConfig(steps=steps, **{**options, **settings})
    stream = Stream("numbers", EXAMPLES, 1.0, config.batch_size, "score")
    train(model, [stream], config, folder, Silent(), evaluate, resume)
    return model, [row["loss"] for row in read_metrics(folder / "metrics.jsonl") if "loss" in row]
