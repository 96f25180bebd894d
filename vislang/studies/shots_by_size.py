"""Does a larger bridge make better use of more shots?"""

from vislang.studies.arms import Arm
from vislang.studies.measures import FewShot
from vislang.studies.study import RECIPES, Study

RECIPE = RECIPES / "few-shot.yaml"
TASK = "emoji-groups-coded"
LARGE, MEDIUM, SMALL = "four gated blocks", "two gated blocks", "one gated block"
SHOTS = {f"{count} shots": FewShot(TASK, count) for count in (0, 4, 16)}
MOST = "16 shots"

STUDY = Study(
    name="shots-by-size",
    claim="After many shots, a large bridge is better than small ones.",
    source="Alayrac et al. 2022 (Flamingo), figure 2 and table 1: accuracy by number of shots and size of the model",
    metric="accuracy",
    better=f"{LARGE}, {MOST}",
    than=(f"{MEDIUM}, {MOST}", f"{SMALL}, {MOST}"),
    # The slowest one is the first, because its share of the budget sets the number of steps.
    arms=(
        Arm(LARGE, RECIPE, ("--model.bridge.gated_layers=[12, 16, 20, 24]", "--model.bridge.resampler_width=384")),
        Arm(MEDIUM, RECIPE),
        Arm(SMALL, RECIPE, ("--model.bridge.gated_layers=[16]", "--model.bridge.resampler_width=128")),
    ),
    measure=SHOTS,
    equal="steps",
    note="The paper varies the language model with the bridge. Here the language model is the same.",
)
