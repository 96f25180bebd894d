"""The loop on a small model: resumed bit for bit, extended, started again; streams hold examples."""

import pytest
import torch
from torch import nn
from torch.nn import functional as F

from vislang.document import Document
from vislang.errors import UserError
from vislang.example import Example, Value
from vislang.models.base import TrainableModel
from vislang.train.batches import Stream
from vislang.train.checkpoint import CheckpointError, DamagedCheckpoint, list_checkpoints
from vislang.train.config import TrainConfig
from vislang.train.log import read_metrics
from vislang.train.loop import train
from vislang.train.optimizer import Optimizer
from vislang.train.state import ResumeNotice

EXAMPLES = [Example(str(n), Document([f"number {n}"]), Value(n / 10)) for n in range(10)]


class Batch:
    def __init__(self, examples, seed, first=0):
        self.names = [example.name for example in examples]
        noise = torch.randn(len(examples), 3, generator=torch.Generator().manual_seed(seed))
        self.x = torch.tensor([[example.target.number] for example in examples]) + noise
        self.y = torch.tensor([example.target.number for example in examples])


class Line(TrainableModel):
    """A line through numbers, with some dropout."""

    def __init__(self):
        super().__init__()
        self.collate = Batch
        self.inner, self.head = nn.Linear(3, 4), nn.Linear(4, 1)
        self.steps = 0

    def forward(self, batch):
        return {"error": F.mse_loss(self.head(F.dropout(self.inner(batch.x), 0.1, self.training))[:, 0], batch.y)}

    def rate_group(self, name):
        return "head" if name.startswith("head.") else "other"

    def after_step(self):
        self.steps += 1

    def extra_state(self):
        return {"steps": self.steps}

    def load_extra_state(self, state):
        self.steps = state["steps"]


class Silent:
    def step(self, step, row):
        pass

    def evaluated(self, step, row):
        pass


def run(folder, steps, resume=False, model=None, **settings):
    torch.manual_seed(0)
    model = model or Line()
    config = TrainConfig(
        steps=steps, batch_size=4, warmup_steps=0, checkpoint_every=4, lr_scale={"head": 2.0}, **settings
    )
    train(model, [Stream("numbers", EXAMPLES, 1.0, 4)], config, folder, Silent(), resume=resume)
    return model, [row["loss"] for row in read_metrics(folder / "metrics.jsonl")]


def drop_last(folder):
    (list_checkpoints(folder / "checkpoints")[-1] / "state.json").unlink()


def test_a_run_resumes_bit_for_bit_from_the_checkpoint_before_a_damaged_one(tmp_path):
    whole, losses = run(tmp_path / "whole", 12, keep_checkpoints=3)
    run(tmp_path / "cut", 12, keep_checkpoints=3)
    drop_last(tmp_path / "cut")
    (last,) = list_checkpoints(tmp_path / "cut" / "checkpoints")[-1].glob("*.distcp")
    last.write_bytes(last.read_bytes()[:100])
    with pytest.warns(DamagedCheckpoint, match="step-00000008: damaged, and passed over .*is not what was written"):
        resumed, again = run(tmp_path / "cut", 12, resume=True, keep_checkpoints=3)
    assert again == losses
    assert resumed.steps == 12
    assert torch.equal(resumed.inner.weight, whole.inner.weight)


def test_a_run_without_a_checkpoint_starts_again_and_says_so(tmp_path):
    _, losses = run(tmp_path / "whole", 3)
    (tmp_path / "killed").mkdir()
    (tmp_path / "killed" / "metrics.jsonl").write_text((tmp_path / "whole" / "metrics.jsonl").read_text()[:60])
    with pytest.warns(ResumeNotice, match="stopped before its first checkpoint; starts from step 0"):
        _, again = run(tmp_path / "killed", 3, resume=True)
    assert again == losses


def test_a_finished_run_is_extended_and_that_is_said(tmp_path):
    run(tmp_path / "run", 4)
    with pytest.warns(ResumeNotice, match="extended from 4 to 8 steps"):
        model, losses = run(tmp_path / "run", 8, resume=True)
    assert (model.steps, len(losses)) == (8, 8)
    with pytest.raises(CheckpointError, match="steps was 8, is 6"):
        run(tmp_path / "run", 6, resume=True)
    with pytest.raises(CheckpointError, match=r"lr was 0\.001, is 0\.5"):
        run(tmp_path / "run", 8, resume=True, lr=0.5)


def test_old_states_of_the_optimizer_are_found_by_the_order_of_their_groups():
    model = Line()
    config = TrainConfig(lr_scale={"head": 2.0})
    names = ["inner.weight", "inner.bias", "head.weight", "head.bias"]
    known = dict(model.named_parameters())
    old = {
        "state": {
            n: {"step": torch.tensor(3.0), "exp_avg": torch.full_like(known[name], n)} for n, name in enumerate(names)
        },
        "param_groups": [
            {"name": "matrices", "params": [0]},
            {"name": "vectors", "params": [1]},
            {"name": "head", "params": [2, 3]},
        ],
    }
    optimizer = Optimizer(model, config)
    optimizer.load_state(old)
    found = optimizer.state()
    assert {name: moments["exp_avg"].unique().tolist() for name, moments in found.items()} == {
        name: [n] for n, name in enumerate(names)
    }
    again = Optimizer(model, config)
    again.load_state(found)
    assert again.state().keys() == found.keys()
    with pytest.raises(UserError, match=r"has an optimizer state of inner\.x"):
        again.load_state({"inner.x": found["inner.bias"]})
    old["param_groups"][2]["params"] = [2]
    with pytest.raises(UserError, match="the checkpoint's optimizer has 1 head, and this model 2"):
        again.load_state(old)


def test_a_group_that_the_model_does_not_have_is_named():
    with pytest.raises(UserError, match=r"lr_scale names \['gates'\]; this model's groups are \['head', 'other'\]"):
        Optimizer(Line(), TrainConfig(lr_scale={"gates": 2.0}))
