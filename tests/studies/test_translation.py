"""The study of translation: what is nearest by text and by image, ambiguous nouns, and a gain where texts are equal."""

import io

import numpy as np
import pytest
from PIL import Image as Pillow

from tests.data.test_fetch import lay_out
from vislang.data.fetch import ENGLISH
from vislang.data.sets.translations import Captioned
from vislang.document import Image
from vislang.metrics.figure import figures_from_json
from vislang.studies.translation import (
    BOTH,
    CONDITIONS,
    SUBSETS,
    TEXT,
    Nearest,
    Side,
    is_ambiguous,
    last_noun,
    markdown,
    measured,
    noun_classes,
    without_noun,
)


def item(number, english, **translations):
    file = io.BytesIO()
    Pillow.new("RGB", (2, 2), (number, 0, 0)).save(file, "PNG")
    return Captioned(str(number), Image(file.getvalue()), english, translations, f"{english} {number}", "train")


def side(items, directions):
    return Side(items, [own.english for own in items], np.array(directions, dtype=np.float32))


ANIMAL, TOOL = (1.0, 0.0), (0.0, 1.0)


@pytest.fixture
def train():
    items = [item(0, "a small mouse", de="eine kleine Feldmaus"), item(1, "a small mouse", de="ein Computerzeiger")]
    return side([*items, item(2, "a red hammer", de="ein roter Hammer", fr="un marteau")], [ANIMAL, TOOL, TOOL])


def test_the_image_tells_apart_what_has_the_same_words(train):
    nearest = Nearest(train)
    asked = side([item(3, "a mouse", de="x"), item(4, "a mouse", de="x")], [ANIMAL, TOOL])
    assert [own["de"] for own in nearest.translations(asked, 0.0)] == ["eine kleine Feldmaus"] * 2
    found = [own["de"] for own in nearest.translations(asked, 0.3)]
    assert found == ["eine kleine Feldmaus", "ein Computerzeiger"]
    # The only French caption, however different it is.
    (french,) = nearest.translations(side([item(5, "a mouse", fr="x")], [ANIMAL]), 0.3)
    assert french == {"fr": "un marteau"}


NOUNS = """  1 This is the licence
01 05 n 01 mouse 0 001 @ 00000000 n 0000 | a rodent
02 06 n 02 mouse 0 computer_mouse 0 001 @ 00000000 n 0000 | a device
03 06 n 01 hammer 0 001 @ 00000000 n 0000 | a tool
04 04 n 01 red 0 001 @ 00000000 n 0000 | no concrete class
05 18 n 01 Hammer 0 001 @ 00000000 n 0000 | a name
06 13 n 01 berry 0 001 @ 00000000 n 0000 | a fruit
"""


def test_a_noun_is_ambiguous_by_its_classes():
    lay_out(ENGLISH, {"wordnet-base/usr/share/wordnet/data.noun": NOUNS})
    classes = noun_classes()
    assert classes == {
        "mouse": {"animal", "artifact"},
        "computer_mouse": {"artifact"},
        "hammer": {"artifact"},
        "berry": {"food"},
    }
    assert is_ambiguous("A small mouse.", classes)
    assert not is_ambiguous("A mouse with a hammer.", classes)
    assert not is_ambiguous("Something red.", classes)
    assert last_noun("Two red berries.", classes) == "berries"
    assert without_noun("Two red berries!", classes) == "two red !"
    assert without_noun("Nothing.", classes) == "Nothing."


def test_a_gain_is_measured_where_the_words_are_equal(train):
    own = [("eine kleine Feldmaus", ANIMAL), ("ein Computerzeiger", TOOL)] * 4
    asked = side([item(10 + n, "a mouse", de=text) for n, (text, _) in enumerate(own)], [where for _, where in own])
    rows = measured("stamps", CONDITIONS[0], train, asked, asked, {"mouse": {"animal", "artifact"}, "hammer": {"tool"}})
    whole, unclear = (
        next(row for row in rows if (row["subset"], row["arm"]) == (subset, BOTH)) for subset in SUBSETS[:2]
    )
    assert whole["captions"] == unclear["captions"] == 8
    assert 0 < whole["weight"] < 1
    assert figures_from_json(whole["figures"])["chrf"].value == 1.0
    text = next(row for row in rows if (row["subset"], row["arm"]) == ("all", TEXT))
    gain = figures_from_json(whole["gain"])["chrf"]
    assert gain.value == pytest.approx(1 - figures_from_json(text["figures"])["chrf"].value)
    assert gain.low > 0
    # Nothing is unambiguous, so that subset has no rows.
    assert {row["subset"] for row in rows} == {"all", "ambiguous"}
    table = markdown(rows)
    assert "| whole captions, ambiguous | 8 |" in table
    assert CONDITIONS[1] not in table
