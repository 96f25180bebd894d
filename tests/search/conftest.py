"""Photos of one's own, and a dual encoder that was trained on their captions."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from tests import tiny
from tests.models.test_dual_encoder import small
from tests.models.test_vilbert_pretraining import COLOURS, pair_of, picture
from vislang.models.dual_encoder.model import DualEncoderRecipe
from vislang.models.regions.readers import RegionsConfig


@pytest.fixture(scope="session")
def dual(towers, tmp_path_factory) -> str:
    """The folder of a dual encoder that knows four colours."""
    folder = tmp_path_factory.mktemp("dual")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("VISLANG_CACHE", str(folder / "cache"))
        pairs = [
            pair_of(picture(folder / f"{n}.png", COLOURS[n % 4], n), f"a {COLOURS[n % 4]} shape", name=str(n))
            for n in range(16)
        ]
        torch.manual_seed(0)
        model = DualEncoderRecipe(small(), RegionsConfig(tower=towers[1], image_size=0)).build()
        model.fit(pairs)
        optimizer = torch.optim.AdamW(model.parameters(), lr=3e-3)
        for _ in range(60):
            optimizer.zero_grad()
            sum(model(model.collate(pairs)).values()).backward()
            optimizer.step()
        model.eval().save(folder / "model")
    return str(folder / "model")


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
