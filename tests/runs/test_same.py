"""Two runs are compared bit by bit: what differs is named, and from which step on."""

import math

import pytest
import torch

from tests.runs.rehearsed import run
from vislang.runs.same import differences, gap, generators_that_moved, same_until, tensor_gap

PARTS = ["losses", "other metrics", "scores", "weights", "moments", "generators", "other state"]


def test_a_run_that_was_stopped_is_the_same(tmp_path):
    whole, stopped = run(tmp_path / "whole", dropout=0.2), run(tmp_path / "stopped", dropout=0.2, stop_after=5)
    found = differences(whole, stopped)
    assert (found.same, found.different, found.first_step, found.relative) == (PARTS, [], None, 0.0)
    assert generators_that_moved(whole) == ["torch's"]


def test_what_a_checkpoint_lacks_shows_in_the_step_after_it(tmp_path):
    whole, stopped = (
        run(tmp_path / "whole", kind="Forgetful"),
        run(tmp_path / "stopped", kind="Forgetful", stop_after=5),
    )
    found = differences(whole, stopped)
    # The noise is in the loss, and its gradient is none.
    assert found.different == ["losses"]
    assert found.first_step == 6
    assert 0 < found.relative < 1
    assert same_until(whole, stopped, 5)
    assert not same_until(whole, stopped, 6)
    assert generators_that_moved(whole) == []


def test_a_bit_in_a_weight_is_found(tmp_path):
    whole, other = run(tmp_path / "whole"), run(tmp_path / "other")
    assert differences(whole, other).different == []
    file = other / "model" / "model.safetensors"
    data = bytearray(file.read_bytes())
    data[-1] ^= 0x80
    file.write_bytes(data)
    assert differences(whole, other).different == ["weights"]


@pytest.mark.parametrize(
    ("one", "other", "far"),
    [
        ({"a": [1.0, 2.0]}, {"a": [1.0, 2.5]}, 0.5),
        ({"a": 1}, {"b": 1}, math.inf),
        ([1], [1, 2], math.inf),
        ("x", "y", math.inf),
        (float("nan"), float("nan"), 0.0),
        (1.0, None, math.inf),
        (float("nan"), 1.0, math.inf),
        ({"a": "x", "b": [{"c": 3}]}, {"a": "x", "b": [{"c": 1}]}, 2),
    ],
)
def test_the_gap_of_nested_values(one, other, far):
    assert gap(one, other) == gap(other, one) == far


def test_the_gap_of_tensors():
    one = torch.tensor([1.0, float("nan")])
    assert tensor_gap(one, one.clone()) == 0
    assert tensor_gap(torch.tensor(1.0), torch.tensor(1.25)) == 0.25
    assert tensor_gap(torch.tensor([0.0]), torch.tensor([-0.0])) == math.inf
    assert tensor_gap(one, torch.tensor([1.0, 2.0])) == math.inf
    assert tensor_gap(one, one.double()) == math.inf
