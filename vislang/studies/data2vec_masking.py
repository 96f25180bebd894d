"""How much of an image should be masked, and in what pieces?"""

from vislang.studies.arms import Arm
from vislang.studies.measures import Probe
from vislang.studies.study import RECIPES, Study

BLOCKS, LESS, SCATTERED = "80 %, blocks kept", "60 %, blocks kept", "80 %, single patches kept"


def arm(name: str, share: float, block: int) -> Arm:
    """Masks of this share; squares of ``block`` patches a side are kept."""
    changes = (f"--model.masking.image.mask_ratio={share}", f"--model.masking.image.block={block}")
    return Arm(name, RECIPES / "data2vec.yaml", changes)


STUDY = Study(
    name="data2vec-masking",
    claim="Masking 80 % of an image, so that blocks are kept, is better than masking less or keeping single patches.",
    source="Baevski et al. 2023 (data2vec 2.0), section on inverse block masking; its values for images",
    metric="accuracy",
    better=BLOCKS,
    than=(LESS, SCATTERED),
    # The slowest one is the first, because its share of the budget sets the number of steps: it encodes most patches.
    arms=(arm(LESS, 0.6, 3), arm(BLOCKS, 0.8, 3), arm(SCATTERED, 0.8, 1)),
    measure=Probe("emoji-groups"),
    equal="steps",
)
