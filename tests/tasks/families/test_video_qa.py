"""MSVD-QA and MSRVTT-QA."""

from functools import partial

import pytest

from tests import tiny
from tests.tasks.families.family import Bad, Family, doubled, scored
from tests.tasks.official import write

ASKED = (("what is he doing?", "running"), ("who runs?", "man"), ("what runs?", "dog"))


VAL, NAMES = "val_qa.json", "youtube_mapping.txt"


def folder(path, videos, mapping):
    """Three questions about one video for each split; its file is named by the number of the split."""
    for number, split in enumerate(("train", "val", "test"), start=1):
        records = [
            {"answer": answer, "id": 10 * number + n, "question": question, "video_id": number}
            for n, (question, answer) in enumerate(ASKED)
        ]
        write(path / f"{split}_qa.json", records)
        (path / videos).mkdir(exist_ok=True, parents=True)
        name = f"-4wsuPC_{number}_15.avi" if mapping else f"video{number}.mp4"
        tiny.write_video(path / videos / name, [60 * number, 10])
    if mapping:
        write(path / "youtube_mapping.txt", "".join(f"-4wsuPC_{n}_15 vid{n}\n" for n in (1, 2, 3)))


def family(name, *more, whole=(), **where):
    return Family(
        name,
        partial(folder, **where),
        None,
        None,
        {"flamingo of videos": "generate"},
        (VAL, doubled()),
        (
            Bad(VAL, '"video_id": 2', '"video_id": "vid2"', 'record 1: "video_id" is "vid2", not a whole number'),
            Bad(VAL, '"answer": "man"', '"answer": null', 'record 2: "answer" is null, not text'),
            *more,
        ),
        whole,
    )


MSVD = family(
    "msvd-qa",
    Bad(NAMES, "_15 vid1", "_15", "record 1: '-4wsuPC_1_15' is not the name of a video and its number"),
    Bad(NAMES, "vid1", "vid2", "record 2: its id vid2 is also that of record 1"),
    Bad(VAL, '"video_id": 2', '"video_id": 4', r"record 1: video vid4 is not in youtube_mapping\.txt"),
    whole=(NAMES,),
    videos="YouTubeClips",
    mapping=True,
)
MSRVTT = family("msrvtt-qa", videos="TrainValVideo", mapping=False)


@pytest.mark.parametrize("own", [MSVD, MSRVTT], ids=lambda own: own.name)
def test_accuracy_by_question_word(own, tmp_path):
    task = own.opened(tmp_path)
    found = scored(task, {"20": "running", "21": "The man.", "22": "cat"})
    assert found == pytest.approx({"accuracy": 2 / 3, "accuracy_what": 0.5, "accuracy_who": 1.0})
