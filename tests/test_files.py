"""Files that are written whole or not at all. A limit on the size of files stands for a disk that is full."""

import errno
import resource
from contextlib import contextmanager

import pytest
import safetensors.torch
import torch
from torch import nn

from vislang.cli import main
from vislang.errors import UserError
from vislang.files import system_errors, whole_file, write_text
from vislang.models.base import fill_model, write_model
from vislang.models.towers.feature_cache import FeatureCache
from vislang.train.checkpoint import CheckpointError, Checkpoints


@contextmanager
def largest_file(size: int):
    """The system refuses to write files beyond a size."""
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (size, hard))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))


def test_a_text_is_written_whole_or_not_at_all(tmp_path):
    path = tmp_path / "page.html"
    write_text(path, "first")
    with largest_file(10_000), pytest.raises(OSError, match="too large") as caught:
        write_text(path, "x" * 50_000)
    assert (caught.value.errno, caught.value.filename) == (errno.EFBIG, str(path))
    assert path.read_text() == "first"
    with pytest.raises(UnicodeEncodeError), whole_file(path) as unfinished:
        unfinished.write_text("half\udcff", encoding="utf-8")
    assert [file.name for file in tmp_path.iterdir()] == ["page.html"]


def test_a_model_is_replaced_whole_or_not_at_all(tmp_path):
    small, large = nn.Linear(9, 9), nn.Linear(300, 300)
    for state in (None, large.state_dict()):
        write_model(tmp_path / "model", small, {}, None if state is None else small.state_dict())
        with largest_file(50_000), pytest.raises(OSError, match="too large") as caught:
            write_model(tmp_path / "model", large, {}, state)
        assert caught.value.filename == str(tmp_path / "model" / "model.safetensors")
        fill_model(small, tmp_path / "model")
        assert sorted(file.name for file in (tmp_path / "model").iterdir()) == ["config.json", "model.safetensors"]


def test_a_checkpoint_that_does_not_fit_leaves_the_one_before(tmp_path):
    checkpoints = Checkpoints(tmp_path)
    checkpoints.save(1, {"model/x": torch.ones(3)}, {})
    checkpoints.wait()
    with largest_file(50_000):
        checkpoints.save(2, {"model/x": torch.ones(90_000)}, {})
        with pytest.raises(CheckpointError, match=r"no checkpoint could be written .*last whole one is step-00000001"):
            checkpoints.wait()
    assert [path.name for path in tmp_path.iterdir()] == ["step-00000001"]
    assert checkpoints.latest().step == 1


def test_a_cache_that_cannot_be_written_is_an_error_for_the_user(tmp_path):
    cache = FeatureCache(tmp_path / "features")
    with largest_file(50_000), pytest.raises(UserError, match=r"features: the cache cannot be written .*VISLANG_CACHE"):
        cache.put("abc", torch.ones(90_000))
    assert not [path for path in cache.folder.rglob("*") if path.is_file()]
    assert cache.get("abc") is None


def test_the_systems_error_is_found_behind_those_of_libraries(tmp_path):
    path = tmp_path / "weights"
    with path.open("wb") as file:
        for write in (
            lambda: torch.save(torch.ones(90_000), file),
            lambda: safetensors.torch.save_file({"x": torch.ones(90_000)}, path),
        ):
            with largest_file(50_000), pytest.raises(OSError, match="too large"), system_errors(path):
                write()
    with pytest.raises(ValueError, match="another"), system_errors(path):
        raise ValueError("another error")


def test_the_command_line_says_what_to_do(pictures, capsys):
    with largest_file(2_000):
        assert main(["data", "show", str(pictures / "my.jsonl"), "-o", str(pictures / "page.html")]) == 2
    error = capsys.readouterr().err
    assert error.startswith(f"vislang: {pictures / 'page.html'}: File too large. Free some space")
    assert len(error.splitlines()) == 1
    assert not (pictures / "page.html").exists()
