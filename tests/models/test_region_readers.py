"""Regions of documents' images: the cache, boxes of a user, and settings that exclude each other."""

import json

import numpy as np
import pytest
from PIL import Image as Pillow

from vislang.document import Image
from vislang.errors import UserError
from vislang.models.regions.readers import RegionsConfig, pooled
from vislang.models.regions.region import RegionError, Regions
from vislang.models.regions.sources import ClusteredRegions, grid_boxes
from vislang.models.towers.packaged import TowerError


@pytest.fixture
def images(tmp_path):
    chance = np.random.default_rng(0)
    made = []
    for number in range(3):
        path = tmp_path / f"{number}.png"
        Pillow.fromarray(chance.integers(0, 256, (30, 60, 3), dtype=np.uint8)).save(path)
        made.append(Image(path))
    return made


def test_regions_are_computed_once_and_kept(towers, images, monkeypatch):
    reader = RegionsConfig(tower=towers[1], image_size=0).open()
    assert reader.prepare(images) == 3
    fresh = RegionsConfig(tower=towers[1], image_size=0).open()
    assert fresh.prepare(images) == 0
    direct = fresh.source([image.decode() for image in images])
    monkeypatch.setattr(type(fresh.source), "__call__", None)  # what is kept is enough
    for kept, computed in zip(fresh.read(images), direct, strict=True):
        np.testing.assert_allclose(kept.features, computed.features, rtol=1e-3, atol=1e-3)  # half precision
        np.testing.assert_array_equal(kept.boxes, computed.boxes)
        assert (kept.width, kept.height) == (60, 30)


def test_a_copy_of_an_image_is_the_same_image(towers, images, tmp_path):
    reader = RegionsConfig(tower=towers[1], image_size=0).open()
    reader.prepare(images[:1])
    copy = tmp_path / "copy.png"
    copy.write_bytes(images[0].read())
    assert reader.prepare([Image(copy)]) == 0


def cells() -> Regions:
    features = np.arange(4, dtype=np.float32)[:, None]
    return Regions(features, grid_boxes(2, 2, 20, 20), 20, 20, np.eye(4, dtype=np.float32))


def test_a_box_has_the_mean_of_what_it_covers():
    found = pooled(cells(), np.array([[0, 0, 10, 10], [0, 0, 20, 20], [5, 0, 15, 10], [0, 5, 10, 10]], np.float32))
    # One cell; all four; half of the first and of the second; half of the first alone.
    np.testing.assert_allclose(found.features[:, 0], [0, 1.5, 0.5, 0])
    np.testing.assert_allclose(found.classes[2], [0.5, 0.5, 0, 0])


def test_a_box_without_area_has_the_feature_of_its_cell():
    found = pooled(cells(), np.array([[12, 3, 12, 3]], np.float32))
    np.testing.assert_allclose(found.features[:, 0], [1])


def coco(path, images, annotations):
    path.write_text(json.dumps({"images": images, "annotations": annotations}))
    return str(path)


def test_boxes_in_cocos_format(towers, images, tmp_path):
    # The file describes the first image at twice its size.
    listed = [{"id": 5, "file_name": "0.png", "width": 120, "height": 60}]
    path = coco(tmp_path / "boxes.json", listed, [{"image_id": 5, "bbox": [20, 10, 40, 30]}])
    reader = RegionsConfig(tower=towers[1], image_size=0, boxes=path).open()
    (found,) = reader.read(images[:1])
    assert found.boxes.tolist() == [[10, 5, 30, 20]]
    assert found.features.shape == (1, reader.width)
    with pytest.raises(RegionError, match=r"boxes\.json: has no box for 1\.png"):
        reader.read(images[1:2])


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("[]", "not COCO's JSON of boxes"),
        ('{"images": [], "annotations": [{"image_id": 1, "bbox": [0, 0, 1, 1]}]}', "annotation 0: its image 1"),
        ('{"images": [], "annotations": [{"bbox": [0, 0, 1]}]}', "not COCO's JSON"),
        ("{", "not COCO's JSON"),
    ],
)
def test_files_of_boxes_that_are_none(towers, tmp_path, content, message):
    (tmp_path / "boxes.json").write_text(content)
    with pytest.raises(RegionError, match=message):
        RegionsConfig(tower=towers[1], image_size=0, boxes=str(tmp_path / "boxes.json")).open()


def test_a_box_outside_of_the_image_is_named(towers, images, tmp_path):
    listed = [{"id": 5, "file_name": "0.png", "width": 60, "height": 30}]
    path = coco(tmp_path / "boxes.json", listed, [{"image_id": 5, "bbox": [50, 10, 40, 10]}])
    with pytest.raises(RegionError, match=r"image 0\.png: box 0 \(50, 10, 90, 20\) is outside the image of 60 x 30"):
        RegionsConfig(tower=towers[1], image_size=0, boxes=path).open().read(images[:1])


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"files": "x", "detector": "y"}, "leave out detector and boxes"),
        ({"detector": "x", "boxes": "y"}, "finds its own boxes"),
        ({"tower": None}, "set tower, detector or files"),
    ],
)
def test_settings_that_do_not_go_together(settings, message):
    with pytest.raises(UserError, match=message):
        RegionsConfig(**settings).open()


def test_what_decides_the_regions_decides_where_they_are_kept(towers, tmp_path):
    """A source and two files of its clusters have separate folders."""
    plain = RegionsConfig(tower=towers[1], image_size=0).open()
    folders = {plain.kept.folder}
    images = [Pillow.new("RGB", (32, 32), (n * 20, 0, 0)) for n in range(6)]
    for number in (2, 3):
        path = tmp_path / f"{number}.safetensors"
        ClusteredRegions.fit(plain.source, images, clusters=number).save(path)
        folders.add(RegionsConfig(tower=towers[1], image_size=0, clusters=str(path)).open().kept.folder)
    assert len(folders) == 3


@pytest.mark.parametrize("content", [None, b"damaged"])
def test_clusters_that_cannot_be_read_are_named(towers, tmp_path, content):
    path = tmp_path / "clusters.safetensors"
    if content is not None:
        path.write_bytes(content)
    with pytest.raises(TowerError, match=r"clusters\.safetensors: cannot be read"):
        RegionsConfig(tower=towers[1], image_size=0, clusters=str(path)).open()


def test_an_invalid_number_of_regions_is_an_error():
    with pytest.raises(ValueError, match="count must be at least 1"):
        RegionsConfig(count=0)
