"""Tiny models of each kind and every task in its official format, made once for the tests of tasks times models."""

from __future__ import annotations

import pytest

from tests import tiny
from tests.evaluate import cells
from tests.tasks.official import FOLDERS


@pytest.fixture(scope="session")
def long_towers(tmp_path_factory):
    """A language model that has room for shots."""
    return tiny.save_towers(tmp_path_factory.mktemp("towers"), positions=1024)


@pytest.fixture(scope="session")
def folder(tmp_path_factory):
    """The folder of each task, by its name."""
    return tmp_path_factory.mktemp("official")


@pytest.fixture(scope="session")
def tasks(folder):
    """Every task that is given its data, opened."""
    return {name: cells.opened(name, folder) for name in FOLDERS}


@pytest.fixture(scope="session")
def models(long_towers, tasks):
    """A model of each kind; those with heads have one for every task that they can decide."""
    examples = [example for name in cells.DECIDED for example in cells.learned(tasks[name])]
    return {
        "flamingo": cells.flamingo(long_towers),
        "dual encoder": cells.dual_encoder(long_towers, tasks["captions"].support()),
        "vilbert": cells.vilbert(long_towers, examples),
    }


@pytest.fixture(scope="session")
def saved(models, tmp_path_factory):
    """The folder of each model."""
    folder = tmp_path_factory.mktemp("saved")
    for name, model in models.items():
        model.save(folder / name)
    return {name: str(folder / name) for name in models}
