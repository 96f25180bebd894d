"""VCR's boxes: drawn on the image with the names that the texts use, and read as regions."""

import json

import numpy as np
import pytest

from tests.tasks.official import draw, lines, vcr_record, write
from vislang.data.problems import DataError
from vislang.document import Mark, Marked, MissingMedium
from vislang.models.regions.readers import RegionsConfig
from vislang.tasks.benchmarks.vcr import VCR, names_of

METADATA = {
    "boxes": [[0, 0, 32, 32, 0.9], [64, 16, 128, 96, 0.8], [0, 64, 30, 140, 0.7]],
    "segms": [[], [], []],
    "names": ["person", "dog", "cup"],
    "width": 128,
    "height": 128,
}
"""Boxes in an image of 128 pixels; that on disk has 32."""


@pytest.fixture
def folder(tmp_path):
    """A record about three objects; its texts name the first two."""
    record = vcr_record(0, answer_label=0, rationale_label=1, metadata_fn="movie/a.json")
    write(tmp_path / "val.jsonl", lines([{**record, "objects": ["person", "dog", "cup"]}]))
    write(tmp_path / "vcr1images" / "movie" / "a.json", METADATA)
    draw(tmp_path / "vcr1images" / "movie" / "a.jpg", 1)
    return tmp_path


def test_objects_that_a_text_names_are_marked(folder):
    answer, rationale = VCR(folder).examples("val")
    (image,) = answer.media
    assert answer.text == "What does Casey give dog ?"
    assert image.source == Marked(
        folder / "vcr1images" / "movie" / "a.jpg", (Mark("Casey", 0, 0, 32, 32), Mark("dog", 64, 16, 128, 96)), 128, 128
    )
    # Boxes are the same for every choice, and for the reason.
    assert rationale.media == answer.media
    assert image.name.endswith("vcr1images/movie/a.jpg")
    assert image.is_there


def test_marks_are_drawn_at_the_scale_of_the_image(folder):
    (image,) = VCR(folder).examples("val")[0].media
    marked, plain = (np.asarray(made, int) for made in (image.decode(), type(image)(image.source.path).decode()))
    assert image.size == (32, 32)
    changed = np.abs(marked - plain).sum(axis=2) > 0
    # The first box is 8 x 8 pixels here, red; the second has its right edge at 32, and its lower edge at 24, blue.
    assert (marked[0, :8] == (200, 30, 30)).all()
    assert (marked[24, 16:32] == (30, 90, 200)).all()
    # The cup, which no text names, is not marked.
    assert not changed[25:, :15].any()
    assert image.content_hash != type(image)(image.source.path).content_hash


def test_names_are_unique():
    people = names_of(["person"] * 11 + ["cup", "dog", "cup"])
    assert people[:2] + people[10:] == ["Casey", "Riley", "Casey 2", "cup 1", "dog", "cup 2"]
    assert len(set(people)) == len(people)


def test_each_mark_is_a_region(folder, towers):
    """It has the mean features of the grid under its box, with the marks drawn."""
    (image,) = VCR(folder).examples("val")[0].media
    reader = RegionsConfig(tower=towers[1], image_size=0).open()
    (found,) = reader.read([image])
    assert found.boxes[-2:].tolist() == [[0, 0, 8, 8], [16, 4, 32, 24]]
    cells = found.features[:-2].reshape(4, 4, -1)
    # The first box is one cell of 8 pixels; the second covers two columns, and half, one, and one of the rows.
    assert found.features[-2] == pytest.approx(cells[0, 0], abs=1e-5)
    rows = cells[0, 2:].sum(axis=0) / 2 + cells[1, 2:].sum(axis=0) + cells[2, 2:].sum(axis=0)
    assert found.features[-1] == pytest.approx(rows / 5, abs=1e-5)
    (plain,) = reader.read([type(image)(image.source.path)])
    assert len(plain.features) == len(found.features) - 2


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"boxes": METADATA["boxes"][:2]}, r"record 1: has 3 objects, and .*a\.json has 2 boxes"),
        ({"boxes": [[0, 0, 1, 1]] * 3}, r'a\.json: "boxes" is a list of 4; it must have 5 entries'),
        ({"boxes": [[9, 0, 1, 1, 1]] * 3}, r"a\.json: box 0 is \[9, 0, 1, 1, 1\]; it must be left, top, right"),
        ({"boxes": [[0, 0, None, 1, 1]] * 3}, r"a\.json: box 0 contains null, which is not a number"),
        ({"width": None}, r'a\.json: "width" contains null'),
        ({"width": 0}, r"a\.json: box 0 is"),
    ],
)
def test_bad_metadata_is_named(folder, change, message):
    write(folder / "vcr1images" / "movie" / "a.json", {**METADATA, **change})
    with pytest.raises(DataError, match=message):
        VCR(folder).examples("val")


def test_metadata_that_are_missing_or_cut_off(folder):
    path = folder / "vcr1images" / "movie" / "a.json"
    path.write_text(json.dumps(METADATA)[:40])
    with pytest.raises(DataError, match=r"a\.json: not JSON"):
        VCR(folder).examples("val")
    path.unlink()
    with pytest.raises(DataError, match=r"a\.json: cannot be read \(No such file"):
        VCR(folder).examples("val")
    # Models that read region files need neither image nor metadata.
    (folder / "vcr1images" / "movie" / "a.jpg").unlink()
    (image,) = VCR(folder).examples("val")[0].media
    with pytest.raises(MissingMedium, match=r"a\.jpg: no such file"):
        image.decode()
