"""How many of the teacher's layers should a target average?"""

from vislang.studies.small_data2vec import arm, probed

STUDY = probed(
    name="data2vec-top-k",
    claim="Targets that average several layers of the teacher are better than its top layer.",
    source="Baevski et al. 2022 (data2vec), ablations, layer-averaged targets",
    better="top 4",
    than=("top 1",),
    # Targets that average the teacher's last 4, 2 or 1 of four layers.
    arms=tuple(arm(f"top {layers}", {"choices.top_k": layers}) for layers in (4, 2, 1)),
)
