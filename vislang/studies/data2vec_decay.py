"""Should the teacher follow the student ever more slowly?"""

from vislang.studies.small_data2vec import arm, probed

DECAYS = {
    "annealed from 0.99 to 0.999": {"choices.decay": 0.99, "choices.end_decay": 0.999},
    "constant 0.99": {"choices.decay": 0.99, "choices.end_decay": 0.99},
    "constant 0.999": {"choices.decay": 0.999, "choices.end_decay": 0.999},
}
"""The settings of each arm; the first one is the claim's."""

ANNEALED, *CONSTANT = DECAYS

STUDY = probed(
    name="data2vec-decay",
    claim="A teacher whose decay rises during training is better than one with a constant decay.",
    source="Baevski et al. 2022 (data2vec), section 3.3, teacher parameterization",
    better=ANNEALED,
    than=tuple(CONSTANT),
    arms=tuple(arm(name, decays) for name, decays in DECAYS.items()),
    note="The decay rises over the first 100 steps.",
)
