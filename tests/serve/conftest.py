"""A served model of each kind: the tiny random ones of ``tests/saved``, and a Flamingo with open gates."""

from __future__ import annotations

import pytest

from tests import tiny
from tests.models.test_saved_models import SAVED, regions
from vislang.models.loading import load
from vislang.serve.served import Served

from .running import running


@pytest.fixture(scope="package")
def flamingo(towers) -> Served:
    return Served("flamingo", tiny.flamingo(towers))


@pytest.fixture(scope="package")
def models(flamingo) -> dict[str, Served]:
    opened = {
        "vilbert": load(SAVED / "vilbert-tasks", regions=regions()),
        "dual": load(SAVED / "dual-encoder", regions=regions()),
        "data2vec": load(SAVED / "data2vec-v2"),
        "finetuned": load(SAVED / "data2vec-finetuned"),
    }
    return {"flamingo": flamingo, **{name: Served(name, model) for name, model in opened.items()}}


@pytest.fixture(scope="package")
def address(models):
    with running(models) as found:
        yield found
