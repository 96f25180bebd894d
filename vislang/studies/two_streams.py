"""Two streams with co-attention, or one stream that reads words and regions together?

Both have 1.6 million parameters: the one stream is deeper, and its feed-forward layers are a little narrower.
"""

from vislang.studies.arms import Arm
from vislang.studies.measures import Scored
from vislang.studies.study import RECIPES, Study

RECIPE = RECIPES / "vilbert.yaml"
TWO, ONE = "two streams", "one stream"
ONE_STREAM = ("--model.streams.single_stream=true", "--model.streams.text.depth=8")

STUDY = Study(
    name="two-streams",
    claim="Two streams answer questions about images better than one stream with as many parameters.",
    source="Lu et al. 2019 (ViLBERT), table 1, rows Single-Stream and ViLBERT without pretraining",
    metric="accuracy",
    better=TWO,
    than=(ONE,),
    arms=(Arm(TWO, RECIPE), Arm(ONE, RECIPE, ONE_STREAM)),
    measure=Scored("easy-vqa"),
)
