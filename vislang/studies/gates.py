"""Are gates that start closed better than gates that start open?"""

from vislang.studies.arms import Arm
from vislang.studies.measures import HeldOut
from vislang.studies.study import RECIPES, Study

RECIPE = RECIPES / "flamingo.yaml"
CLOSED, OPEN = "closed at the start", "open at the start"

STUDY = Study(
    name="gates",
    claim="Gated blocks learn better if their gates are closed at the start of training.",
    source="Alayrac et al. 2022 (Flamingo), section 2.2 and table 3, rows of tanh gating",
    metric="loss_per_token",
    better=CLOSED,
    than=(OPEN,),
    arms=(Arm(CLOSED, RECIPE), Arm(OPEN, RECIPE, ("--model.bridge.initial_gate=0.9",))),
    measure=HeldOut("easy-vqa"),
    equal="steps",
    note="The paper removes the gates instead, which is as if they were open (1.0) all the time. Here open gates start "
    "at 0.9, and are trained.",
)
