"""Corrupt records in a run of two real processes: both skip the same, and each is counted and listed once."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch

from tests.train import cases
from tests.train.cases import Silent
from tests.train.several import free_port, start, together
from vislang.data.bad_records import FILE, BadRecords, read_kinds
from vislang.train.batches import Stream
from vislang.train.config import TrainConfig
from vislang.train.log import read_metrics
from vislang.train.loop import train

CORRUPT = ("2.png", "5.png", "9.png")


def _train(folder: Path, out: Path, **settings) -> BadRecords:
    """Three passes over twelve pictures, three of which are cut short."""
    torch.manual_seed(0)
    case = cases.data2vec_v1(folder)
    cases.in_float64(case.model)
    bad = BadRecords(skip=True)
    stream = Stream("p", case.streams[0].examples, 1.0, 6)
    config = TrainConfig(steps=6, batch_size=6, warmup_steps=0, checkpoint_every=6, device="cpu", **settings)
    train(case.model, [stream], config, out, Silent(), bad_records=bad)
    return bad


def _one_of_two(rank: int, port: int, folder: Path, out: Path) -> None:
    with together(rank, 2, port):
        bad = _train(folder, out, parallel="ddp")
    (out / f"kinds-{rank}.json").write_text(json.dumps(bad.kinds))


def test_two_processes_skip_the_same_and_list_each_once(tmp_path):
    cases.write_files(tmp_path)
    for name in CORRUPT:
        data = (tmp_path / name).read_bytes()
        (tmp_path / name).write_bytes(data[: len(data) // 2])
    alone = _train(tmp_path, tmp_path / "one")
    start(2, _one_of_two, free_port(), tmp_path, tmp_path / "two")
    listed = [[json.loads(line) for line in (tmp_path / n / FILE).read_text().splitlines()] for n in ("one", "two")]
    for rows in listed:
        assert sorted(Path(row["message"].split(": ")[0]).name for row in rows) == sorted(CORRUPT)
    # In the same step, too. The order within a step is that of the processes.
    steps = [sorted((row["message"], row["step"]) for row in rows) for rows in listed]
    assert steps[0] == steps[1]
    kinds = [json.loads((tmp_path / "two" / f"kinds-{rank}.json").read_text()) for rank in range(2)]
    # Over three passes each process has met records that the other one has met, too.
    assert sum(sum(own.values()) for own in kinds) > len(CORRUPT)
    assert read_kinds(tmp_path / "two") == read_kinds(tmp_path / "one") == dict(alone.kinds)
    assert sum(alone.kinds.values()) == len(CORRUPT)
    losses = [[row["loss"] for row in read_metrics(tmp_path / n / "metrics.jsonl")] for n in ("one", "two")]
    assert losses[1] == pytest.approx(losses[0], rel=1e-12)
