import pytest

from vislang import Image
from vislang.document import Absent, Document, EndOfChunk, Learned
from vislang.errors import UserError
from vislang.example import VERBATIM, Answers, Box, Choice, Example, Label, Text, Wording
from vislang.prompt import Prompts, as_generation, from_turns, question_of, shown

PICTURE, OTHER = Image(b"1"), Image(b"22")


def question(image: Image, text: str, answer: str = "", **more) -> Example:
    return Example("q", Document([image, text]), Answers({answer: 1.0}) if answer else None, **more)


def test_question_and_caption():
    prompts = Prompts()
    assert prompts.render(question(PICTURE, " what? ")).parts == (PICTURE, "Question: what? Answer:")
    assert prompts.render(Example("c", Document([PICTURE]))).parts == (PICTURE, "Caption:")


def test_shots_are_before_the_question_in_their_order():
    own = Example("s", Document([PICTURE]), Text(("a caption",)))
    example = question(PICTURE, "q2?", "yes", shots=(own,))
    drawn = question(OTHER, "q1?", " a1 ")
    parts = Prompts().render(example, [drawn]).parts
    assert parts == (
        *(OTHER, "Question: q1? Answer:", " a1", EndOfChunk()),
        *(PICTURE, "Caption:", " a caption", EndOfChunk()),
        *(PICTURE, "Question: q2? Answer:"),
    )
    learned = Prompts(separator="\n").render(example, [drawn], learn=True)
    assert learned.target == "yes"
    assert learned.parts[2:5] == (Learned("a1"), EndOfChunk(), "\n")


def test_a_shot_without_an_answer_in_words_is_an_error():
    pointed = Example("p", Document([PICTURE, "the cat"]), Box(0, 0, 1, 1), source="my.jsonl:4")
    for shot in (pointed, question(OTHER, "what?")):
        with pytest.raises(UserError, match=f"{shot.name}: cannot be an example in a prompt"):
            Prompts().examples([shot])


def test_a_shot_without_media_is_text_alone():
    """The zero-shot prompts of Flamingo's section 3.2 (and OpenFlamingo's) have two of these."""
    shots = [Example("s", Document(["what?"]), Text(("red",))), Example("t", Document([]), Text(("a cat",)))]
    parts = Prompts().examples(shots)
    assert parts == ["Question: what? Answer:", " red", EndOfChunk(), "Caption:", " a cat", EndOfChunk()]


def test_a_question_may_hold_braces():
    parts = Prompts(question="{image}Q: {question}").render(question(PICTURE, "is {image} {0}?")).parts
    assert parts == (PICTURE, "Q: is {image} {0}?")


def test_several_media_are_at_the_position_of_the_image():
    example = Example(
        "n",
        Document([PICTURE, OTHER, "both are {round}"]),
        Label("True"),
        wording=Wording('Is it true that "{text}"?', {"True": "yes"}),
    )
    document = Prompts("See {image}: {question}").render(example, learn=True)
    assert document.parts == ("See ", PICTURE, OTHER, ': Is it true that "both are {round}"?')
    assert document.target == "yes"
    blind = Prompts().render(example.without_media())
    assert blind.parts[:2] == (Absent(), Absent())


def test_what_is_verbatim_has_no_template():
    page = Document([Learned("a cat"), PICTURE, Learned("it sleeps"), EndOfChunk()], media_side="either")
    example = Example("3", page, wording=VERBATIM, source="pages/a.html")
    learned = Prompts().render(example, learn=True)
    assert (learned.parts, learned.media_side, learned.name) == (page.parts, "either", "pages/a.html")
    assert Prompts().render(example).parts == ("a cat", PICTURE, " it sleeps", EndOfChunk())
    shot = question(OTHER, "q1?", "a1")
    assert Prompts().render(example, [shot]).parts[:4] == (OTHER, "Question: q1? Answer:", " a1", EndOfChunk())


def test_choices_with_media_are_put_as_writing():
    paths = (Document([PICTURE]), Document([OTHER, PICTURE]))
    example = Example("r", Document(["turn left"]), Choice(1), paths, wording=Wording("which path?"))
    document = Prompts().render(example, learn=True)
    assert (document.parts, document.target) == ((OTHER, PICTURE, "Caption:"), "turn left")
    pairs = (Document([PICTURE, "a cat"]), Document([OTHER, "a dog"]))
    made = as_generation(Example("f", Document([]), Choice(0), pairs))
    assert (made.prompt.parts, made.target, made.choices) == ((PICTURE,), Text(("a cat",)), ())
    words = Example("v", Document([PICTURE, "why?"]), Choice(0), (Document(["so"]), Document(["thus"])))
    assert as_generation(words) is words
    assert Prompts().render(words, learn=True).target == "so"


def test_the_question_is_the_tasks_or_the_text():
    assert question_of(question(PICTURE, " what? ")) == "what?"
    assert question_of(question(PICTURE, "x", wording=Wording("see {text}"))) == "see x"
    assert question_of(Example("c", Document([PICTURE]))) == ""


def test_a_document_is_shown_in_one_line():
    document = Document([Image("a/cat.png"), "what\nis it?", EndOfChunk(), OTHER, Absent(), Learned("red")])
    assert shown(document) == "<image: a/cat.png>what\\nis it?<end><image: 2 bytes><absent> red"


@pytest.mark.parametrize("template", ["{image}", "{question}", "{image}{image}{question}", "{image}{question}{x}"])
def test_templates_with_other_placeholders_are_errors(template):
    with pytest.raises(UserError, match=r"prompts\.question"):
        Prompts(question=template)


def test_turns_become_examples_and_a_question():
    image = Image("a.png")
    turns = [("user", [image, "what?"]), ("assistant", [" red ", ""]), ("user", ["and", image])]
    shots, question = from_turns(turns, "the question")
    assert [(shot.prompt.parts, shot.target) for shot in shots] == [((image, "what?"), Text(("red",)))]
    assert question.prompt.parts == ("and", image)
    assert shown(Prompts().render(question, shots)) == shown(
        Prompts().render(question, [Example("x", Document([image, "what?"]), Text(("red",)))])
    )


@pytest.mark.parametrize(
    "turns",
    [
        [],
        [("assistant", ["a"])],
        [("user", ["a"]), ("assistant", ["b"])],
        [("user", ["a"]), ("user", ["b"])],
        [("user", [" "])],
    ],
)
def test_turns_in_another_order_or_empty_are_errors(turns):
    with pytest.raises(UserError, match="the question: "):
        from_turns(turns, "the question")
