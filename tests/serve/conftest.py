"""A served model of each kind: the tiny random ones of ``tests/saved``."""

from __future__ import annotations

import pytest

from tests.models.test_saved_models import SAVED, TOWERS, regions
from tests.serve.running import running
from vislang.models.loading import load
from vislang.serve.served import Served


@pytest.fixture(scope="package")
def models() -> dict[str, Served]:
    opened = {
        "flamingo": load(SAVED / "flamingo", **TOWERS),
        "vilbert": load(SAVED / "vilbert-tasks", regions=regions()),
        "dual": load(SAVED / "dual-encoder", regions=regions()),
        "data2vec": load(SAVED / "data2vec-v2"),
        "finetuned": load(SAVED / "data2vec-finetuned"),
    }
    return {name: Served(name, model) for name, model in opened.items()}


@pytest.fixture(scope="package")
def flamingo(models):
    """The model behind the name "flamingo"."""
    return models["flamingo"].model


@pytest.fixture(scope="package")
def address(models):
    with running(models) as found:
        yield found
