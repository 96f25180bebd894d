"""A time budget: how many steps fit, by a clock of the test's own; and runs that are those of that number of steps."""

import json
import shutil
from dataclasses import asdict

import pytest
import torch

from tests.train.line import EXAMPLES, Line, Silent
from vislang.document import Document, Image
from vislang.errors import UserError
from vislang.example import Example
from vislang.models.data2vec.blocks import EncoderConfig
from vislang.models.data2vec.decoder import DecoderConfig
from vislang.models.data2vec.front_ends import ImageConfig, Modalities
from vislang.models.data2vec.pretraining import Choices, Data2VecRecipe
from vislang.recipe import read_recipe, recipe_of
from vislang.runs.run import run_recipe
from vislang.train.batches import Stream
from vislang.train.budget import Budget, steps_within
from vislang.train.checkpoint import CheckpointError
from vislang.train.config import TrainConfig
from vislang.train.log import read_metrics, without_measurements
from vislang.train.loop import train
from vislang.train.state import changed_settings


class Clock:
    """Time that passes with steps alone."""

    def __init__(self, seconds_of):
        self.now, self.steps, self._seconds_of = 100.0, [], seconds_of

    def step(self, step: int) -> None:
        self.steps.append(step)
        self.now += self._seconds_of(step)

    def read(self) -> float:
        return self.now

    def within(self, minutes: float, at_most: int | None = None, streams: int = 1) -> Budget:
        budget = steps_within(minutes, at_most, self.step, streams, self.read)
        assert self.steps == list(range(budget.tried))
        return budget


def test_the_first_steps_are_not_counted_and_what_was_tried_is_paid_for():
    # Two steps of 20 s, then 5 of 2 s are 10 s, at least 1.5 % of 300 s; 250 s are left.
    assert Clock(lambda step: 20 if step < 2 else 2).within(5) == Budget(5, 125, 2.0, 7)


def test_short_steps_are_timed_for_a_share_of_the_budget():
    budget = Clock(lambda step: 0.125).within(10)
    # 1.5 % of 600 s are 9 s.
    assert budget.tried == 2 + 9 / 0.125
    assert budget.steps == (600 - budget.tried * 0.125) / 0.125


def test_trying_takes_no_more_than_a_quarter():
    budget = Clock(lambda step: 10).within(1)
    assert (budget.tried, budget.steps) == (2, 4)


def test_streams_that_take_turns_are_tried_in_whole_rounds():
    budget = Clock(lambda step: 1 + 2 * (step % 3)).within(10, streams=3)
    assert budget.seconds_per_step == 3
    assert budget.tried == 3 * (2 + 5)


def test_a_number_of_steps_is_the_most():
    budget = Clock(lambda step: 0.1).within(60, at_most=4)
    assert (budget.steps, budget.tried) == (4, 6)


def test_few_steps_are_tried_if_all_that_are_wanted_fit_easily():
    # 700 steps of half a second are 350 of 600 s; 1.5 % of these would be 18 steps.
    assert Clock(lambda step: 0.5).within(10, at_most=700) == Budget(10, 700, 0.5, 7)
    # 1,000 of them are 500 s; a quarter more does not fit.
    assert Clock(lambda step: 0.5).within(10, at_most=1000) == Budget(10, 1000, 0.5, 20)


def test_a_budget_for_no_step_is_an_error():
    with pytest.raises(
        UserError, match=r"train\.minutes is 1: a step takes 40\.0 s, so no step fits after a trial of 2"
    ):
        Clock(lambda step: 40).within(1)


def line(pictures):
    return Line(), EXAMPLES


def data2vec(pictures):
    """A student with a teacher, which moves after each step."""
    decoder = DecoderConfig(width=16, layers=1, kernel=3, groups=2)
    image = ImageConfig(size=32, patch=8, positions="fixed", decoder=decoder)
    choices = Choices(top_k=2, copies=2, decay=0.5, end_decay=0.6, anneal_steps=9)
    encoder = EncoderConfig(width=16, depth=2, heads=2, mlp_width=32, dropout=0.1)
    examples = [Example(str(n), Document([Image(pictures / f"{n}.png")])) for n in range(6)]
    return Data2VecRecipe("v2", encoder, Modalities(image=image), choices).build(), examples


@pytest.mark.parametrize("model", [line, data2vec])
def test_a_run_with_a_budget_is_the_run_of_as_many_steps(tmp_path, pictures, model):
    """Bit for bit: parameters, teacher, optimizer and random numbers are as if nothing had been tried."""
    losses, states = [], []
    for name, settings in (("budget", {"steps": 6, "minutes": 5.0}), ("steps", {"steps": 6})):
        torch.manual_seed(0)
        made, examples = model(pictures)
        found: list[Budget] = []
        config = TrainConfig(batch_size=4, warmup_steps=2, checkpoint_every=3, **settings)
        train(made, [Stream("x", examples, 1.0, 4)], config, tmp_path / name, Silent(), budgeted=found.append)
        assert [(budget.steps, budget.tried) for budget in found] == ([(6, 7)] if name == "budget" else [])
        rows = read_metrics(tmp_path / name / "metrics.jsonl")
        losses.append([without_measurements(row) for row in rows])
        states.append({**made.trainable_state(), "extra": made.extra_state()})
    assert losses[0] == losses[1]
    assert len(losses[0]) == 6
    for name, value in states[0].items():
        assert torch.equal(value, states[1][name]) if torch.is_tensor(value) else value == states[1][name], name


@pytest.fixture
def quick(monkeypatch):
    """A clock by which every step takes 2 s, and no reports."""
    steps = iter(range(10**9))
    real = steps_within

    def by_steps(minutes, at_most, try_step, streams, clock):
        return real(minutes, at_most, try_step, streams, lambda: 2.0 * next(steps))

    monkeypatch.setattr("vislang.train.loop.steps_within", by_steps)
    monkeypatch.setattr("vislang.runs.run.draw_report", lambda *arguments: None)
    monkeypatch.setattr("vislang.runs.run.final_scores", lambda *arguments: {})


def test_a_run_that_was_stopped_in_its_trial_may_start_again():
    config = TrainConfig(minutes=8)
    assert changed_settings(asdict(config), config) == []


def test_the_number_is_printed_recorded_and_kept_when_the_run_is_resumed(recipe, pictures, tmp_path, capsys, quick):
    folder = tmp_path / "run"
    changes = ["--train.steps=null", "--train.minutes=0.6", "--train.checkpoint_every=4", "--train.eval_every=0"]
    recipe_made, values = read_recipe(recipe, changes)
    run_recipe(recipe_made, values, folder)
    record = json.loads((folder / "run.json").read_text())
    # 36 s: two steps untimed and three timed, more than a quarter; 13 of 2 s in the 26 s that are left.
    assert record["time_budget"] == {"minutes": 0.6, "steps": 13, "seconds_per_step": 2.0, "tried": 5}
    assert "13 steps of 2 s fit into 0.6 minutes, after a trial of 5" in " ".join(capsys.readouterr().out.split())
    losses = [row["loss"] for row in read_metrics(folder / "metrics.jsonl") if "loss" in row]
    assert len(losses) == 13
    (folder / "checkpoints" / "step-00000013" / "state.json").unlink()
    run_recipe(*recipe_of(record["recipe"]), folder, resume=True)
    assert [row["loss"] for row in read_metrics(folder / "metrics.jsonl") if "loss" in row] == losses
    assert json.loads((folder / "run.json").read_text())["time_budget"] == record["time_budget"]
    with pytest.raises(CheckpointError, match=r"train\.minutes was 0\.6, is 1; the run's 13 steps were chosen when it"):
        run_recipe(*recipe_of(record["recipe"], ["--train.minutes=1"]), folder, resume=True)
    with pytest.raises(CheckpointError, match="steps was 13, is 5"):
        run_recipe(*recipe_of(record["recipe"], ["--train.steps=5"]), folder, resume=True)
    with pytest.warns(UserWarning, match="extended from 13 to 15 steps"):
        run_recipe(*recipe_of(record["recipe"], ["--train.steps=15"]), folder, resume=True)
    extended = json.loads((folder / "run.json").read_text())["recipe"]["train"]
    assert (extended["steps"], extended["minutes"]) == (15, 0.0)
    # Killed before its first checkpoint, it starts again with the same number.
    record["time_budget"]["steps"] = 3
    (folder / "run.json").write_text(json.dumps(record))
    shutil.rmtree(folder / "checkpoints")
    with pytest.warns(UserWarning, match="stopped before its first checkpoint"):
        run_recipe(*read_recipe(recipe, changes), folder, resume=True)
    assert len([row for row in read_metrics(folder / "metrics.jsonl") if "loss" in row]) == 3
