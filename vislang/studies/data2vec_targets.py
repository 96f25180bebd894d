"""Contextualised targets, or targets that hold only their own patch?"""

from vislang.studies.small_data2vec import arm, probed

CONTEXT, LOCAL = "contextualised", "local"

STUDY = probed(
    name="data2vec-targets",
    claim="Targets that hold the context of a patch are better than targets of the patch alone.",
    source="Baevski et al. 2022 (data2vec), ablations, target contextualization",
    better=CONTEXT,
    than=(LOCAL,),
    arms=(arm(CONTEXT), arm(LOCAL, {"choices.local_targets": "true"})),
    note="The paper restricts the teacher's context step by step. Here each token of the local teacher attends only to "
    "itself.",
)
