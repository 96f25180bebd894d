"""R2C: words are grounded in the objects that they name; training on choices; VCR's format; saving."""

import dataclasses

import pytest
import torch

from tests.models.earlier.systems import WORDS, built, regions_of, restored, train, with_setting, without_gradient
from tests.models.test_vilbert_pretraining import COLOURS, picture
from tests.tasks.official import FOLDERS
from vislang.document import Document, Image, Mark, Marked
from vislang.errors import UserError
from vislang.evaluate.evaluation import evaluate
from vislang.evaluate.ways import cell
from vislang.example import Answers, Choice, Example
from vislang.models.earlier.r2c import Attention, R2CConfig, R2CForChoices, R2CRecipe
from vislang.models.loading import load
from vislang.tasks.catalogue import TASKS, open_task


def config(**more) -> R2CConfig:
    words = dataclasses.replace(WORDS, max_length=40)
    return R2CConfig(words, **{"object_width": 16, "width": 16, "mlp_width": 16, "dropout": 0.0, **more})


@pytest.fixture
def examples(tmp_path):
    made = []
    for n in range(12):
        image, right = picture(tmp_path / f"{n}.png", COLOURS[n % 4], n), n % 3
        texts = [f"it is {COLOURS[(n + 1 + index) % 4]}" for index in range(3)]
        texts[right] = f"it is {COLOURS[n % 4]}"
        choices = tuple(Document([text]) for text in texts)
        prompt = Document([image, "which colour?"])
        made.append(Example(str(n), prompt, Choice(right), choices, source=f"my.jsonl:{n}", task="choose"))
    return made


def recipe_of(towers, **more) -> R2CRecipe:
    return R2CRecipe(config(**more), regions_of(towers))


def model_of(towers, examples, **more) -> R2CForChoices:
    return built(recipe_of(towers, **more), examples)


def marked(path) -> Image:
    """An image of two cups and a dog, whose boxes are marked."""
    picture(path, "red", 4)
    marks = (Mark("cup 1", 0, 0, 10, 12), Mark("cup 2", 16, 0, 30, 20), Mark("dog", 0, 16, 12, 31))
    return Image(Marked(path, marks, 32, 32))


def test_words_are_grounded_in_the_regions_that_they_name(towers, tmp_path):
    image = marked(tmp_path / "marked.png")
    choices = (Document(["the dog sees cup 2"]), Document(["cup 12 is a dogma"]))
    example = Example("0", Document([image, "what does dog see , cup 1 ?"]), Choice(0), choices, task="choose")
    model = model_of(towers, [example] * 2)
    batch = model.collate([example])
    words = model.inputs.words.tokenizer

    def grounded(pieces, objects, row):
        return [
            (words.id_to_token(i), o) for i, o in zip(pieces.ids[row].tolist(), objects[row].tolist(), strict=True) if o
        ]

    # The whole image is region 0, the 16 cells of the grid follow, then the marks in their order.
    assert batch.pairs.features.shape[1] == 1 + 16 + 3
    assert grounded(batch.queries, batch.query_objects, 0) == [("dog", 19), ("cup", 17), ("1", 17)]
    assert grounded(batch.responses, batch.response_objects, 0) == [("dog", 19), ("cup", 18), ("2", 18)]
    assert grounded(batch.responses, batch.response_objects, 1) == []


def test_without_marks_words_are_grounded_in_the_whole_image(towers, examples):
    batch = model_of(towers, examples).collate(examples)
    assert not batch.query_objects.any()
    assert not batch.response_objects.any()


def test_attention_by_hand():
    """A bilinear product of 2 with the contexts 1 and 3; the third is padding."""
    attention = Attention(1, 1)
    with torch.no_grad():
        attention.product.weight.fill_(2.0)
    context, padding = torch.tensor([[[1.0], [3.0], [7.0]]]), torch.tensor([[False, False, True]])
    weights = torch.tensor([0.5 * 2 * 1.0, 0.5 * 2 * 3.0]).softmax(dim=0)
    found = attention(torch.tensor([[[0.5]]]), context, padding)
    assert found.item() == pytest.approx((weights @ torch.tensor([1.0, 3.0])).item(), rel=1e-5)


def test_it_learns_to_choose(towers, examples):
    model = model_of(towers, examples)
    train(model, model.collate(examples), 60)
    predictions = model.decide(examples, batch_size=5)
    assert sum(p.answer == e.target.index for p, e in zip(predictions, examples, strict=True)) >= 11


def test_every_parameter_learns(towers, examples):
    model = model_of(towers, examples)
    assert without_gradient(model, model.collate(examples)) == []


def test_a_decision_does_not_depend_on_what_else_is_in_the_batch(towers, examples):
    examples[3] = dataclasses.replace(examples[3], choices=examples[3].choices[:2], target=Choice(0))
    model = model_of(towers, examples).eval()
    together, alone = model.decide(examples[:5]), [model.decide([example])[0] for example in examples[:5]]
    for one, other in zip(together, alone, strict=True):
        assert one.scores == pytest.approx(other.scores, abs=1e-5)
    assert len(together[3].scores) == 2


def test_a_pair_is_a_response_to_an_empty_query(towers, examples):
    """A source of captioned images becomes choices without a question."""
    pairs = [
        dataclasses.replace(
            e, prompt=Document([]), choices=tuple(Document([*e.media[:1], *c.parts]) for c in e.choices)
        )
        for e in examples
    ]
    model = model_of(towers, pairs)
    batch = model.collate(pairs)
    assert batch.queries.ids.shape == (36, 2)
    assert len(model.eval().decide(pairs[:2])[0].scores) == 3


def test_a_saved_model_chooses_alike_and_its_state_can_be_restored(towers, examples, tmp_path):
    model = model_of(towers, examples).eval()
    before = [prediction.scores for prediction in model.decide(examples)]
    model.save(tmp_path / "model")
    for other in (load(tmp_path / "model"), restored(recipe_of(towers), model)):
        for one, two in zip(before, [prediction.scores for prediction in other.decide(examples)], strict=True):
            assert one == pytest.approx(two, abs=1e-6)


def test_it_is_scored_on_vcr_in_its_official_files(towers, tmp_path):
    FOLDERS["vcr"](tmp_path)
    task = open_task(f"vcr:{tmp_path}")
    model = recipe_of(towers).build()
    model.fit(task.examples("train"))
    figures = evaluate(model.eval(), task, task.examples("val")).figures
    assert set(figures) == {"q_to_a", "qa_to_r", "q_to_ar"}
    assert figures["q_to_a"].n == figures["q_to_ar"].n > 0


def test_what_it_can_answer(towers, examples):
    model = model_of(towers, examples)
    assert cell(model, TASKS["vcr"]).way == "decide"
    assert "has no head for targets of the kind box" in cell(model, TASKS["scenes"]).why_not


def test_bad_input_is_named(towers, examples, tmp_path):
    answered = [dataclasses.replace(e, target=Answers({"red": 1.0}), choices=()) for e in examples]
    with pytest.raises(UserError, match=r"task choose: targets of the kind answers; R2C learns choice\. Use ViLBERT"):
        recipe_of(towers).build().fit(answered)
    with pytest.raises(UserError, match=r"network\.width is 0; it must be at least 1"):
        config(width=0)
    model = model_of(towers, examples)
    silent = dataclasses.replace(examples[0], prompt=Document(["which?"], name="my.jsonl:0"))
    with pytest.raises(UserError, match="this model reads only text with images"):
        model.collate([silent])
    model.save(tmp_path / "model")
    with_setting(tmp_path / "model", "dropout", 1.5)
    with pytest.raises(UserError, match=r"dropout is 1\.5; it must be at least 0 and below 1"):
        load(tmp_path / "model")
