"""Two processes train what one does: losses and parameters to 1e-12, in float64, replicated and sharded."""

from __future__ import annotations

import os
import pickle
from pathlib import Path

import pytest
import torch

from tests.train import cases, matrices
from tests.train.several import free_port, start, together

WAYS = {
    "ddp": {"parallel": "ddp"},
    # Nothing is so small that its blocks would not be sharded, or its gradients kept whole between passes.
    "fsdp2": {"parallel": "fsdp2", "shard_above": 0},
    "fsdp2, reduced once": {"parallel": "fsdp2"},
}


def ways(name: str) -> list[str]:
    """How a case is trained; flamingo has several streams and micro-batches, so it can be reduced once or often."""
    return list(WAYS) if name == "flamingo" else ["ddp", "fsdp2"]


def _one_of_two(rank: int, port: int, folder: Path, out: Path) -> None:
    os.environ["VISLANG_CACHE"] = str(folder / "cache")
    with together(rank, 2, port) as processes:
        matrices.update(rank, out)
        for name in cases.CASES:
            for way in ways(name):
                found = cases.run(name, folder, out / name / way, **WAYS[way])
                if processes.is_first:
                    (out / f"{name}-{way}.pickle").write_bytes(pickle.dumps(found))


@pytest.fixture(scope="module")
def two(tmp_path_factory):
    """The folder of the files, and what two processes made of every case; they are started once."""
    folder, out = tmp_path_factory.mktemp("files"), tmp_path_factory.mktemp("two")
    cases.write_files(folder)
    start(2, _one_of_two, free_port(), folder, out)
    return folder, out


def test_muon_updates_a_sharded_matrix_as_a_whole_one(two):
    found = [torch.load(two[1] / f"muon-{rank}.pt") for rank in range(2)]
    # Five rows are shared unevenly.
    assert [len(each["own"]) for each in found] == [3, 2]
    for each in found:
        assert torch.equal(each["sharded"], each["whole"])


@pytest.mark.parametrize("name", cases.CASES)
def test_two_processes_train_what_one_does(two, name, tmp_path, monkeypatch):
    folder, out = two
    monkeypatch.setenv("VISLANG_CACHE", str(folder / "cache"))
    alone = cases.run(name, folder, tmp_path, accumulate=1)
    moved = [n for n, tensor in alone["state"].items() if not torch.equal(tensor, alone["before"][n])]
    assert len(moved) > 10
    for way in ways(name):
        found = pickle.loads((out / f"{name}-{way}.pickle").read_bytes())
        assert [row.keys() for row in found["rows"]] == [row.keys() for row in alone["rows"]]
        for row, expected in zip(found["rows"], alone["rows"], strict=True):
            # Diagnostics such as a standard deviation are means over processes, which is another number.
            compared = {k: v for k, v in expected.items() if k.startswith(("loss", "gradient", "eval", "step"))}
            assert {key: row[key] for key in compared} == pytest.approx(compared, rel=1e-12, abs=1e-13), way
        assert found["state"].keys() == alone["state"].keys()
        far = {n: (t - alone["state"][n]).abs().max().item() for n, t in found["state"].items()}
        assert {n: distance for n, distance in far.items() if distance > 1e-12} == {}, way
