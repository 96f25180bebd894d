import pytest
import torch

from vislang.train.checkpoint import (
    CheckpointError,
    DamagedCheckpoint,
    list_checkpoints,
    load_checkpoint,
    save_checkpoint,
)


def test_only_the_latest_stay_and_the_last_is_read(tmp_path):
    for step in (5, 10, 100):
        save_checkpoint(tmp_path, step, {"x": torch.tensor([step]), "extra": {}}, keep=2)
    assert [path.name for path in list_checkpoints(tmp_path)] == ["step-00000010", "step-00000100"]
    assert load_checkpoint(tmp_path)["x"].item() == 100


def test_what_was_not_finished_does_not_count(tmp_path):
    save_checkpoint(tmp_path, 1, {"extra": {}}, keep=2)
    (tmp_path / ".unfinished-00000002").mkdir()
    (tmp_path / ".unfinished-00000002" / "state.pt").write_bytes(b"half")
    (tmp_path / "step-00000003").mkdir()
    assert load_checkpoint(tmp_path)["step"] == 1


def test_a_run_that_wrote_none_has_none(tmp_path):
    assert load_checkpoint(tmp_path / "none") is None


def test_a_damaged_one_is_passed_over_with_a_warning(tmp_path):
    for step in (1, 2):
        path = save_checkpoint(tmp_path, step, {"x": torch.ones(9), "extra": {}}, keep=2) / "state.pt"
    path.write_bytes(path.read_bytes()[:50])
    with pytest.warns(DamagedCheckpoint, match="step-00000002: damaged, and passed over"):
        assert load_checkpoint(tmp_path)["step"] == 1
    first = tmp_path / "step-00000001" / "state.pt"
    first.write_bytes(first.read_bytes()[:50])
    with pytest.warns(DamagedCheckpoint), pytest.raises(CheckpointError, match="all 2 checkpoints in it are damaged"):
        load_checkpoint(tmp_path)


def test_text_of_an_old_checkpoint_becomes_extra_state(tmp_path):
    def text(value):
        return torch.frombuffer(bytearray(value.encode()), dtype=torch.uint8)

    model = {"w": torch.ones(2), "tokenizer": text("{}"), "labels": text('["a"]'), "updates": torch.tensor(7)}
    save_checkpoint(tmp_path, 1, {"model": model}, keep=1)
    found = load_checkpoint(tmp_path)
    assert list(found["model"]) == ["w"]
    assert found["extra"] == {"tokenizer": "{}", "labels": ["a"], "updates": 7}


def test_no_code_is_run_from_a_checkpoint(tmp_path):
    class Trap:
        def __reduce__(self):
            return (open, (str(tmp_path / "sprung"), "w"))

    path = save_checkpoint(tmp_path, 1, {}, keep=1) / "state.pt"
    torch.save({"step": 1, "x": Trap()}, path)
    with pytest.warns(DamagedCheckpoint), pytest.raises(CheckpointError, match="damaged"):
        load_checkpoint(tmp_path)
    assert not (tmp_path / "sprung").exists()
