"""How many gated blocks does a Flamingo need?"""

from collections.abc import Iterable

from vislang.studies.arms import Arm
from vislang.studies.measures import HeldOut
from vislang.studies.study import RECIPES, Study

FOURTH, MIDDLE = "before every 4th layer", "one in the middle"


def arm(name: str, layers: Iterable[int]) -> Arm:
    """A Flamingo with gated blocks before these of the language model's 30 layers."""
    return Arm(name, RECIPES / "flamingo.yaml", (f"--model.bridge.gated_layers={list(layers)}",))


STUDY = Study(
    name="gate-frequency",
    claim="Gated blocks throughout the language model are better than one in its middle.",
    source="Alayrac et al. 2022 (Flamingo), table 3, rows of the cross-attention frequency",
    metric="loss_per_token",
    better=FOURTH,
    than=(MIDDLE,),
    # The slowest one is the first, because its share of the budget sets the number of steps.
    arms=(arm("before every 2nd layer", range(1, 30, 2)), arm(FOURTH, range(3, 30, 4)), arm(MIDDLE, [15])),
    measure=HeldOut("easy-vqa"),
    equal="steps",
    note="As in the paper, more blocks also mean more trained parameters.",
)
