"""How many of the teacher's layers should a target average?"""

from vislang.studies.arms import Arm
from vislang.studies.measures import Probe
from vislang.studies.study import RECIPES, Study


def arm(layers: int) -> Arm:
    """Targets that average the teacher's last ``layers`` of four layers."""
    return Arm(f"top {layers}", RECIPES / "data2vec.yaml", (f"--model.choices.top_k={layers}",))


STUDY = Study(
    name="data2vec-top-k",
    claim="Targets that average several layers of the teacher are better than its top layer.",
    source="Baevski et al. 2022 (data2vec), ablations, layer-averaged targets",
    metric="accuracy",
    better="top 4",
    than=("top 1",),
    arms=(arm(4), arm(2), arm(1)),
    measure=Probe("emoji-groups"),
    equal="steps",
)
