"""Attention in colour: none where it is spread evenly, all where it is strong, and the picture's own colours gone."""

import numpy as np
import pytest
from PIL import Image

from vislang.attention_maps import HUE, OPACITY, emphasis, overlay, relative, side_by_side
from vislang.pictures import THUMBNAIL


@pytest.mark.parametrize("total", [1.0, 0.05, 300.0])
def test_attention_that_is_spread_evenly_has_no_colour(total):
    even = np.full((2, 4, 4), total / 32)
    assert np.allclose(relative(even), 1)
    assert emphasis(even).max() == pytest.approx(0, abs=1e-9)
    assert emphasis(np.zeros((1, 2, 2))).max() == 0


def test_colour_grows_from_an_equal_share_to_four_times_that():
    shares = np.array([0.5, 1.0, 2.5, 4.0, 8.0, *[0.0] * 11])
    assert np.allclose(relative(shares), shares)
    assert emphasis(shares)[:5].tolist() == [0, 0, 0.5, 1, 1]


def test_under_even_attention_the_picture_is_grey_and_under_strong_attention_coloured():
    picture = Image.new("RGB", (40, 40), (0, 0, 255))
    strengths = np.zeros((2, 4, 4))
    strengths[1] = 1
    seen = np.asarray(overlay([picture, picture], strengths))
    left, right = seen[:, :THUMBNAIL], seen[:, -THUMBNAIL:]
    assert np.ptp(left, axis=-1).max() == 0, "no colour of the picture or of attention"
    assert np.ptp(left) == 0
    grey = left[0, 0, 0]
    wanted = (1 - OPACITY) * grey + OPACITY * np.array(HUE)
    assert np.abs(right - wanted).max() <= 1
    assert seen.shape == (THUMBNAIL, side_by_side([picture, picture]).width, 3)
