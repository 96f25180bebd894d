import pytest
import torch

from vislang.train.checkpoint import CheckpointError, list_checkpoints, load_checkpoint, save_checkpoint


def test_only_the_latest_stay_and_the_last_is_read(tmp_path):
    for step in (5, 10, 100):
        save_checkpoint(tmp_path, step, {"x": torch.tensor([step])}, keep=2)
    assert [path.name for path in list_checkpoints(tmp_path)] == ["step-00000010", "step-00000100"]
    assert load_checkpoint(tmp_path)["x"].item() == 100


def test_what_was_not_finished_does_not_count(tmp_path):
    save_checkpoint(tmp_path, 1, {}, keep=2)
    (tmp_path / ".unfinished-00000002").mkdir()
    (tmp_path / ".unfinished-00000002" / "state.pt").write_bytes(b"half")
    (tmp_path / "step-00000003").mkdir()
    assert load_checkpoint(tmp_path)["step"] == 1


def test_nothing_to_go_on_from(tmp_path):
    with pytest.raises(CheckpointError, match="no checkpoint in it"):
        load_checkpoint(tmp_path / "none")


def test_a_damaged_one_is_told(tmp_path):
    path = save_checkpoint(tmp_path, 1, {"x": torch.ones(9)}, keep=1) / "state.pt"
    path.write_bytes(path.read_bytes()[:50])
    with pytest.raises(CheckpointError, match="damaged"):
        load_checkpoint(tmp_path)


def test_no_code_is_run_from_a_checkpoint(tmp_path):
    class Trap:
        def __reduce__(self):
            return (open, (str(tmp_path / "sprung"), "w"))

    path = save_checkpoint(tmp_path, 1, {}, keep=1) / "state.pt"
    torch.save({"step": 1, "x": Trap()}, path)
    with pytest.raises(CheckpointError, match="damaged"):
        load_checkpoint(tmp_path)
    assert not (tmp_path / "sprung").exists()
