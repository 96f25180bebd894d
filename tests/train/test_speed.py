"""Rates: operations as counted by hand, tokens as batches tell them, and results that counting does not change."""

import time
from pathlib import Path

import pytest
import torch
import torch.nn.functional as F

from tests import tiny
from tests.train.test_loop import EXAMPLES, Line, Silent
from vislang.nn.linear import Linear
from vislang.train.config import TrainConfig
from vislang.train.log import read_metrics
from vislang.train.loop import Stream, train
from vislang.train.speed import Speed, matrix_rate, peak_memory

CPU = torch.device("cpu")


def operations(step) -> float:
    speed = Speed(CPU, torch.float32)
    with speed.counted("only"):
        step()
    return speed.row(1.0, {"only": (1, 0)}).get("speed/flops_per_second", 0)


@pytest.mark.parametrize("kind", [torch.nn.Linear, Linear])
def test_linear_maps_are_counted_by_either_library(kind):
    # oneDNN multiplies our own: its product is no operation that torch's counter knows.
    layer = kind(64, 128)
    x = torch.randn(256, 64, requires_grad=True)
    assert operations(lambda: layer(x).sum().backward()) == 3 * 2 * 256 * 64 * 128


def test_attention_is_counted_on_a_processor():
    queries = torch.randn(2, 4, 200, 32, requires_grad=True)
    # Two products forward; the backward pass has four and computes the weights once more.
    one = 2 * 2 * 4 * 200 * 200 * 32
    assert operations(lambda: F.scaled_dot_product_attention(queries, queries, queries).sum().backward()) == 7 * one


def test_each_stream_is_counted_once_and_a_step_sums_over_those_in_it():
    speed = Speed(CPU, torch.float32)
    layer, x = torch.nn.Linear(8, 8, bias=False), torch.randn(4, 8)
    for stream, times in {"one": 1, "two": 2}.items():
        with speed.counted(stream):
            for _ in range(times):
                layer(x)
    with speed.counted("one"):
        layer(x.repeat(9, 1))
    one = 2 * 4 * 8 * 8
    assert speed.row(0.5, {"one": (4, 0)})["speed/flops_per_second"] == 2 * one
    row = speed.row(0.5, {"one": (4, 10), "two": (6, 0)})
    assert row["speed/flops_per_second"] == 2 * 3 * one
    assert row["speed/matmul_share"] == 2 * 3 * one / matrix_rate(CPU, torch.float32)
    assert (row["speed/examples_per_second"], row["speed/tokens_per_second"]) == (20, 20)
    assert row["memory/peak_gib"] > 0


def test_what_was_not_counted_is_left_out():
    assert set(Speed(CPU, torch.float32).row(1.0, {"pictures": (4, 0)})) <= {
        "speed/examples_per_second",
        "memory/peak_gib",
    }


def test_the_matrix_rate_is_the_pace_of_a_product():
    """Of one that is timed here: not off by a unit or by a factor of the counting."""
    left, right = torch.randn(1024, 1024), torch.randn(1024, 1024)
    seconds = min(_seconds(left, right) for _ in range(5))
    assert 0.1 < matrix_rate(CPU, torch.float32) / (2 * 1024**3 / seconds) < 10


def _seconds(left, right) -> float:
    started = time.perf_counter()
    left @ right
    return time.perf_counter() - started


def test_peak_memory_is_what_the_system_says():
    peak = peak_memory(CPU)
    status = Path("/proc/self/status")
    if not status.exists():
        pytest.skip("no /proc to compare with")
    (line,) = [line for line in status.read_text().splitlines() if line.startswith("VmHWM:")]
    assert peak == pytest.approx(1024 * int(line.split()[1]), rel=0.01)


def test_counting_changes_no_result(tmp_path, monkeypatch):
    def losses(folder):
        torch.manual_seed(0)
        config = TrainConfig(steps=4, batch_size=4)
        train(Line(), [Stream("numbers", EXAMPLES, 1.0, 4)], config, folder, Silent())
        return read_metrics(folder / "metrics.jsonl")

    counted = losses(tmp_path / "counted")
    assert all(row["speed/matmul_share"] > 0 for row in counted)
    monkeypatch.setattr(Speed, "counted", lambda self, stream: torch.enable_grad())
    plain = losses(tmp_path / "plain")
    assert not any("speed/matmul_share" in row for row in plain)
    names = ("loss", "gradient_norm")
    assert [[row[name] for name in names] for row in counted] == [[row[name] for name in names] for row in plain]


def test_a_batch_of_flamingo_tells_its_tokens():
    batch = tiny.batch(media_token=5)
    # Three texts of 9; two tokens of padding before one, one after another.
    assert batch.tokens == 27 - 3
