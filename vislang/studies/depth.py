"""How many co-attention layers does a ViLBERT need for questions about images?"""

from pathlib import Path

from vislang.studies.arms import Arm
from vislang.studies.measures import Scored
from vislang.studies.study import RECIPES, Study

DEPTHS = (8, 6, 4, 2)
"""Numbers of co-attention layers. The deepest comes first, because its share of the budget sets the number of steps."""


def arms_of(recipe: Path) -> tuple[Arm, ...]:
    """A ViLBERT of each depth, with its co-attention layers before the last layers of its text stream."""
    return tuple(Arm(f"{layers} layers", recipe, at_depth(layers)) for layers in DEPTHS)


def at_depth(layers: int) -> tuple[str, ...]:
    """The settings of a ViLBERT with so many co-attention layers."""
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
    arms=arms_of(RECIPES / "vilbert.yaml"),
    measure=Scored("easy-vqa"),
    equal="steps",
)
