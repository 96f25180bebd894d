"""How many co-attention layers does a ViLBERT need to find what an expression refers to?"""

from dataclasses import replace

from vislang.studies import depth
from vislang.studies.measures import Scored
from vislang.studies.study import RECIPES

STUDY = replace(
    depth.STUDY,
    name="depth-grounding",
    claim="What an expression refers to is found better with two co-attention layers than with eight.",
    source="Lu et al. 2019 (ViLBERT), table 2, column RefCOCO+",
    better="2 layers",
    than=("8 layers",),
    arms=depth.arms_of(RECIPES / "grounding.yaml"),
    measure=Scored("scenes"),
)
