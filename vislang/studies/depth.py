"""How many co-attention layers does a ViLBERT need for questions about images?"""

from vislang.studies.arms import Arm
from vislang.studies.measures import Scored
from vislang.studies.study import RECIPES, Study

RECIPE = RECIPES / "vilbert.yaml"


def at_depth(layers: int) -> tuple[str, ...]:
    """The settings of a ViLBERT with so many co-attention layers, before the last layers of its text stream."""
    pairs = [[2 + number, number] for number in range(layers)]
    return (
        f"--model.streams.text.depth={2 + layers}",
        f"--model.streams.vision.depth={layers}",
        f"--model.streams.co_attention_layers={pairs}",
    )


STUDY = Study(
    name="depth",
    claim="Questions about images are answered better with six co-attention layers than with two.",
    source="Lu et al. 2019 (ViLBERT), table 2, column VQA",
    metric="accuracy",
    better="6 layers",
    than=("2 layers",),
    # The deepest one is the first, because its share of the budget sets the number of steps.
    arms=tuple(Arm(f"{layers} layers", RECIPE, at_depth(layers)) for layers in (8, 6, 4, 2)),
    measure=Scored("easy-vqa"),
    equal="steps",
)
