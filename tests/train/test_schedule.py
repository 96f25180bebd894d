"""The course of the rate, against values worked out by hand and torch's own schedules; which tasks rest."""

import math
from typing import get_args, get_type_hints

import pytest
import torch
from torch.optim import lr_scheduler

from vislang.train.config import TrainConfig
from vislang.train.schedule import StopAndGo, rate_factor


def course(schedule, steps=10, warmup=0, final=0.0, **more) -> list[float]:
    config = TrainConfig(steps=steps, schedule=schedule, warmup_steps=warmup, final_lr=final, **more)
    return [rate_factor(config, step) for step in range(steps)]


def test_each_schedule_has_the_values_worked_out_by_hand():
    half = math.sqrt(0.5)
    wanted = {
        "constant": ({}, [1 / 4, 2 / 4, 3 / 4, 1, 1, 1, 1, 1]),
        "linear": ({"final": 0.2}, [1 / 4, 2 / 4, 3 / 4, 1, 1, 0.8, 0.6, 0.4]),
        # Half a wave over all 8 steps: cos(0), cos(pi / 8), cos(pi / 4), ...
        "cosine": (
            {},
            [
                1 / 4,
                2 / 4 * (1 + math.cos(math.pi / 8)) / 2,
                3 / 4 * (1 + half) / 2,
                (1 + math.cos(3 * math.pi / 8)) / 2,
                1 / 2,
                (1 - math.cos(3 * math.pi / 8)) / 2,
                (1 - half) / 2,
                (1 - math.cos(math.pi / 8)) / 2,
            ],
        ),
        "tri-stage": ({"final": 0.01, "decay_share": 0.25}, [1 / 4, 2 / 4, 3 / 4, 1, 1, 1, 1, 0.1]),
        "inverse-sqrt": ({}, [1 / 4, 2 / 4, 3 / 4, 1, math.sqrt(4 / 5), math.sqrt(4 / 6), math.sqrt(4 / 7), half]),
    }
    assert set(wanted) == set(get_args(get_type_hints(TrainConfig)["schedule"]))
    for schedule, (settings, values) in wanted.items():
        assert course(schedule, 8, 4, **settings) == pytest.approx(values, abs=1e-12), schedule


def of_torch(steps, *parts) -> list[float]:
    """The rates of torch's schedules, each (class, settings, steps that it lasts), at a peak of 1."""
    optimizer = torch.optim.SGD([torch.zeros(1)], lr=1.0)
    made = [kind(optimizer, **settings) for kind, settings, _ in parts]
    ends = [sum(length for _, _, length in parts[: n + 1]) for n in range(len(parts) - 1)]
    schedule = lr_scheduler.SequentialLR(optimizer, made, ends)
    rates = []
    for _ in range(steps):
        rates.append(optimizer.param_groups[0]["lr"])
        optimizer.step()
        schedule.step()
    return rates


def test_the_schedules_that_torch_has_agree_with_it():
    rise = (lr_scheduler.LinearLR, {"start_factor": 1 / 5, "total_iters": 4}, 5)
    linear = (lr_scheduler.LinearLR, {"start_factor": 1.0, "end_factor": 0.1, "total_iters": 15}, 15)
    assert course("linear", 20, 5, 0.1) == pytest.approx(of_torch(20, rise, linear), abs=1e-12)
    cosine = (lr_scheduler.CosineAnnealingLR, {"T_max": 20, "eta_min": 0.1}, 20)
    assert course("cosine", 20, 0, 0.1) == pytest.approx(of_torch(20, cosine), abs=1e-12)
    constant = (lr_scheduler.ConstantLR, {"factor": 1.0, "total_iters": 0}, 15)
    assert course("constant", 20, 5) == pytest.approx(of_torch(20, rise, constant), abs=1e-12)
    stage = (lr_scheduler.ExponentialLR, {"gamma": 0.01 ** (1 / 5)}, 5)
    held = (lr_scheduler.ConstantLR, {"factor": 1.0, "total_iters": 0}, 10)
    wanted = of_torch(20, rise, held, stage)
    assert course("tri-stage", 20, 5, 0.01, decay_share=0.25) == pytest.approx(wanted, abs=1e-12)


def test_a_warm_up_longer_than_the_run_only_rises():
    for schedule in ("constant", "linear", "inverse-sqrt"):
        assert course(schedule, 4, 8) == pytest.approx([1 / 8, 2 / 8, 3 / 8, 4 / 8])


def test_a_longer_run_of_the_same_constant_or_inverse_sqrt_schedule_begins_alike():
    """So a run may be extended without a change of what it did before."""
    for schedule in ("constant", "inverse-sqrt"):
        assert course(schedule, 40, 4)[:10] == course(schedule, 10, 4)


def run(scores, schedule=None):
    schedule = schedule or StopAndGo(["a", "b"])
    seen = []
    for a, b in scores:
        schedule.update({"a": a, "b": b})
        seen.append((schedule.resting["a"], schedule.resting["b"]))
    return seen


def test_a_task_rests_after_two_evaluations_without_improvement_and_goes_on_when_it_falls():
    scores = [(0.50, 0.1), (0.5004, 0.2), (0.5002, 0.3), (0.499, 0.4), (0.497, 0.5), (0.60, 0.6)]
    # 0.5004 betters 0.50 by less than 0.1 %; 0.499 is less than 0.5 % below the best; 0.497 is more.
    assert [a for a, _ in run(scores)] == [False, False, True, True, False, False]
    assert not any(b for _, b in run(scores))


def test_a_resting_task_takes_part_in_every_fourth_step():
    schedule = StopAndGo(["a", "b"])
    schedule.resting["a"] = True
    assert [step for step in range(9) if schedule.takes_part("a", step)] == [0, 4, 8]
    schedule.resting["a"] = False
    assert all(schedule.takes_part("a", step) for step in range(9))


def test_where_all_rest_no_step_is_lost():
    schedule = StopAndGo(["a", "b"])
    schedule.resting |= {"a": True, "b": True}
    assert all(schedule.takes_part("a", step) for step in range(9))


def test_a_score_that_is_no_number_tells_nothing():
    """As Pearson's r of constant predictions."""
    scores = [(math.nan, 0.1), (0.1, 0.2), (0.3, 0.3), (0.5, 0.4), (0.7, 0.5)]
    assert not any(a for a, _ in run(scores))


def test_its_state_goes_with_a_checkpoint():
    scores = [(0.5, 0.5), (0.5, 0.6), (0.5, 0.6), (0.4, 0.6)]
    for cut in range(len(scores)):
        first = StopAndGo(["a", "b"])
        run(scores[:cut], first)
        second = StopAndGo(["a", "b"])
        second.load_state(first.state())
        assert run(scores[cut:], second) == run(scores)[cut:]
