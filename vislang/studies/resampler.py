"""A Perceiver resampler, or a plain transformer or MLP on the features?"""

from vislang.studies.arms import Arm
from vislang.studies.measures import HeldOut
from vislang.studies.study import RECIPES, Study

RECIPE = RECIPES / "flamingo.yaml"
PERCEIVER, TRANSFORMER, MLP = "Perceiver resampler", "transformer", "MLP"

STUDY = Study(
    name="resampler",
    claim="A Perceiver resampler is better than a transformer or an MLP on the features of the image.",
    source="Alayrac et al. 2022 (Flamingo), table 3, rows of the resampler",
    metric="loss_per_token",
    better=PERCEIVER,
    than=(TRANSFORMER, MLP),
    arms=(
        Arm(PERCEIVER, RECIPE),
        Arm(TRANSFORMER, RECIPE, ("--model.bridge.resampler=transformer",)),
        Arm(MLP, RECIPE, ("--model.bridge.resampler=mlp",)),
    ),
    measure=HeldOut("easy-vqa"),
    equal="steps",
    note="The resampler gives 8 latents. The other two keep the 16 positions of an image.",
)
