"""Contextualised targets, or targets that hold only their own patch?"""

from vislang.studies.arms import Arm
from vislang.studies.measures import Probe
from vislang.studies.study import RECIPES, Study

RECIPE = RECIPES / "data2vec.yaml"
CONTEXT, LOCAL = "contextualised", "local"

STUDY = Study(
    name="data2vec-targets",
    claim="Targets that hold the context of a patch are better than targets of the patch alone.",
    source="Baevski et al. 2022 (data2vec), ablations, target contextualization",
    metric="accuracy",
    better=CONTEXT,
    than=(LOCAL,),
    arms=(Arm(CONTEXT, RECIPE), Arm(LOCAL, RECIPE, ("--model.choices.local_targets=true",))),
    measure=Probe("emoji-groups"),
    equal="steps",
    note="The paper restricts the teacher's context step by step. Here each token of the local teacher attends only to "
    "itself.",
)
