"""DFAF: attention flow by hand, training on questions, saving."""

import dataclasses

import pytest
import torch

from tests.models.earlier.systems import WORDS, built, regions_of, restored, train, with_setting, without_gradient
from tests.models.test_vilbert_pretraining import COLOURS, picture
from vislang.document import Document
from vislang.errors import UserError
from vislang.evaluate.ways import cell
from vislang.example import Answers, Example, Label
from vislang.models.earlier.dfaf import (
    DFAFConfig,
    DFAFForAnswers,
    DFAFRecipe,
    DynamicIntraModality,
    InterModality,
    mean,
)
from vislang.models.loading import load
from vislang.nn.attention import not_padding
from vislang.tasks.catalogue import TASKS

QUESTIONS = ("what colour?", "is it red?")


def config(**more) -> DFAFConfig:
    return DFAFConfig(
        dataclasses.replace(WORDS), recurrent_width=16, width=16, heads=2, mlp_width=16, dropout=0.0, **more
    )


@pytest.fixture
def examples(tmp_path):
    """The answer to one question needs the image, that to the other as well."""
    made = []
    for n in range(8):
        image, colour = picture(tmp_path / f"{n}.png", COLOURS[n % 4], n), COLOURS[n % 4]
        for question, answer in zip(QUESTIONS, (colour, "yes" if colour == "red" else "no"), strict=True):
            target = Answers({answer: 1.0})
            made.append(
                Example(f"{question} {n}", Document([image, question]), target, source=f"my.jsonl:{n}", task="q")
            )
    return made


def recipe_of(towers, **more) -> DFAFRecipe:
    return DFAFRecipe(config(**more), regions_of(towers))


def model_of(towers, examples, **more) -> DFAFForAnswers:
    return built(recipe_of(towers, **more), examples)


def softmax(*logits: float) -> torch.Tensor:
    return torch.tensor(logits).softmax(dim=0)


def identity(linear, *factors: float) -> None:
    """Let a linear map of numbers multiply by each factor."""
    with torch.no_grad():
        linear.weight.copy_(torch.tensor(factors).view_as(linear.weight))
        linear.bias.zero_()


def test_inter_modality_flow_by_hand():
    """Width 1, one head. Queries are the features, keys twice the features, values three times."""
    flow = InterModality(1, 1, 0.0)
    for linear in (flow.regions, flow.words):
        identity(linear, 1.0, 2.0, 3.0)
    for linear in (flow.join_regions, flow.join_words):
        identity(linear, 1.0, 10.0)
    regions, words = torch.tensor([[[0.5], [1.0]]]), torch.tensor([[[0.2], [0.4], [9.0]]])
    padding = torch.tensor([[False, False, True]])
    new_regions, new_words = flow(regions, words, None, not_padding(padding))
    # The second region: its products with the keys 0.4 and 0.8 of the words; the third word is padding.
    expected = 1.0 + 10 * (softmax(0.4, 0.8) @ torch.tensor([0.6, 1.2]))
    assert new_regions[0, 1, 0].item() == pytest.approx(expected.item(), rel=1e-5)
    # The first word: its products with the keys 1 and 2 of the regions.
    expected = 0.2 + 10 * (softmax(0.2, 0.4) @ torch.tensor([1.5, 3.0]))
    assert new_words[0, 0, 0].item() == pytest.approx(expected.item(), rel=1e-5)


def test_gates_of_the_other_modality_scale_queries_and_keys():
    """With a gate of sigmoid(2), queries and keys are multiplied by 1 + sigmoid(2)."""
    flow = DynamicIntraModality(1, 1, 0.0)
    identity(flow.to_queries_keys_values, 1.0, 1.0, 1.0)
    identity(flow.gates, 1.0)
    identity(flow.to_output, 1.0)
    own = torch.tensor([[[1.0], [2.0]]])
    gate = 1 + torch.tensor(2.0).sigmoid()
    attended = softmax(gate**2 * 1.0, gate**2 * 2.0) @ torch.tensor([1.0, 2.0])
    found = flow(own, torch.tensor([[2.0]]), None)
    assert found[0, 0, 0].item() == pytest.approx(1.0 + attended.item(), rel=1e-5)
    assert flow(own, torch.tensor([[-9.0]]), None)[0, 0, 0].item() != pytest.approx(found[0, 0, 0].item(), rel=1e-3)


def test_a_mean_leaves_padding_out():
    sequence = torch.tensor([[[1.0], [3.0], [99.0]]])
    assert mean(sequence, torch.tensor([[False, False, True]])).item() == 2
    assert mean(sequence[:, :2], None).item() == 2


@pytest.mark.parametrize("depth", [1, 2])
def test_it_learns_to_answer(towers, examples, depth):
    model = model_of(towers, examples, depth=depth)
    train(model, model.collate(examples), 80, lr=3e-3)
    answers = [prediction.answer for prediction in model.decide(examples, batch_size=7)]
    truth = [next(iter(example.target.scores)) for example in examples]
    assert sum(a == t for a, t in zip(answers, truth, strict=True)) >= 0.9 * len(examples)


def test_every_parameter_learns(towers, examples):
    model = model_of(towers, examples)
    assert without_gradient(model, model.collate(examples)) == []


def test_an_answer_does_not_depend_on_what_else_is_asked(towers, examples):
    model = model_of(towers, examples).eval()
    together, alone = model.decide(examples[:4]), [model.decide([example])[0] for example in examples[:4]]
    for one, other in zip(together, alone, strict=True):
        assert one.candidates == tuple(model.tasks["q"].names)
        assert one.scores == pytest.approx(other.scores, abs=1e-5)
        assert sum(one.scores) == pytest.approx(1, abs=1e-5)


def test_the_loss_weighs_answers_by_their_soft_scores(towers, examples):
    model = model_of(towers, examples).eval()
    soft = dataclasses.replace(examples[0], target=Answers({"red": 0.9, "no": 0.3}))
    batch = model.collate([soft])
    logs = model.scores(batch).log_softmax(dim=-1)[0]
    names = model.tasks["q"].names
    expected = -(0.9 * logs[names.index("red")] + 0.3 * logs[names.index("no")])
    assert model(batch)["q"].item() == pytest.approx(expected.item(), rel=1e-5)


def test_a_saved_model_answers_alike_and_its_state_can_be_restored(towers, examples, tmp_path):
    model = model_of(towers, examples).eval()
    before = [prediction.scores for prediction in model.decide(examples)]
    model.save(tmp_path / "model")
    for other in (load(tmp_path / "model"), restored(recipe_of(towers), model)):
        for one, two in zip(before, [prediction.scores for prediction in other.decide(examples)], strict=True):
            assert one == pytest.approx(two, abs=1e-6)


def test_what_it_can_answer(towers, examples):
    model = model_of(towers, examples)
    assert cell(model, TASKS["easy-vqa"]).way == "decide"
    assert "has no head for targets of the kind box" in cell(model, TASKS["scenes"]).why_not
    assert "reads images and text, but no video" in cell(model, TASKS["easy-vqa-films"]).why_not


def test_bad_input_is_named(towers, examples, tmp_path):
    model = recipe_of(towers).build()
    labelled = [dataclasses.replace(example, target=Label("red")) for example in examples]
    with pytest.raises(UserError, match=r"task q: targets of the kind label; DFAF learns answers\. Use ViLBERT"):
        model.fit(labelled)
    image = examples[0].media[0]
    two = [dataclasses.replace(example, prompt=Document([image, image, "which?"])) for example in examples]
    with pytest.raises(UserError, match="task q: a record has 2 images; DFAF reads one"):
        model.fit(two)
    with pytest.raises(UserError, match="tasks q, r: DFAF learns one task"):
        model.fit([*examples, dataclasses.replace(examples[0], task="r")])
    with pytest.raises(ValueError, match=r"network.width 16 is not a multiple of 3 heads"):
        dataclasses.replace(config(), heads=3)
    model = model_of(towers, examples)
    silent = dataclasses.replace(examples[0], prompt=Document([image], name="my.jsonl:0"))
    with pytest.raises(UserError, match=r"my\.jsonl:0: has 0 texts"):
        model.collate([silent])
    model.save(tmp_path / "model")
    with_setting(tmp_path / "model", "mlp_width", 17)
    with pytest.raises(UserError, match="the weights do not fit the config"):
        load(tmp_path / "model")
