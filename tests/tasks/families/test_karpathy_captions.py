"""COCO and Flickr30k captions in Karpathy's splits."""

import json
import math
from functools import partial

import pytest

from tests.tasks.families.family import Bad, Family, doubled, scored, values
from tests.tasks.official import draw, write
from vislang.example import Prediction
from vislang.metrics.captions import bleu, cider_d

CAPTIONS = (
    ("a red cat on a mat", "a cat"),
    ("two dogs in the snow", "dogs run in the snow"),
    ("a blue bus on the road", "a bus drives down a road"),
)


def folder(path, file, key):
    """Three images for each split, and one of ``restval``."""
    images = []
    for split in ("train", "train", "restval", "val", "val", "val", "test"):
        number = len(images)
        name = f"COCO_{number:012d}.jpg"
        raw = CAPTIONS[number % 3]
        record = {"filename": name, "split": split, key: 100 + number, "imgid": 100 + number, "sentids": [number]}
        if key == "cocoid":
            record["filepath"] = "val2014"
        images.append({**record, "sentences": [{"raw": c, "tokens": c.split()} for c in raw]})
        draw(path / "val2014" / name if key == "cocoid" else path / name, number)
    write(path / file, {"dataset": "coco", "images": images})


def family(name, file, key):
    said = ("a red cat", "two dogs", "a car")
    records = [{"image_id": number, "caption": caption} for number, caption in enumerate(said, start=103)]
    return Family(
        name,
        partial(folder, file=file, key=key),
        ("sent.json", json.dumps(records)),
        f"{name.replace('-', '_')}_results.json",
        {"flamingo": "generate", "dual encoder": "match"},
        (file, doubled("images")),
        (
            Bad(file, '"images"', '"pictures"', "has no list 'images'"),
            Bad(file, f'"{key}": 103', f'"{key}": null', f'record 4: "{key}" is null, not an identifier'),
            Bad(file, '"raw"', '"text"', 'record 1: has no "raw"'),
            Bad(file, '"split": "train"', '"split": 5', 'record 1: "split" is 5, not text'),
        ),
    )


COCO = family("coco-captions", "dataset_coco.json", "cocoid")
FLICKR30K = family("flickr30k-captions", "dataset_flickr30k.json", "imgid")


@pytest.mark.parametrize("own", [COCO, FLICKR30K], ids=lambda own: own.name)
def test_captions_are_scored_as_for_coco(own, tmp_path):
    task = own.opened(tmp_path)
    assert [len(task.examples(split)) for split in ("train", "val", "test")] == [3, 3, 1]
    said = {"103": "a red cat on a mat", "104": "two dogs in the snow", "105": "the sea"}
    found = scored(task, said)
    assert tuple(found) == task.metrics
    # The first two equal a reference, and the third shares "the" with one: 12 words of 13, 9 of 10 pairs of words, and
    # all longer n-grams. The nearest references have 6, 5 and 6 words.
    brevity = math.exp(1 - 17 / 13)
    assert found["bleu_1"] == pytest.approx(brevity * 12 / 13)
    assert found["bleu_2"] == pytest.approx(brevity * (12 / 13 * 9 / 10) ** 0.5)
    assert found["bleu_4"] == pytest.approx(brevity * (12 / 13 * 9 / 10) ** 0.25)
    references = [example.target.references for example in task.examples("val")]
    assert found["bleu_4"] == pytest.approx(bleu(list(said.values()), references, 4))
    assert found["cider_d"] == pytest.approx(sum(cider_d(list(said.values()), references)) / 3)
    # A single image has no CIDEr-D; a missing caption is an empty one.
    (alone,) = task.examples("test")
    assert set(values(task.score([alone], [Prediction(alone.id, None)]))) == {"bleu_1", "bleu_2", "bleu_3", "bleu_4"}
