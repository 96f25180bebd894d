"""Fixtures: tiny random models and pictures. jaxtyping's shapes are checked in all tests."""

from __future__ import annotations

import os

from jaxtyping import install_import_hook

# Without the Hub: a name that is not found locally fails at once instead of after retries.
os.environ["HF_HUB_OFFLINE"] = "1"

# Before vislang is imported, so that every annotated function checks its shapes and types.
install_import_hook(["vislang.nn", "vislang.models"], "beartype.beartype")

from pathlib import Path  # noqa: E402

import pytest  # noqa: E402
import torch  # noqa: E402

from tests import tiny  # noqa: E402


@pytest.fixture(autouse=True)
def _own_cache(tmp_path_factory, monkeypatch):
    """A cache for each test, except for tests of the packaged towers, whose conversion is slow."""
    monkeypatch.setenv("VISLANG_CACHE", str(tmp_path_factory.mktemp("cache")))


@pytest.fixture(autouse=True)
def _seed():
    torch.manual_seed(0)


@pytest.fixture
def pictures(tmp_path: Path) -> Path:
    """A folder with pictures and questions; see :func:`tests.tiny.draw_pictures`."""
    tiny.draw_pictures(tmp_path)
    return tmp_path


@pytest.fixture(scope="session")
def towers(tmp_path_factory) -> tuple[str, str]:
    """Folders of a tiny random language model with a tokenizer and of a tiny random image encoder."""
    return tiny.save_towers(tmp_path_factory.mktemp("towers"))


@pytest.fixture
def recipe(towers, tmp_path: Path) -> Path:
    """A recipe that trains on ``pictures`` in seconds."""
    return tiny.write_recipe(tmp_path / "tiny.yaml", *towers)
