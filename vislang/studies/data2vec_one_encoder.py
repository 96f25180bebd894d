"""Can one encoder learn from images, text and speech at once?"""

from vislang.studies.arms import Arm
from vislang.studies.measures import Probe
from vislang.studies.study import RECIPES, Study

RECIPE = RECIPES / "data2vec-shared.yaml"
SHARED, ALONE = "images, text and speech", "images alone"
AFTER, BEFORE = "after training", "before training"

STUDY = Study(
    name="data2vec-one-encoder",
    claim="One encoder of images, text and speech learns features of images that are better than before training.",
    source="this project; the papers train an encoder for each modality",
    metric="accuracy",
    better=f"{SHARED}, {AFTER}",
    than=(f"{SHARED}, {BEFORE}",),
    # The slowest one is the first, because its share of the budget sets the number of steps.
    arms=(
        Arm(SHARED, RECIPE),
        Arm(ALONE, RECIPE, ("--data=[{sources: [emoji-google, openclipart, stamps], name: pictures}]",)),
    ),
    measure={AFTER: Probe("emoji-groups"), BEFORE: Probe("emoji-groups", trained=False)},
    equal="steps",
    note="Both encoders see as many images. The difference of the two is the cost of sharing.",
)
