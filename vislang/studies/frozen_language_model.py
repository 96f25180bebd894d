"""Does a language model that is tuned on images and questions forget its language?"""

from vislang.studies.arms import Arm
from vislang.studies.measures import HeldOut, TextLoss
from vislang.studies.study import RECIPES, Study

RECIPE = RECIPES / "flamingo.yaml"
FROZEN, LORA, FULL = "frozen", "tuned by low-rank updates", "tuned in full"
ENGLISH = "on English prose"

STUDY = Study(
    name="frozen-language-model",
    claim="A language model that is tuned with the bridge forgets its language; a frozen one does not.",
    source="Alayrac et al. 2022 (Flamingo), section 3.1 and table 3, rows of freezing the language model",
    metric="loss_per_token",
    better=f"{FROZEN}, {ENGLISH}",
    than=(f"{FULL}, {ENGLISH}", f"{LORA}, {ENGLISH}"),
    # The slowest one is the first, because its share of the budget sets the number of steps.
    arms=(
        Arm(FULL, RECIPE, ("--model.tune.language_model=full", "--train.lr_scale={gates: 10, language_model: 0.1}")),
        Arm(LORA, RECIPE, ("--model.tune.language_model=lora",)),
        Arm(FROZEN, RECIPE),
    ),
    measure={ENGLISH: TextLoss(), "on answers of easy-VQA": HeldOut("easy-vqa")},
    equal="steps",
    note="The loss is per token of English prose, without images. That of the frozen language model is the loss of all "
    "three before training. The paper's table has scores of tasks; the results have the loss on answers, too.",
)
