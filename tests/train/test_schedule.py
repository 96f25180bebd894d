"""Stop-and-go: who rests, who learns again, and that a resumed run goes on alike."""

import math

from vislang.train.schedule import StopAndGo


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
