"""How many gated blocks does a Flamingo need?"""

from vislang.studies.arms import Arm
from vislang.studies.measures import Scored
from vislang.studies.study import RECIPES, Study

RECIPE = RECIPES / "flamingo.yaml"
FOURTH, MIDDLE = "before every 4th layer", "one in the middle"

STUDY = Study(
    name="gate-frequency",
    claim="Gated blocks throughout the language model are better than one in its middle.",
    source="Alayrac et al. 2022 (Flamingo), table 3, rows of the cross-attention frequency",
    metric="accuracy",
    better=FOURTH,
    than=(MIDDLE,),
    # The slowest one is the first, because its share of the budget sets the number of steps.
    arms=(
        Arm("before every 2nd layer", RECIPE, ("--model.bridge.gated_layers=null", "--model.bridge.gate_every=2")),
        Arm(FOURTH, RECIPE, ("--model.bridge.gated_layers=null", "--model.bridge.gate_every=4")),
        Arm(MIDDLE, RECIPE, ("--model.bridge.gated_layers=[15]",)),
    ),
    measure=Scored("easy-vqa"),
    equal="steps",
    note="As in the paper, more blocks also mean more trained parameters.",
)
