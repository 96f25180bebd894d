"""How many co-attention layers does a ViLBERT need to find what an expression refers to?"""

from vislang.studies.arms import Arm
from vislang.studies.depth import at_depth
from vislang.studies.measures import Scored
from vislang.studies.study import RECIPES, Study

RECIPE = RECIPES / "grounding.yaml"

STUDY = Study(
    name="depth-grounding",
    claim="What an expression refers to is found better with two co-attention layers than with eight.",
    source="Lu et al. 2019 (ViLBERT), table 2, column RefCOCO+",
    metric="accuracy",
    better="2 layers",
    than=("8 layers",),
    # The deepest one is the first, because its share of the budget sets the number of steps.
    arms=tuple(Arm(f"{layers} layers", RECIPE, at_depth(layers)) for layers in (8, 6, 4, 2)),
    measure=Scored("scenes"),
    equal="steps",
)
