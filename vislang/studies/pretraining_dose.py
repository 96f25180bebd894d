"""How much pretraining on images and captions does a ViLBERT need?"""

from vislang.studies.arms import Arm
from vislang.studies.measures import Scored
from vislang.studies.study import RECIPES, Study

DOSES = (100, 50, 25)
"""Shares of the pretraining steps, in per cent."""


def name_of(dose: int) -> str:
    """The name of the arm that was pretrained for this share of the steps."""
    return f"{dose} % of the pretraining"


STUDY = Study(
    name="pretraining-dose",
    claim="A ViLBERT finds the image of a caption better after all of its pretraining than after a part or none of it.",
    source="Lu et al. 2019 (ViLBERT), table 3, columns of image retrieval",
    metric="recall_at_10_text_to_image",
    better=name_of(100),
    than=tuple(name_of(dose) for dose in (*DOSES[1:], 0)),
    arms=(
        *(Arm(name_of(dose), RECIPES / "retrieval.yaml", start=f"pretrained, {dose} %") for dose in DOSES),
        Arm(name_of(0), RECIPES / "retrieval.yaml"),
    ),
    starts=tuple(Arm(f"pretrained, {dose} %", RECIPES / "pretraining.yaml", length=dose / 100) for dose in DOSES),
    measure=Scored("retrieval:stamp-pictures-test"),
    equal="steps",
    note="The paper takes a share of the images. Here a run of half the steps has also seen half of the examples. All "
    "arms are then fine-tuned for the same number of steps.",
)
