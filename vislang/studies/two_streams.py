"""Two streams with co-attention, or one stream that reads words and regions together?

Both have 2.2 million parameters: two streams of four and two layers with two co-attention layers, or one of ten layers.
"""

from vislang.studies.arms import Arm
from vislang.studies.measures import Scored
from vislang.studies.study import RECIPES, Study

RECIPE = RECIPES / "vilbert.yaml"
TWO, ONE = "two streams", "one stream"
ONE_STREAM = ("--model.streams.single_stream=true", "--model.streams.text.depth=10")

STUDY = Study(
    name="two-streams",
    claim="Two streams answer questions about images better than one stream with as many parameters.",
    source="Lu et al. 2019 (ViLBERT), table 1, rows Single-Stream and ViLBERT without pretraining",
    metric="accuracy",
    better=TWO,
    than=(ONE,),
    # One stream is the slower one. It is the first, because its share of the budget sets the number of steps.
    arms=(Arm(ONE, RECIPE, ONE_STREAM), Arm(TWO, RECIPE)),
    measure=Scored("easy-vqa"),
    equal="steps",
)
