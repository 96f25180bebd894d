"""data2vec 2.0 or data2vec, after equal time?"""

from vislang.studies.small_data2vec import arm, probed

STUDY = probed(
    name="data2vec-generations",
    claim="After equal time, data2vec 2.0 gives better features than data2vec.",
    source="Baevski et al. 2023 (data2vec 2.0), comparison with data2vec on images",
    better="v2",
    than=("v1",),
    arms=(arm("v2"), arm("v1", {"generation": "v1"})),
    equal="minutes",
)
