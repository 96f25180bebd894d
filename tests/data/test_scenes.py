"""Scenes: referring expressions and colours."""

from PIL import Image as Pillow

from vislang.data.sets.scenes import Placed, colour_of, expressions


def item(name, left, top, colour=None):
    return Placed(name, colour, (left, top, left + 40, top + 40))


def test_expressions_that_only_one_drawing_answers_to():
    cat, lower, dog = item("cat", 0, 0, "red"), item("cat", 0, 110, "red"), item("dog", 100, 5, "blue")
    owl = item("owl", 50, 60)
    found = {(kind, text): meant for kind, text, meant in expressions([cat, lower, dog, owl])}
    assert found["name", "dog"] is dog
    assert ("name", "cat") not in found
    assert found["colour", "the blue one"] is dog
    assert ("colour", "the red one") not in found
    assert found["place", "the upper cat"] is cat
    assert found["place", "the lower cat"] is lower
    assert ("place", "the left cat") not in found  # one stands right above the other
    # The owl's neighbours are at nearly the same distance, so there is no expression. The dog's nearest is clear.
    assert found["neighbour", "what is next to the dog"] is owl
    assert ("neighbour", "what is next to the owl") not in found
    assert ("neighbour", "what is next to the cat") not in found


def test_colours_by_most_of_the_opaque_pixels():
    def drawing(share, colour):
        made = Pillow.new("RGBA", (10, 10), (0, 0, 0, 0))
        made.paste((*colour, 255), (0, 0, 10, 8))
        made.paste((0, 0, 255, 255), (0, 0, 10, round(8 * (1 - share))))
        return made

    assert colour_of(drawing(1, (230, 30, 30))) == "red"
    assert colour_of(drawing(1, (250, 220, 40))) == "yellow"
    assert colour_of(drawing(1, (100, 60, 20))) == "brown"
    assert colour_of(drawing(1, (128, 128, 128))) == "grey"
    assert colour_of(drawing(0.5, (30, 200, 30))) is None
    assert colour_of(Pillow.new("RGBA", (4, 4), (9, 9, 9, 0))) is None
