"""Films whose frames tell a question's answer only by their order."""

from fractions import Fraction

import numpy as np
import pytest

from vislang.tasks import films
from vislang.tasks.data_sets import split_data
from vislang.tasks.easy_vqa import easy_vqa
from vislang.tasks.films import LENGTHS, ORDER, things


@pytest.fixture(autouse=True)
def few(monkeypatch):
    monkeypatch.setattr(films, "COUNTS", {"train": 60, "test": 40})


def test_an_image_shows_what_its_questions_say():
    shown = things(easy_vqa("test"))
    assert len(shown) > 700
    assert {thing["shape"] for thing in shown.values()} == {"circle", "rectangle", "triangle"}
    assert len({thing["color"] for thing in shown.values()}) == 8
    wrong = 0
    for example in easy_vqa("test"):
        thing = shown.get(example.image)
        if thing is not None and example.question == f"is there a {thing['shape']}?":
            wrong += example.target != "yes"
    assert not wrong


def test_the_frame_that_is_asked_about_answers():
    """Films are decoded again, and the frame compared with the image that it was made of."""
    shown = things(easy_vqa("train"))
    known = np.stack([small(image.decode()) for image in shown])
    for example in films.films("train")[:20]:
        frames = example.image.decode()
        assert len(frames) in LENGTHS
        _, asked, _, which = example.question.rstrip("?").split()
        nearest = np.abs(known - small(frames[ORDER[which]])).sum(axis=1).argmin()
        assert list(shown.values())[nearest][asked] == example.target


def small(picture) -> np.ndarray:
    return np.asarray(picture.resize((8, 8)), dtype=np.float32).ravel()


def test_without_order_a_colour_is_a_guess_among_the_frames():
    """Each frame has another colour, so that who knows all frames but not their order is right once in their number."""
    asked = [example for example in films.films("test") if example.question.startswith("what color")]
    expected = sum(Fraction(1, len(example.image.decode())) for example in asked) / len(asked)
    assert 0.2 < expected < 0.4


def test_films_are_the_same_each_time_and_splits_share_no_image():
    first, again = films.films("test"), films.films("test")
    assert [e.image.content_hash for e in first] == [e.image.content_hash for e in again]
    split = split_data("easy-vqa-films", None, 0.1)
    assert len(split.test) == 40
    assert len(split.train) + len(split.validation) == 60
    with pytest.raises(ValueError, match="not 'dev'"):
        films.films("dev")
