"""data2vec 2.0 or data2vec, after equal time?"""

from vislang.studies.arms import Arm
from vislang.studies.measures import Probe
from vislang.studies.study import RECIPES, Study

RECIPE = RECIPES / "data2vec.yaml"

STUDY = Study(
    name="data2vec-generations",
    claim="After equal time, data2vec 2.0 gives better features than data2vec.",
    source="Baevski et al. 2023 (data2vec 2.0), comparison with data2vec on images",
    metric="accuracy",
    better="v2",
    than=("v1",),
    arms=(Arm("v2", RECIPE), Arm("v1", RECIPE, ("--model.generation=v1",))),
    measure=Probe("emoji-groups"),
)
