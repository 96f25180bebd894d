"""MSR-VTT."""

import json

import pytest

from tests import tiny
from tests.tasks.families.family import Bad, Family, doubled, scored
from tests.tasks.official import write

CAPTIONS = ("a man plays a guitar", "a cat sits on a mat", "people run in a park", "a woman cooks some rice")


def folder(path):
    """Two videos to learn from, two of ``validate`` and one of ``test``, each with two sentences."""
    for file, splits, place in (
        ("train_val_videodatainfo.json", ("train", "train", "validate", "validate"), "TrainValVideo"),
        ("test_videodatainfo.json", ("test",), "TestVideo"),
    ):
        first = 0 if place == "TrainValVideo" else 4
        videos = [
            {
                "category": 9,
                "url": "x",
                "video_id": f"video{n}",
                "start time": 0,
                "split": split,
                "id": n,
            }
            for n, split in enumerate(splits, start=first)
        ]
        sentences = [
            {"caption": text, "video_id": video["video_id"], "sen_id": 2 * video["id"] + k}
            for video in videos
            for k, text in enumerate((CAPTIONS[video["id"] % 4], "somebody does something"))
        ]
        write(path / file, {"info": {}, "videos": videos, "sentences": sentences})
        for video in videos:
            (path / place).mkdir(exist_ok=True)
            tiny.write_video(path / place / f"{video['video_id']}.mp4", [40 * video["id"], 200])


FILE = "train_val_videodatainfo.json"
SENT = {"version": "VERSION 1.0", "result": [{"video_id": f"video{n}", "caption": "people run"} for n in (2, 3)]}
FAMILY = Family(
    "msrvtt-captions",
    folder,
    ("sent.json", json.dumps(SENT)),
    "msrvtt_captions_results.json",
    {"flamingo of videos": "generate"},
    (FILE, doubled("videos")),
    (
        Bad(FILE, '"split": "validate"', '"split": "valid"', "record 3: 'valid' is none of train, validate, test"),
        Bad(FILE, '"caption"', '"text"', 'record 1: has no "caption"'),
        Bad(FILE, '"sentences"', '"captions"', "has no list 'sentences'"),
        Bad(FILE, '"video1", "start', '"video9", "start', "record 2: video video9 has no sentences"),
        Bad(FILE, 'mat", "video_id": "video1"', 'mat", "video_id": "video7"', "sentences of 1 videos that are not"),
    ),
)


def test_scores(tmp_path):
    task = FAMILY.opened(tmp_path)
    assert [len(task.examples(split)) for split in task.splits] == [2, 2, 1]
    assert [e.media[0].name.rpartition("/")[2] for e in task.examples("test")] == ["video4.mp4"]
    found = scored(task, {"video2": CAPTIONS[2], "video3": CAPTIONS[3]})
    assert found["bleu_4"] == pytest.approx(1)
    assert found["cider_d"] > 4
