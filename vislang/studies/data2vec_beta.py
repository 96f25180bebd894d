"""A smooth L1 loss, or the squared error?"""

from vislang.studies.arms import Arm
from vislang.studies.measures import Probe
from vislang.studies.study import RECIPES, Study

RECIPE = RECIPES / "data2vec.yaml"
SMOOTH, SQUARED = "smooth L1, beta 2", "squared error"

STUDY = Study(
    name="data2vec-beta",
    claim="For images, a smooth L1 loss with beta 2 is better than the squared error.",
    source="Baevski et al. 2022 (data2vec), section 3.4; beta 2 is the paper's value for images",
    metric="accuracy",
    better=SMOOTH,
    than=(SQUARED,),
    arms=(Arm(SMOOTH, RECIPE, ("--model.choices.beta=2",)), Arm(SQUARED, RECIPE, ("--model.choices.beta=0",))),
    measure=Probe("emoji-groups"),
    equal="steps",
    note="The second paper (v2) returns to the squared error.",
)
