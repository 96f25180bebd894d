"""The folder of each benchmark and a pair of towers, made once."""

from __future__ import annotations

import shutil

import pytest

from tests import tiny
from tests.tasks.families.family import families_by_name
from tests.tasks.families.models import GENERAL, MODELS
from vislang.tasks.benchmarks import BENCHMARKS


@pytest.fixture(scope="session")
def long_towers(tmp_path_factory):
    return tiny.save_towers(tmp_path_factory.mktemp("towers"), positions=1024)


@pytest.fixture(scope="session")
def good(tmp_path_factory):
    """For each benchmark a folder; the file of predictions is beside it."""
    root = tmp_path_factory.mktemp("families")
    for name, family in families_by_name().items():
        family.write(root / name)
        if family.sent is not None:
            (root / f"{name}.sent").mkdir()
            (root / f"{name}.sent" / family.sent[0]).write_text(family.sent[1], encoding="utf-8")
    return root


@pytest.fixture(scope="session")
def general(long_towers, tmp_path_factory):
    """The models that are the same for every task, built when they are needed."""
    made = {}

    def model(name, task):
        if name not in made:
            made[name] = MODELS[name](long_towers, task, tmp_path_factory.mktemp("model"))
        return made[name]

    return model


@pytest.fixture
def model_for(general, long_towers, tmp_path):
    """A model by name, for a task."""
    return lambda name, task: (
        general(name, task) if name in GENERAL else MODELS[name](long_towers, task, tmp_path / "model")
    )


@pytest.fixture
def folder_of(good, tmp_path):
    def copied(name):
        return shutil.copytree(good / name, tmp_path / name)

    return copied


@pytest.fixture
def task_of(good):
    return lambda name: BENCHMARKS[name](good / name)
