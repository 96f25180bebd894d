"""The small data2vec of the studies: its arms, and the studies that probe its features for the group of an emoji."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Literal

from vislang.studies.arms import Arm
from vislang.studies.measures import Probe
from vislang.studies.study import RECIPES, Study

RECIPE = RECIPES / "data2vec.yaml"


def arm(name: str, settings: Mapping[str, Any] | None = None) -> Arm:
    """A pretraining run.

    Args:
        name: its name in the table.
        settings: the settings of the model in which it differs, such as ``{"choices.beta": 2}``.
    """
    return Arm(name, RECIPE, tuple(f"--model.{key}={value}" for key, value in (settings or {}).items()))


def probed(
    name: str,
    claim: str,
    source: str,
    better: str,
    than: tuple[str, ...],
    arms: tuple[Arm, ...],
    equal: Literal["minutes", "steps"] = "steps",
    note: str = "",
) -> Study:
    """A study whose measure is the accuracy of a linear probe of ``emoji-groups``; see Study for the arguments."""
    measure = Probe("emoji-groups")
    return Study(name, claim, source, "accuracy", better, than, note, arms=arms, measure=measure, equal=equal)
