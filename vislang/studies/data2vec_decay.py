"""Should the teacher follow the student ever more slowly?"""

from vislang.studies.arms import Arm
from vislang.studies.measures import Probe
from vislang.studies.study import RECIPES, Study

ANNEALED, FAST, SLOW = "annealed from 0.99 to 0.999", "constant 0.99", "constant 0.999"


def arm(name: str, start: float, end: float) -> Arm:
    """A teacher whose decay rises from ``start`` to ``end``."""
    changes = (f"--model.choices.decay={start}", f"--model.choices.end_decay={end}")
    return Arm(name, RECIPES / "data2vec.yaml", changes)


STUDY = Study(
    name="data2vec-decay",
    claim="A teacher whose decay rises during training is better than one with a constant decay.",
    source="Baevski et al. 2022 (data2vec), section 3.3, teacher parameterization",
    metric="accuracy",
    better=ANNEALED,
    than=(FAST, SLOW),
    arms=(arm(ANNEALED, 0.99, 0.999), arm(FAST, 0.99, 0.99), arm(SLOW, 0.999, 0.999)),
    measure=Probe("emoji-groups"),
    equal="steps",
    note="The decay rises over the first 100 steps.",
)
