"""LibriSpeech."""

import numpy as np
import pytest

from tests.tasks.families.family import Bad, Family, last_line_twice, scored
from tests.tasks.official import write
from vislang.example import Prediction

SAID = ("GO DO YOU HEAR", "BUT IN LESS", "GO IN")


def folder(path):
    """A chapter of three recordings for each split."""
    import soundfile

    rng = np.random.default_rng(0)
    for split, chapter in (("train-clean-100", "84-1"), ("dev-clean", "85-2")):
        place = path / split / chapter.replace("-", "/")
        place.mkdir(parents=True)
        for number in range(3):
            samples = 0.1 * rng.standard_normal(6400)
            soundfile.write(place / f"{chapter}-{number:04d}.flac", samples, 16_000)
        lines = [f"{chapter}-{number:04d} {words}\n" for number, words in enumerate(SAID)]
        write(place / f"{chapter}.trans.txt", "".join(lines))


DEV = "dev-clean/85/2/85-2.trans.txt"
FAMILY = Family(
    "librispeech",
    folder,
    ("sent.txt", "85-2-0000 GO DO YOU HEAR\n85-2-0001 IN LESS\n85-2-0002\n"),
    "librispeech.trans.txt",
    {"data2vec of speech, fine-tuned": "decide"},
    (DEV, last_line_twice),
    (
        Bad(DEV, "85-2-0001", "0001", "record 2: '0001 BUT IN LESS' does not begin with an id"),
        Bad(DEV, "85-2-0001", "85-2-0009", "has no line for 85-2-0001, which is recorded"),
    ),
    (DEV, "train-clean-100/84/1/84-1.trans.txt"),
)


def test_word_error_rate(tmp_path):
    task = FAMILY.opened(tmp_path)
    assert (task.default_split, task.support_split) == ("dev-clean", "train-clean-100")
    found = scored(task, {"85-2-0000": "go do you here", "85-2-0001": "In  less", "85-2-0002": None})
    # Of nine words: one substituted, one deleted, two deleted.
    assert found["word_error_rate"] == pytest.approx(4 / 9)
    # "hear" and "here" differ in three letters by alignment (a -> "", "" -> e); "but " and "go in" are missing.
    assert found["character_error_rate"] == pytest.approx((2 + 4 + 5) / (14 + 11 + 5))
    examples = task.examples("dev-clean")
    made = [Prediction(e.id, text) for e, text in zip(examples, ("go do you hear", "in less", "go"), strict=True)]
    items = task.score_each(examples, made)
    assert items.scores == pytest.approx([0, 1 / 3, 1 / 2])
    assert items.right.tolist() == [True, False, False]


def test_the_folder_of_the_archive(tmp_path):
    task = FAMILY.opened(tmp_path / "LibriSpeech")
    assert type(task)(tmp_path).splits == ("dev-clean", "train-clean-100")
