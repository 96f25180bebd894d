"""A smooth L1 loss, or the squared error?"""

from vislang.studies.small_data2vec import arm, probed

SMOOTH, SQUARED = "smooth L1, beta 2", "squared error"

STUDY = probed(
    name="data2vec-beta",
    claim="For images, a smooth L1 loss with beta 2 is better than the squared error.",
    source="Baevski et al. 2022 (data2vec), section 3.4; beta 2 is the paper's value for images",
    better=SMOOTH,
    than=(SQUARED,),
    arms=(arm(SMOOTH, {"choices.beta": 2}), arm(SQUARED, {"choices.beta": 0})),
    note="The second paper (v2) returns to the squared error.",
)
