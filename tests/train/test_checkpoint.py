"""Checkpoints on disk: whole or not there, the latest that can be read, nothing in them that runs."""

import json
import pickle

import pytest
import torch

from vislang.train.checkpoint import (
    CheckpointError,
    Checkpoints,
    DamagedCheckpoint,
    list_checkpoints,
    open_checkpoint,
)
from vislang.train.processes import Processes


def save(folder, step, tensors=None, keep=2, best=None):
    checkpoints = Checkpoints(folder, keep=keep)
    checkpoints.save(step, {"model/x": torch.tensor([step])} if tensors is None else tensors, {"extra": {}}, best)
    checkpoints.wait()
    return folder / f"step-{step:08d}"


def names(folder):
    return [path.name for path in list_checkpoints(folder)]


def test_only_the_latest_stay_and_the_last_is_read(tmp_path):
    for step in (5, 10, 100):
        save(tmp_path, step)
    assert names(tmp_path) == ["step-00000010", "step-00000100"]
    found = Checkpoints(tmp_path).latest()
    assert (found.step, found.model_state()["x"].item()) == (100, 100)


def test_the_best_stays_beside_the_latest(tmp_path):
    for step in (1, 2, 3, 4):
        save(tmp_path, step, best={"score": 0.5} if step == 2 else None)
    assert names(tmp_path) == ["step-00000002", "step-00000003", "step-00000004"]
    assert Checkpoints(tmp_path).best() == {"checkpoint": "step-00000002", "score": 0.5}


def test_a_tensor_that_changes_after_the_call_is_saved_as_it_was(tmp_path):
    moving = torch.zeros(1000)
    checkpoints = Checkpoints(tmp_path)
    checkpoints.save(1, {"model/x": moving}, {})
    moving.fill_(7)
    checkpoints.wait()
    assert not Checkpoints(tmp_path).latest().model_state()["x"].any()


def test_what_was_not_finished_does_not_count(tmp_path):
    save(tmp_path, 1)
    (tmp_path / ".unfinished-00000002").mkdir()
    (tmp_path / ".unfinished-00000002" / "state.json").write_text("{}")
    (tmp_path / "step-00000003").mkdir()
    assert Checkpoints(tmp_path).latest().step == 1


def test_what_a_killed_run_left_is_removed(tmp_path):
    path = save(tmp_path, 1)
    for name in (".unfinished-00000002", ".removed-step-00000000"):
        (tmp_path / name).mkdir()
        (tmp_path / name / "state.json").write_text("{}")
    Checkpoints(tmp_path, Processes(1, 2)).check(0)
    assert len(list(tmp_path.iterdir())) == 3
    Checkpoints(tmp_path).check(0)
    assert list(tmp_path.iterdir()) == [path]


def test_a_run_that_wrote_none_has_none(tmp_path):
    assert Checkpoints(tmp_path / "none").latest() is None


@pytest.mark.parametrize("file", ["__0_0.distcp", ".metadata", "state.json"])
def test_a_damaged_one_is_passed_over_with_a_warning(tmp_path, file):
    for step in (1, 2):
        path = save(tmp_path, step, {"model/x": torch.ones(9)})
    (path / file).write_bytes((path / file).read_bytes()[:50])
    with pytest.warns(DamagedCheckpoint, match="step-00000002: damaged, and passed over"):
        assert Checkpoints(tmp_path).latest().step == 1
    first = tmp_path / "step-00000001" / file
    first.write_bytes(first.read_bytes()[:50])
    with pytest.warns(DamagedCheckpoint), pytest.raises(CheckpointError, match="all 2 checkpoints in it are damaged"):
        Checkpoints(tmp_path).latest()


def test_a_tensor_that_is_missing_is_damage_too(tmp_path):
    path = save(tmp_path, 1, {"model/x": torch.ones(9), "model/y": torch.ones(9)})
    state = json.loads((path / "state.json").read_text())
    (path / "state.json").write_text(json.dumps({**state, "tensors": [*state["tensors"], "optimizer/x/exp_avg"]}))
    with pytest.warns(DamagedCheckpoint, match=r"missing: optimizer/x/exp_avg"), pytest.raises(CheckpointError):
        Checkpoints(tmp_path).latest()


def test_text_of_an_old_checkpoint_becomes_extra_state(tmp_path):
    def text(value):
        return torch.frombuffer(bytearray(value.encode()), dtype=torch.uint8)

    model = {"w": torch.ones(2), "tokenizer": text("{}"), "labels": text('["a"]'), "updates": torch.tensor(7)}
    folder = tmp_path / "step-00000001"
    folder.mkdir()
    torch.save({"step": 1, "model": model, "optimizer": {}, "random": {}}, folder / "state.pt")
    found = Checkpoints(tmp_path).latest()
    assert list(found.model_state()) == ["w"]
    assert found.values["extra"] == {"tokenizer": "{}", "labels": ["a"], "updates": 7}


def test_no_code_is_run_from_a_checkpoint(tmp_path):
    class Trap:
        def __reduce__(self):
            return (open, (str(tmp_path / "sprung"), "w"))

    old = tmp_path / "old" / "step-00000001"
    old.mkdir(parents=True)
    torch.save({"step": 1, "x": Trap()}, old / "state.pt")
    with pytest.warns(DamagedCheckpoint), pytest.raises(CheckpointError, match="damaged"):
        Checkpoints(tmp_path / "old").latest()
    new = save(tmp_path / "new", 1)
    (new / ".metadata").write_bytes(pickle.dumps(Trap()))
    with pytest.raises(pickle.UnpicklingError, match=r"it wants .*open, which is no part of a checkpoint"):
        open_checkpoint(new)
    assert not (tmp_path / "sprung").exists()


def test_a_folder_that_cannot_take_a_checkpoint_is_named_before_training(tmp_path):
    (tmp_path / "file").write_text("mine")
    with pytest.raises(CheckpointError, match="cannot be written to"):
        Checkpoints(tmp_path / "file" / "checkpoints").check(1)
    with pytest.raises(CheckpointError, match=r"a checkpoint takes .* MiB, and .* are free"):
        Checkpoints(tmp_path).check(2**60)


def test_a_full_disk_leaves_the_last_one_and_says_so(tmp_path, monkeypatch):
    save(tmp_path, 1)

    def full(*arguments):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("vislang.train.checkpoint._sha256", full)
    with pytest.raises(
        CheckpointError, match=r"No space left on device\)\. The last whole one is step-00000001.*--resume"
    ):
        save(tmp_path, 2)
    assert [path.name for path in tmp_path.iterdir()] == ["step-00000001"]
