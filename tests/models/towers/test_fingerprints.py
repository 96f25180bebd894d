"""The fingerprint of a tower's files is computed once, and again when they change."""

import os

import pytest
import safetensors.torch
import torch

from vislang.models.base import fingerprint
from vislang.models.towers import fingerprints
from vislang.models.towers.fingerprints import fingerprint_of_files
from vislang.models.towers.language import load_language_tower
from vislang.models.towers.vision import load_vision_tower


@pytest.fixture
def computed(monkeypatch):
    """The fingerprints that were computed, in order."""
    found = []

    def counted(state):
        found.append(fingerprint(state))
        return found[-1]

    monkeypatch.setattr(fingerprints, "fingerprint", counted)
    return found


def test_a_tower_is_hashed_once(towers, computed):
    for path, load in zip(towers, (load_language_tower, load_vision_tower), strict=True):
        first, second = load(path), load(path)
        assert first.fingerprint == second.fingerprint == computed[-1]
    assert len(computed) == 2


@pytest.fixture
def weights(tmp_path):
    """A folder with weights, and what is in it."""
    state = {"a": torch.arange(4.0), "b": torch.ones(2)}
    safetensors.torch.save_file(state, tmp_path / "model.safetensors")
    return tmp_path, state


def test_changed_weights_are_hashed_again(weights, computed):
    folder, state = weights
    file = folder / "model.safetensors"
    before, times = fingerprint_of_files(str(folder), state), file.stat()
    changed = state | {"b": -state["b"]}
    safetensors.torch.save_file(changed, file)
    # Even if the size and the time of modification are those of the old file.
    os.utime(file, ns=(times.st_atime_ns, times.st_mtime_ns))
    assert file.stat().st_size == times.st_size
    assert fingerprint_of_files(str(folder), changed) == fingerprint(changed) != before
    assert len(computed) == 2


def test_other_names_of_the_same_weights_are_hashed_again(weights, computed):
    folder, state = weights
    first = fingerprint_of_files(str(folder), state)
    assert fingerprint_of_files(str(folder), {f"model.{name}": tensor for name, tensor in state.items()}) != first
    assert len(computed) == 2


def test_a_cut_off_file_of_the_cache_is_not_believed(weights, computed, tmp_path, monkeypatch):
    folder, state = weights
    monkeypatch.setenv("VISLANG_CACHE", str(tmp_path / "cache"))
    found = fingerprint_of_files(str(folder), state)
    (kept,) = (tmp_path / "cache" / "fingerprints").iterdir()
    kept.write_text(found[:10])
    assert fingerprint_of_files(str(folder), state) == found
    assert len(computed) == 2


def test_weights_from_elsewhere_are_hashed_each_time(computed):
    state = {"a": torch.ones(2)}
    for _ in range(2):
        assert fingerprint_of_files("organisation/model", state) == fingerprint(state)
    assert len(computed) == 2
