"""Regions: geometry by hand, and invalid values."""

import numpy as np
import pytest

from vislang.boxes import overlaps
from vislang.models.regions.region import RegionError, Regions


def regions(**changes) -> Regions:
    values = {
        "features": np.arange(6, dtype=np.float32).reshape(2, 3),
        "boxes": np.array([[0, 0, 50, 20], [10, 10, 100, 40]], dtype=np.float32),
        "width": 100,
        "height": 40,
        "classes": np.array([[0.25, 0.75], [0.5, 0.5]], dtype=np.float32),
    }
    return Regions(**{**values, **changes})


def test_locations_are_shares_of_the_image():
    expected = [[0, 0, 0.5, 0.5, 0.25], [0.1, 0.25, 1, 1, 0.675]]
    np.testing.assert_allclose(regions().check("r").locations(), expected, rtol=1e-6)


def test_the_whole_image_is_first():
    whole = regions().with_whole()
    np.testing.assert_allclose(whole.locations()[0], [0, 0, 1, 1, 1])
    np.testing.assert_allclose(whole.features[0], [1.5, 2.5, 3.5])
    np.testing.assert_allclose(whole.classes[0], [0.375, 0.625])
    assert len(whole.check("r").features) == 3


def test_the_best_are_first():
    assert regions().best(1).check("r").boxes.tolist() == [[0, 0, 50, 20]]


def test_overlaps_by_hand():
    boxes = np.array([[0, 0, 2, 2], [1, 1, 3, 3], [5, 5, 5, 5]], dtype=np.float32)
    np.testing.assert_allclose(overlaps(boxes, boxes), [[1, 1 / 7, 0], [1 / 7, 1, 0], [0, 0, 0]], rtol=1e-6)


NOT_A_NUMBER = np.array([[0, 1, 2], [3, np.nan, 5]], dtype=np.float32)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"features": np.zeros((0, 3), np.float32)}, "contains no regions"),
        ({"features": np.zeros((3, 3), np.float32)}, "3 rows of features and 2 boxes"),
        ({"features": NOT_A_NUMBER}, "features of region 1 are not finite"),
        ({"width": 0}, "an image size of 0 x 40"),
        ({"width": 80}, r"box 1 \(10, 10, 100, 40\) is outside the image of 80 x 40"),
        ({"boxes": np.array([[50, 0, 0, 20], [0, 0, 1, 1]], np.float32)}, "box 0"),
        ({"classes": np.ones((2, 2), np.float32)}, "the classes of region 0 do not sum to 1"),
        ({"classes": np.ones((1, 1), np.float32)}, "2 regions and 1 class distributions"),
    ],
)
def test_what_cannot_be_used_is_named(changes, message):
    with pytest.raises(RegionError, match=f"some file, image 7: .*{message}"):
        regions(**changes).check("some file, image 7")
