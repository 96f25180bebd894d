"""The loop on a small model: resumed bit for bit, extended, started again; steps that go wrong; the best checkpoint."""

from dataclasses import dataclass

import pytest
import torch

from tests.train.line import EXAMPLES, Line, collate, run
from vislang.errors import UserError
from vislang.train.batches import Steps, Stream, shares
from vislang.train.best import Best
from vislang.train.checkpoint import CheckpointError, DamagedCheckpoint, list_checkpoints
from vislang.train.config import TrainConfig
from vislang.train.log import read_metrics
from vislang.train.optimizer import Optimizer
from vislang.train.state import ResumeNotice
from vislang.train.step_log import SkippedStep, TrainingDiverged


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


@dataclass(frozen=True)
class Spoilt:
    """Batches of the line, of which those of some steps have no number."""

    steps: frozenset[int]

    def __call__(self, examples, seed=0, first=0):
        batch = collate(examples, seed, first)
        if seed % 1_000_003 in self.steps:
            batch.x[0] = torch.nan
        return batch


def spoilt(*steps: int) -> Line:
    """A line; the batches of some steps have a value that is not a number."""

    def spoiling(examples, seed=0, first=0):
        batch = collate(examples, seed, first)
        if seed % 1_000_003 in steps:
            batch.x[0] = torch.nan
        return batch

    model = Line()
    model.collate = Spoilt(frozenset(steps))
    return model


def test_steps_without_a_finite_gradient_change_nothing_and_are_named(tmp_path):
    with pytest.warns(SkippedStep, match=r"step 3: .*loss/error is nan.*skipped\. Its records: "):
        model, losses = run(tmp_path, 8, model=spoilt(2, 3), skip_steps=2)
    assert all(parameter.isfinite().all() for parameter in model.parameters())
    skipped = [row for row in read_metrics(tmp_path / "metrics.jsonl") if "skipped" in row]
    assert [row["step"] for row in skipped] == [3, 4]
    names = {example.name for example in EXAMPLES}
    assert all(row["records"] and names.issuperset(row["records"]) for row in skipped)
    assert len(losses) == 6
    # Step 4 would have been saved, but nothing had changed since the step before the two.
    assert [path.name for path in list_checkpoints(tmp_path / "checkpoints")] == ["step-00000008"]


def test_too_many_in_a_row_stop_the_run_at_the_first_of_them(tmp_path):
    message = r"step 6: .*2 more steps\. The records of step 6: "
    with pytest.warns(SkippedStep), pytest.raises(TrainingDiverged, match=message):
        run(tmp_path, 20, model=spoilt(5, 6, 7, 12), skip_steps=2)
    assert [path.name for path in list_checkpoints(tmp_path / "checkpoints")] == ["step-00000004"]


def test_a_skipped_step_leaves_moments_as_they_were(tmp_path):
    model = Line()
    optimizer = Optimizer(model, TrainConfig(lr_scale={"head": 2.0}))
    model(collate(EXAMPLES[:4]))["error"].backward()
    optimizer.step(1.0)
    before = {n: {k: t.clone() for k, t in moments.items()} for n, moments in optimizer.state().items()}
    weights = {name: tensor.clone() for name, tensor in model.state_dict().items()}
    optimizer.step(1.0, skip=torch.tensor(True))
    for name, moments in optimizer.state().items():
        assert all(torch.equal(tensor, before[name][moment]) for moment, tensor in moments.items())
    assert all(torch.equal(tensor, weights[name]) for name, tensor in model.state_dict().items())


def test_micro_batches_add_up_to_the_batch(tmp_path):
    """Means over parts of unequal size, each weighted by its share: the same losses and the same line."""
    whole, losses = run(tmp_path / "whole", 6, model=Line(0.0).double(), batch_size=5)
    cut, again = run(tmp_path / "cut", 6, model=Line(0.0).double(), batch_size=5, accumulate=3)
    assert again == pytest.approx(losses, rel=1e-12)
    torch.testing.assert_close(cut.inner.weight, whole.inner.weight, rtol=0, atol=1e-12)
    assert [len(names) for names in cut.seen[:3]] == [1, 2, 2]


def test_a_loss_over_the_whole_batch_cannot_be_accumulated(tmp_path):
    model = Line()
    model.needs_whole_batch = True
    with pytest.raises(UserError, match=r"train\.accumulate is 2, and this model compares the examples"):
        run(tmp_path, 4, model=model, accumulate=2)


def test_the_checkpoint_of_the_best_evaluation_stays(tmp_path):
    scores = iter([0.2, 0.9, 0.4, 0.5, 0.6])
    run(tmp_path / "score", 20, evaluate=lambda: {"score": next(scores)}, eval_every=4, keep_checkpoints=1)
    names = [path.name for path in list_checkpoints(tmp_path / "score" / "checkpoints")]
    assert names == ["step-00000008", "step-00000020"]
    # A loss is better the lower it is.
    losses = iter([0.2, 0.9, 0.1, 0.5, 0.6])
    run(
        tmp_path / "loss",
        20,
        evaluate=lambda: {"a/nats": next(losses)},
        eval_every=4,
        keep_checkpoints=1,
        best="a/nats",
    )
    names = [path.name for path in list_checkpoints(tmp_path / "loss" / "checkpoints")]
    assert names == ["step-00000012", "step-00000020"]
    with pytest.raises(UserError, match=r"train\.best: no figure nats; this run has a/nats"):
        run(tmp_path / "none", 4, evaluate=lambda: {"a/nats": 1.0}, best="nats")


def test_what_is_no_loss_is_better_the_higher_it_is():
    best = Best(None, [], TrainConfig(best="pictures/explained_variance"))
    kept = [best.update(n, {"pictures/explained_variance": share}) for n, share in enumerate((0.2, 0.3, 0.1))]
    assert [found is not None for found in kept] == [True, True, False]


def test_a_best_checkpoint_that_is_damaged_is_written_again(tmp_path):
    options = {"eval_every": 6, "keep_checkpoints": 4, "evaluate": lambda: {"score": 0.9}}
    run(tmp_path, 12, **options)
    # Killed after step 6, whose checkpoint is there because its evaluation was the best.
    for _ in (12, 8):
        drop_last(tmp_path)
    (file,) = list_checkpoints(tmp_path / "checkpoints")[-1].glob("*.distcp")
    assert file.parent.name == "step-00000006"
    file.write_bytes(b"damaged")
    with pytest.warns(DamagedCheckpoint):
        run(tmp_path, 12, resume=True, **options)
    assert file.read_bytes() != b"damaged"


def test_a_batch_is_divided_after_it_is_drawn():
    """The examples of every step, and what is drawn for each, are the same in 1, 2, 3, 4 and 12 processes."""
    stream = Stream("numbers", EXAMPLES, 1.0, 5)
    for step in range(4):
        (whole,) = Steps(collate, [stream], seed=3)[step].parts
        ((batch, count),) = whole
        assert count == 5
        for processes, accumulate in ((2, 1), (3, 2), (4, 1), (12, 1)):
            names, x = [], []
            for rank in range(processes):
                (parts,) = Steps(collate, [stream], 3, rank=rank, count=processes, accumulate=accumulate)[step].parts
                assert len(parts) == min(accumulate, -(-5 // processes))
                for part, examples in parts:
                    # A process without an example of its own gets a stand-in, which counts for nothing.
                    assert len(part.names) == max(1, examples)
                    names += part.names[:examples]
                    x.append(part.x[:examples])
            assert names == batch.names
            assert torch.equal(torch.cat(x), batch.x)


def test_shares_are_even():
    for size in (1, 4, 7):
        for count in (1, 2, 3, 8):
            for accumulate in (1, 2, 5):
                parts = [shares(size, rank, count, accumulate) for rank in range(count)]
                assert [n for own in parts for part in own for n in part] == list(range(size))
                assert len({len(own) for own in parts}) == 1
                sizes = [sum(map(len, own)) for own in parts]
                assert max(sizes) - min(sizes) <= 1
