"""Augmentation: the areas of crops, and reproducibility by seed."""

import random

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image

from vislang import document
from vislang.models.augmentation import Augmentation, AugmentedImage


def picture(width: int = 60, height: int = 40) -> Image.Image:
    noise = np.random.default_rng(0).integers(0, 256, (height, width, 3), dtype=np.uint8)
    return Image.fromarray(noise)


@given(st.integers(0, 2**40), st.integers(1, 400), st.integers(1, 400))
def test_crops_are_inside_the_image_with_the_right_areas(seed, width, height):
    augmentation = Augmentation()
    left, upper, right, lower = augmentation.crop(width, height, random.Random(seed))
    assert -1e-6 <= left < right <= width + 1e-6
    assert -1e-6 <= upper < lower <= height + 1e-6
    ratio = (right - left) / (lower - upper)
    assert 3 / 4 - 1e-6 <= ratio <= 4 / 3 + 1e-6
    if 3 / 4 <= width / height <= 4 / 3:
        assert 0.2 - 1e-6 <= (right - left) * (lower - upper) / (width * height) <= 1 + 1e-6


def test_a_seed_decides_everything():
    augmentation = Augmentation(hue=0.2)
    first, same, other = (np.asarray(augmentation(picture(), 32, random.Random(seed))) for seed in (1, 1, 2))
    assert first.shape == (32, 32, 3)
    assert (first == same).all()
    assert (first != other).any()


def test_with_nothing_to_change_only_the_size_changes():
    whole = Augmentation((1, 1), (1, 1), 0, 0, 0, 0)
    expected = picture(32, 32)
    assert (np.asarray(whole(expected, 32, random.Random(5))) == np.asarray(expected)).all()


def test_half_of_the_images_are_mirrored():
    mirrored = Augmentation((1, 1), (1, 1), 0.5, 0, 0, 0)
    image = picture(32, 32)
    variants = [np.asarray(mirrored(image, 32, random.Random(seed))) for seed in range(400)]
    share = np.mean([(variant != np.asarray(image)).any() for variant in variants])
    assert share == pytest.approx(0.5, abs=0.08)


def test_a_full_turn_of_the_hue_passes_through_other_colours():
    red = Image.new("RGB", (8, 8), (255, 0, 0))
    turning = Augmentation((1, 1), (1, 1), 0, 0, 0, 0, hue=0.5)
    turned = {turning(red, 8, random.Random(seed)).getpixel((0, 0)) for seed in range(30)}
    assert len(turned) > 20
    assert all(max(colour) >= 250 for colour in turned), "the brightness of a pure colour stays"


def test_backgrounds_are_random_colours_with_the_given_probability():
    drawn = [Augmentation(background=0.5).draw_background(random.Random(seed)) for seed in range(400)]
    assert np.mean([colour == (255, 255, 255) for colour in drawn]) == pytest.approx(0.5, abs=0.08)
    assert len(set(drawn)) > 150


@pytest.mark.parametrize(
    "wrong", [{"scale": (0, 1)}, {"scale": (0.9, 0.5)}, {"ratio": (2, 1)}, {"flip": 1.5}, {"hue": 0.6}]
)
def test_settings_that_make_no_sense_are_named(wrong):
    with pytest.raises(ValueError, match=f"augmentation.{next(iter(wrong))}"):
        Augmentation(**wrong)


def test_a_version_of_an_image_is_always_the_same(tmp_path):
    picture().save(tmp_path / "a.png")
    original = document.Image(tmp_path / "a.png")
    settings = Augmentation(hue=0.2, background=1.0)
    first, again, second = (AugmentedImage.of(original, settings, 32, number) for number in (0, 0, 1))
    assert first == again
    assert (np.asarray(first.decode()) == np.asarray(again.decode())).all()
    assert first.decode().size == (32, 32)
    assert (np.asarray(first.decode()) != np.asarray(second.decode())).any()
    other = AugmentedImage.of(original, Augmentation(hue=0.1), 32, 0)
    hashes = [each.content_hash for each in (original, first, second, other)]
    assert len(set(hashes)) == 4
    assert again.content_hash == first.content_hash
