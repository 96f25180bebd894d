"""NoCaps."""

import json

import pytest

from tests.tasks.families.family import Bad, Family, doubled, scored
from tests.tasks.official import draw, write
from vislang.data.problems import DataError
from vislang.metrics.captions import cider_d

CAPTIONS = (
    ("a red cat on a mat", "in-domain"),
    ("two dogs in the snow", "in-domain"),
    ("a lizard near a bus", "near-domain"),
    ("an accordion on a stage", "out-domain"),
    ("a harp beside a drum", "out-domain"),
)


def folder(path):
    """Five images of ``val`` in the three domains, two captions each; one of ``test`` without captions."""
    images, annotations = [], []
    for number, (caption, domain) in enumerate(CAPTIONS):
        common = {"license": 0, "coco_url": "x", "height": 32, "width": 32, "open_images_id": f"o{number}"}
        images.append({**common, "file_name": f"o{number}.jpg", "id": number, "domain": domain})
        for text in (caption, f"{caption} today"):
            annotations.append({"image_id": number, "id": len(annotations), "caption": text})
        draw(path / "val" / f"o{number}.jpg", number)
    write(path / "nocaps_val_4500_captions.json", {"info": {}, "images": images, "annotations": annotations})
    without = [{"file_name": "t.jpg", "id": 0, "open_images_id": "t", "height": 32, "width": 32}]
    write(path / "nocaps_test_image_info.json", {"info": {}, "images": without})
    draw(path / "test" / "t.jpg", 1)


VAL = "nocaps_val_4500_captions.json"
FAMILY = Family(
    "nocaps",
    folder,
    ("sent.json", json.dumps([{"image_id": n, "caption": "a red cat in the snow"} for n in range(5)])),
    "nocaps_results.json",
    # A dual encoder has no training split to take captions from.
    {"flamingo": "generate"},
    (VAL, doubled("images")),
    (
        Bad(VAL, '"in-domain"', '"indomain"', "record 1: 'indomain' is none of in-domain, near-domain, out-domain"),
        Bad(VAL, '{"image_id": 0, "id": 0', '{"image_id": 9, "id": 0', "captions of 1 images that are not there: 9"),
        Bad(VAL, '"id": 1, "caption"', '"id": 0, "caption"', "record 2: its id 0 is also that of record 1"),
        Bad(VAL, '"annotations"', '"captions"', "has no list 'annotations'"),
        Bad(VAL, '"id": 4, "domain"', '"id": 5, "domain"', "record 5: image 5 has no captions"),
    ),
)


def test_each_domain_is_scored_by_itself(tmp_path):
    task = FAMILY.opened(tmp_path)
    said = [CAPTIONS[0][0], "a cat", "a bus", CAPTIONS[3][0], "a harp"]
    found = scored(task, {str(n): text for n, text in enumerate(said)})
    references = [example.target.references for example in task.examples("val")]

    def mean(numbers):
        scores = cider_d([said[n] for n in numbers], [references[n] for n in numbers])
        return pytest.approx(sum(scores) / len(scores))

    assert found["cider_d"] == mean(range(5))
    assert found["cider_d_in_domain"] == mean((0, 1))
    assert found["cider_d_out_domain"] == mean((3, 4))
    # One image alone has no CIDEr-D.
    assert "cider_d_near_domain" not in found
    (hidden,) = task.examples("test")
    with pytest.raises(DataError, match=r"nocaps_test_image_info\.json, 0: has no label"):
        task.score([hidden], [])
