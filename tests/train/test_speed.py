"""Rates: operations as counted by hand, tokens as batches tell them, and results that counting does not change."""

import time
from contextlib import nullcontext
from pathlib import Path

import pytest
import torch
import torch.nn.functional as F

from tests import tiny
from tests.train.line import EXAMPLES, Line, Silent
from vislang.data.jsonl import read_jsonl
from vislang.nn.linear import Linear
from vislang.train.batches import Stream
from vislang.train.config import TrainConfig
from vislang.train.log import read_metrics, without_measurements
from vislang.train.loop import train
from vislang.train.operations import operations_of
from vislang.train.rows import StepSize
from vislang.train.speed import Speed, Stopwatch, matrix_rate, peak_memory

CPU = torch.device("cpu")


def operations(step) -> float:
    speed = Speed(CPU)
    with speed.counted(("only",)):
        step()
    return speed.row(1.0, StepSize(("only",), 1, 0)).get("speed/flops_per_second", 0)


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


@pytest.mark.parametrize("kernel", ["efficient_attention", "flash_attention", "cudnn_attention"])
def test_grouped_queries_are_counted_by_query_head(kernel):
    """For a kernel of GPUs the formula sees shapes alone; keys and values have fewer heads."""
    queries = torch.empty(2, 6, 20, 32, device="meta")
    keys, values = torch.empty(2, 3, 30, 32, device="meta"), torch.empty(2, 3, 30, 16, device="meta")
    forward = getattr(torch.ops.aten, f"_scaled_dot_product_{kernel}")
    backward = getattr(torch.ops.aten, f"_scaled_dot_product_{kernel}_backward")
    pairs = 2 * 2 * 6 * 20 * 30
    assert operations_of(forward, (queries, keys, values), {}, None) == pairs * (32 + 16)
    assert operations_of(backward, (None, queries, keys, values), {}, None) == pairs * (3 * 32 + 2 * 16)


def test_each_set_of_streams_is_counted_once():
    speed = Speed(CPU)
    layer, x = torch.nn.Linear(8, 8, bias=False), torch.randn(4, 8)
    for streams, times in {("one",): 1, ("one", "two"): 3}.items():
        with speed.counted(streams):
            for _ in range(times):
                layer(x)
    with speed.counted(("one",)):
        layer(x.repeat(9, 1))
    one = 2 * 4 * 8 * 8
    assert speed.row(0.5, StepSize(("one",), 4, 0))["speed/flops_per_second"] == 2 * one
    row = speed.row(0.5, StepSize(("one", "two"), 10, 12))
    assert row["speed/flops_per_second"] == 2 * 3 * one
    assert row["speed/matmul_share"] == 2 * 3 * one / matrix_rate(CPU, torch.float32)
    assert (row["speed/examples_per_second"], row["speed/tokens_per_second"]) == (20, 24)
    assert row["memory/peak_gib"] > 0


def test_what_was_not_counted_is_left_out():
    layer, size = torch.nn.Linear(8, 8), StepSize(("pictures",), 4, 0)
    for speed in (Speed(CPU), Speed(CPU, counts=False)):
        assert set(speed.row(1.0, size)) <= {"speed/examples_per_second", "memory/peak_gib"}
        with speed.counted(size.streams):
            layer(torch.randn(4, 8))
    assert "speed/matmul_share" not in speed.row(1.0, size)


def test_the_rate_is_measured_in_the_type_of_most_operations():
    speed = Speed(CPU)
    large, small = torch.randn(64, 64, dtype=torch.bfloat16), torch.randn(8, 8)
    with speed.counted(("mixed",)):
        large @ large
        small @ small
    row = speed.row(1.0, StepSize(("mixed",), 1, 0))
    assert row["speed/flops_per_second"] == 2 * 64**3 + 2 * 8**3
    assert row["speed/matmul_share"] == row["speed/flops_per_second"] / matrix_rate(CPU, torch.bfloat16)


@pytest.mark.parametrize(("rate", "rows"), [(3e9, 256), (50e9, 1024), (1e15, 2048)])
def test_the_matrix_rate_is_that_of_the_fastest_large_product(monkeypatch, rate, rows):
    """On a clock that stands still but for products, of which every other one is interrupted."""
    now, sizes = [0.0], []

    def product(left, right, out):
        sizes.append(len(left))
        now[0] += 2 * len(left) ** 3 / rate * (1 + 2 * (len(sizes) % 2))

    monkeypatch.setattr(torch, "matmul", product)
    monkeypatch.setattr(time, "perf_counter", lambda: now[0])
    assert matrix_rate.__wrapped__(CPU, torch.float32) == pytest.approx(rate)
    assert sizes[-1] == rows
    assert now[0] < 1


def test_peak_memory_is_what_the_system_says():
    peak = peak_memory(CPU)
    status = Path("/proc/self/status")
    if not status.exists():
        pytest.skip("no /proc to compare with")
    (line,) = [line for line in status.read_text().splitlines() if line.startswith("VmHWM:")]
    assert peak == pytest.approx(1024 * int(line.split()[1]), rel=0.01)


def test_counting_changes_no_bit(towers, pictures):
    """Torch's own counter computes the gradient of SiLU in another way."""
    model = tiny.flamingo(towers).train()
    examples = read_jsonl(pictures / "my.jsonl", [])[:4]
    model.prepare(examples)
    found = []
    for counted in (False, True):
        speed = Speed(CPU)
        model.zero_grad()
        with speed.counted(("pictures",)) if counted else nullcontext():
            (loss,) = model(model.collate(examples, 0)).values()
            loss.backward()
        found.append([loss.detach(), *(p.grad for p in model.parameters() if p.grad is not None)])
    assert speed.row(1.0, StepSize(("pictures",), 4, 0))["speed/flops_per_second"] > 0
    assert all(torch.equal(plain, counted) for plain, counted in zip(*found, strict=True))


def test_the_loop_logs_what_it_measures(tmp_path):
    config = TrainConfig(steps=2, batch_size=4)
    train(Line(), [Stream("numbers", EXAMPLES, 1.0, 4)], config, tmp_path, Silent())
    rows = read_metrics(tmp_path / "metrics.jsonl")
    for row in rows:
        assert row["speed/matmul_share"] > 0
        assert "speed/tokens_per_second" not in row
    first, second = rows
    seconds = second["seconds"] - first["seconds"]
    assert second["speed/examples_per_second"] == pytest.approx(4 / seconds, rel=1)
    assert without_measurements(first).keys() == {"step", "loss", "loss/error", "gradient_norm", "lr"}


def test_a_stopwatch_counts_while_it_runs(monkeypatch):
    now = [5.0]
    monkeypatch.setattr(time, "perf_counter", lambda: now[0])
    clock = Stopwatch(2.0)
    seen = []
    for action in (clock.start, clock.stop, clock.stop, clock.start):
        action()
        now[0] += 1
        seen.append(clock.seconds)
    assert seen == [3.0, 3.0, 3.0, 4.0]


def test_a_batch_of_flamingo_tells_its_tokens():
    batch = tiny.batch(media_token=5)
    # Three texts of 9; two tokens of padding before one, one after another.
    assert batch.tokens == 27 - 3
