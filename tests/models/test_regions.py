"""Regions of raw images: grids, detectors, clusters."""

import json

import numpy as np
import pytest
import torch
import transformers
from PIL import Image as Pillow

from vislang.models.regions.sources import ClusteredRegions, GridRegions, QueryRegions, grid_boxes
from vislang.models.towers.packaged import EFFICIENTNET_LITE0, TowerError
from vislang.models.towers.vision import load_vision_tower


@pytest.fixture(scope="module")
def grid():
    return GridRegions(load_vision_tower(EFFICIENTNET_LITE0, 128))


def pictures(count: int = 4):
    chance = np.random.default_rng(0)
    return [Pillow.fromarray(chance.integers(0, 256, (40, 60, 3), dtype=np.uint8)) for _ in range(count)]


def test_cells_tile_the_image_row_by_row():
    boxes = grid_boxes(2, 3, 60, 40)
    assert boxes[:4].tolist() == [[0, 0, 20, 20], [20, 0, 40, 20], [40, 0, 60, 20], [0, 20, 20, 40]]
    assert boxes[-1].tolist() == [40, 20, 60, 40]


def test_a_grid_has_features_boxes_and_imagenets_classes(grid):
    found = grid(pictures(2))[1].check("made")
    assert found.features.shape == (16, grid.width)
    assert found.classes.shape == (16, 1000)
    assert (found.width, found.height) == (60, 40)


def test_classes_of_positions_average_to_what_the_network_says_of_an_image(grid):
    """The last layer is linear: the logits of the mean feature are the mean of the positions' logits."""
    tower = grid.tower
    pixels = tower.preprocess(pictures(1)[0])[None]
    with torch.no_grad():
        whole = tower.network(pixels).softmax(dim=-1)
        read = tower.classify(tower(pixels).mean(dim=1, keepdim=True))[:, 0]
    torch.testing.assert_close(read, whole, atol=1e-5, rtol=1e-3)


def test_a_tower_without_classes_gives_none(towers):
    source = GridRegions(load_vision_tower(towers[1]))
    assert source.classes == 0
    assert source(pictures(1))[0].check("made").classes is None


@pytest.fixture(scope="module")
def detector(tmp_path_factory):
    """A tiny YOLOS with random weights, as a folder of transformers."""
    folder = tmp_path_factory.mktemp("yolos")
    torch.manual_seed(0)
    config = transformers.YolosConfig(
        hidden_size=16,
        num_hidden_layers=1,
        num_attention_heads=2,
        intermediate_size=32,
        image_size=[32, 48],
        patch_size=8,
        num_detection_tokens=10,
        num_labels=5,
    )
    transformers.YolosForObjectDetection(config).save_pretrained(folder)
    settings = {"image_processor_type": "YolosImageProcessor", "size": {"height": 32, "width": 48}}
    (folder / "preprocessor_config.json").write_text(json.dumps(settings))
    return folder


def test_a_detectors_queries_are_regions(detector):
    source = QueryRegions(str(detector), count=6)
    image = pictures(1)[0]
    found = source([image])[0].check("made")
    assert found.features.shape == (6, 16)
    assert found.classes.shape == (6, source.classes) == (6, 6)
    assert (found.width, found.height) == (60, 40)
    sure = 1 - found.classes[:, -1]
    assert (np.diff(sure) <= 0).all()
    # In a batch with others it finds the same.
    again = source([*pictures(3), image])[-1]
    np.testing.assert_array_equal(again.boxes, found.boxes)


def test_boxes_of_a_detector_are_those_of_transformers(detector):
    """In pixels of the image, as from transformers' post-processing."""
    source = QueryRegions(str(detector), count=10)
    image = pictures(1)[0]
    model = transformers.AutoModelForObjectDetection.from_pretrained(detector).eval()
    with torch.no_grad():
        made = model(**source.processor(images=image, return_tensors="pt"))
    read = source.processor.post_process_object_detection(made, threshold=0.0, target_sizes=[(40, 60)])[0]
    wanted = {tuple(box) for box in read["boxes"].clamp(min=0).round(decimals=3).tolist()}
    limits = torch.tensor([60.0, 40.0, 60.0, 40.0])
    wanted = {tuple(torch.minimum(torch.tensor(box), limits).round(decimals=2).tolist()) for box in wanted}
    found = {tuple(box) for box in torch.from_numpy(source([image])[0].boxes).round(decimals=2).tolist()}
    assert found == wanted


def test_a_model_that_is_not_a_detector_is_an_error(tmp_path):
    with pytest.raises(TowerError, match=r"no-such-detector.*cannot be opened"):
        QueryRegions(str(tmp_path / "no-such-detector"))


def test_clusters_give_classes_to_what_has_none(grid, tmp_path):
    source = ClusteredRegions.fit(grid, pictures(4), clusters=8)
    found = source(pictures(1))[0].check("made")
    assert found.classes.shape == (16, 8)
    # The likeliest cluster is the nearest centre's.
    distances = np.linalg.norm(found.features[:, None] - source.centres[None], axis=-1)
    np.testing.assert_array_equal(found.classes.argmax(axis=1), distances.argmin(axis=1))
    source.save(tmp_path / "centres.safetensors")
    opened = ClusteredRegions.open(grid, tmp_path / "centres.safetensors")
    np.testing.assert_allclose(opened(pictures(1))[0].classes, found.classes, rtol=1e-4)
    assert opened.fingerprint == source.fingerprint == grid.fingerprint
    assert opened.classes_fingerprint == source.classes_fingerprint != grid.classes_fingerprint
    with pytest.raises(ValueError, match="16 regions for 17 clusters"):
        ClusteredRegions.fit(grid, pictures(1), clusters=17)
