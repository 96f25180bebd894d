"""The studies by name. A study of your own needs no entry: ``vislang study FILE.py`` runs the one in a file."""

from __future__ import annotations

import importlib.util
from importlib import import_module
from pathlib import Path

from vislang.errors import UserError
from vislang.studies.recorded import RECORDED
from vislang.studies.study import Claim, Study

MODULES = (
    *("two_streams", "depth", "depth_grounding", "pretraining_dose"),
    *("gates", "resampler", "gate_frequency", "frozen_language_model", "shots_by_size", "retrieved_shots"),
    *("data2vec_generations", "data2vec_targets", "data2vec_top_k", "data2vec_beta", "data2vec_decay"),
    *("data2vec_masking", "data2vec_one_encoder"),
)
"""The modules of :mod:`vislang.studies` with a ``STUDY``."""


def all_claims() -> dict[str, Claim]:
    """The studies, then the recorded claims, by name."""
    studies: list[Claim] = [import_module(f"vislang.studies.{module}").STUDY for module in MODULES]
    return {claim.name: claim for claim in (*studies, *RECORDED)}


def open_study(name: str) -> Study:
    """The study with a name, or the ``STUDY`` of a Python file.

    Raises:
        UserError: there is none, or it is a recorded claim.
    """
    if name.endswith(".py"):
        return _in_file(Path(name))
    claims = all_claims()
    found = claims.get(name)
    if isinstance(found, Study):
        return found
    if found is not None:
        raise UserError(f"{name}: has a program of its own. Run: {getattr(found, 'command', '')}")
    studies = ", ".join(name for name, claim in claims.items() if isinstance(claim, Study))
    raise UserError(f"no study {name!r}. The studies are {studies}; or give a Python file with a STUDY.")


def _in_file(path: Path) -> Study:
    if not path.is_file():
        raise UserError(f"{path}: no such file. Give a Python file with a STUDY, or a name of vislang study --list.")
    spec = importlib.util.spec_from_file_location(path.stem, path)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    study = getattr(module, "STUDY", None)
    if not isinstance(study, Study):
        raise UserError(f"{path}: defines no STUDY that is a vislang.studies.study.Study.")
    return study
