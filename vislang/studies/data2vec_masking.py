"""How much of an image should be masked, and in what pieces?"""

from vislang.studies.small_data2vec import arm, probed

BLOCKS, LESS, SCATTERED = "80 %, blocks kept", "60 %, blocks kept", "80 %, single patches kept"
RATIO, SIDE = "masking.image.mask_ratio", "masking.image.block"
"""Settings: the share of patches that is masked, and the side of the squares that are kept, in patches."""

STUDY = probed(
    name="data2vec-masking",
    claim="Masking 80 % of an image, so that blocks are kept, is better than masking less or keeping single patches.",
    source="Baevski et al. 2023 (data2vec 2.0), section on inverse block masking; its values for images",
    better=BLOCKS,
    than=(LESS, SCATTERED),
    # The slowest one is the first, because its share of the budget sets the number of steps: it encodes most patches.
    arms=(
        arm(LESS, {RATIO: 0.6, SIDE: 3}),
        arm(BLOCKS, {RATIO: 0.8, SIDE: 3}),
        arm(SCATTERED, {RATIO: 0.8, SIDE: 1}),
    ),
)
