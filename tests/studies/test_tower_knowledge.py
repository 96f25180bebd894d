"""What towers know: properties of easy-VQA's images, features over coarse grids, and probes on few labels."""

import json

import numpy as np
import pytest
import torch
from PIL import Image as Pillow

from vislang.document import Document, Image
from vislang.example import Answers, Example
from vislang.models.towers.vision import VisionTower
from vislang.studies import tower_knowledge as study

COLOURS = {"red": (220, 30, 30), "blue": (30, 30, 220)}


def asked(image: Image, text: str, answer: str) -> Example:
    return Example(text, Document([image, text]), Answers({answer: 1.0}))


def drawn(path, colour: str, left: int, top: int) -> Image:
    pixels = np.full((60, 60, 3), 240, dtype=np.uint8)
    pixels[top : top + 12, left : left + 12] = COLOURS[colour]
    Pillow.fromarray(pixels).save(path)
    return Image(path)


class Mean(VisionTower):
    """The colour of each sixth of the image's height and width."""

    name = "mean"

    def recompute_activations(self):
        pass

    def preprocess(self, image):
        return torch.from_numpy(np.asarray(image, dtype=np.float32)).permute(2, 0, 1) / 255

    def forward(self, pixels):
        return torch.nn.functional.adaptive_avg_pool2d(pixels, 6).flatten(2).transpose(1, 2)


@pytest.mark.parametrize(
    ("left", "top", "cell"),
    [(2, 2, "row 0, column 0"), (24, 24, "row 1, column 1"), (46, 2, "row 0, column 2"), (3, 44, "row 2, column 0")],
)
def test_the_position_of_a_shape_is_the_cell_of_its_centre(left, top, cell, tmp_path):
    assert study.cell_of(drawn(tmp_path / "a.png", "red", left, top)) == cell


def test_properties_come_from_answers_and_images_without_one_are_left_out(tmp_path):
    first, second = (drawn(tmp_path / f"{n}.png", "blue", n, 24) for n in (2, 46))
    questions = [
        asked(first, "what shape is present?", "circle"),
        asked(first, "is there a red shape?", "no"),
        asked(first, "what color is the shape?", "blue"),
        asked(second, "what shape is present?", "triangle"),
    ]
    found = study.labelled(questions)
    assert found == {first: {"position": "row 1, column 0", "shape": "circle", "colour": "blue"}}


def test_features_are_averaged_over_the_cells_of_a_coarser_grid():
    grid = torch.arange(16.0).reshape(1, 16, 1)
    assert study.averaged(grid, 1).tolist() == [[7.5]]
    assert study.averaged(grid, 2).tolist() == [[2.5, 4.5, 10.5, 12.5]]


def test_towers_are_probed_once_with_so_many_labels(monkeypatch, tmp_path):
    rng = np.random.default_rng(0)
    questions: dict[str, list[Example]] = {"train": [], "test": []}
    for split, count in (("train", 40), ("test", 30)):
        for number in range(count):
            colour = ("red", "blue")[number % 2]
            left, top = rng.choice([2, 46], 2)
            image = drawn(tmp_path / f"{split}-{number}.png", colour, left, top)
            shape = ("circle", "triangle")[int(rng.integers(2))]
            questions[split] += [asked(image, "what shape?", shape), asked(image, "what color?", colour)]
    opened = []
    monkeypatch.setattr(study, "easy_vqa", questions.__getitem__)
    monkeypatch.setattr(study, "tower", lambda name, seed, runs: opened.append((name, seed)) or Mean())
    monkeypatch.setattr(study, "LABELS", (40,))
    study.run([3], tmp_path / "out", tmp_path / "runs")
    assert opened == [(name, 3) for name in (study.UNTRAINED, "data2vec", "dual encoder", study.IMAGENET)]
    rows = json.loads((tmp_path / "out" / "results.json").read_text())["rows"]
    values = {(row["tower"], row["property"], row["labels"]): row["figures"]["accuracy"] for row in rows}
    assert all(figure["n"] == 30 for figure in values.values())
    assert values[study.IMAGENET, "colour", 40]["value"] == 1.0
    # The colours of the cells tell the position, and nothing tells shapes that are drawn at random.
    assert values["data2vec", "position", 40]["value"] > values[study.FREQUENT, "position", 40]["value"] + 0.3
    assert values["data2vec", "shape", 40]["value"] < 0.8
    table = (tmp_path / "out" / "table.md").read_text()
    assert "| features | colour, 40 labels | shape, 40 labels | position, 40 labels |" in table
    study.run([3], tmp_path / "out", tmp_path / "runs")
    assert len(opened) == 4
    study.run([3, 4], tmp_path / "out", tmp_path / "runs")
    assert opened[4:] == [(name, 4) for name in (study.UNTRAINED, "data2vec", "dual encoder")]
