"""Films in which the answer depends on the order of frames."""

from fractions import Fraction

import numpy as np
import pytest

from vislang.data.sets import films
from vislang.data.sets.easy_vqa import easy_vqa
from vislang.data.sets.films import LENGTHS, ORDER, things
from vislang.example import reference_text


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
        thing = shown.get(example.media[0])
        if thing is not None and example.text == f"is there a {thing['shape']}?":
            wrong += reference_text(example) != "yes"
    assert not wrong


def test_the_frame_that_is_asked_about_answers():
    """Films are decoded again, and the frame compared with the image that it was made of."""
    shown = things(easy_vqa("train"))
    known = np.stack([small(image.decode()) for image in shown])
    for example in films.films("train")[:20]:
        frames = example.media[0].decode()
        assert len(frames) in LENGTHS
        _, fact, _, which = example.text.rstrip("?").split()
        nearest = np.abs(known - small(frames[ORDER[which]])).sum(axis=1).argmin()
        assert list(shown.values())[nearest][fact] == reference_text(example)


def small(picture) -> np.ndarray:
    return np.asarray(picture.resize((8, 8)), dtype=np.float32).ravel()


def test_without_order_a_colour_is_a_guess_among_the_frames():
    """Each frame has another colour, so without their order the chance of the correct answer is one in their number."""
    queries = [example for example in films.films("test") if example.text.startswith("what color")]
    expected = sum(Fraction(1, len(example.media[0].decode())) for example in queries) / len(queries)
    assert 0.2 < expected < 0.4


def test_films_are_the_same_each_time_and_splits_share_no_image():
    first, again = films.films("test"), films.films("test")
    assert [e.media[0].content_hash for e in first] == [e.media[0].content_hash for e in again]
    learned = films.films("train")
    assert (len(learned), len(first)) == (60, 40)
    assert not {e.media[0].content_hash for e in learned} & {e.media[0].content_hash for e in first}
