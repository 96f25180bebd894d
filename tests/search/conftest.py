"""Photos of one's own, and a dual encoder that was trained on their captions."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests import tiny
from tests.models.test_dual_encoder import dual  # noqa: F401
from tests.models.test_vilbert_pretraining import COLOURS, picture


@pytest.fixture(scope="session")
def flamingo(towers, tmp_path_factory) -> str:
    """The folder of a Flamingo, whose weights are random."""
    folder = tmp_path_factory.mktemp("flamingo") / "model"
    tiny.flamingo(towers).save(folder)
    return str(folder)


@pytest.fixture
def photos(tmp_path) -> Path:
    """A folder with 12 pictures of four colours, some of them in a folder inside it."""
    folder = tmp_path / "photos"
    (folder / "more").mkdir(parents=True)
    for n in range(12):
        picture(folder / ("more" if n > 7 else "") / f"{COLOURS[n % 4]}-{n}.png", COLOURS[n % 4], n)
    return folder
