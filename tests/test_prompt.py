import pytest

from vislang import Image
from vislang.document import EndOfChunk
from vislang.errors import UserError
from vislang.prompt import Prompts, Shot

PICTURE, OTHER = Image(b"1"), Image(b"2")


def test_question_and_caption():
    prompts = Prompts()
    assert prompts.ask(PICTURE, " what? ").parts == (PICTURE, "Question: what? Answer:")
    assert prompts.ask(PICTURE).parts == (PICTURE, "Caption:")


def test_shots_stand_before_the_question_in_their_order():
    parts = Prompts().ask(PICTURE, "q2?", [Shot(OTHER, " a1 ", "q1?")]).parts
    assert parts == (
        *(OTHER, "Question: q1? Answer:", " a1", EndOfChunk()),
        *(PICTURE, "Question: q2? Answer:"),
    )


def test_a_question_may_hold_braces():
    parts = Prompts(question="{image}Q: {question}").ask(PICTURE, "is {image} {0}?").parts
    assert parts == (PICTURE, "Q: is {image} {0}?")


@pytest.mark.parametrize("template", ["{image}", "{question}", "{image}{image}{question}", "{image}{question}{x}"])
def test_templates_with_other_placeholders_are_refused(template):
    with pytest.raises(UserError, match=r"prompts\.question"):
        Prompts(question=template)
