"""Are shots whose images are similar to the query's better than random ones?"""

from vislang.studies.arms import Arm
from vislang.studies.measures import FewShot, MostSimilar
from vislang.studies.study import RECIPES, Study

TASK = "emoji-groups-coded"
RETRIEVED, RANDOM = "4 retrieved shots", "4 random shots"

STUDY = Study(
    name="retrieved-shots",
    claim="Shots with images that are similar to the query's are better than random shots.",
    source="Alayrac et al. 2022 (Flamingo), appendix, few-shot classification with RICES; Yang et al. 2021",
    metric="accuracy",
    better=f"Flamingo, {RETRIEVED}",
    than=(f"Flamingo, {RANDOM}",),
    arms=(Arm("Flamingo", RECIPES / "few-shot.yaml"),),
    measure={
        RETRIEVED: FewShot(TASK, 4, "retrieved"),
        RANDOM: FewShot(TASK, 4, draws=2),
        "answer of the most similar image": MostSimilar(TASK),
    },
    note="The groups of the test, and their names, are in no training episode. The answer of the most similar image "
    "needs no language model.",
)
