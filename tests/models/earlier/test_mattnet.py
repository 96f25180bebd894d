"""MAttNet: surroundings and its loss by hand, training on expressions, saving."""

import dataclasses
import json

import numpy as np
import pytest
import torch
from PIL import Image as Pillow
from PIL import ImageDraw

from tests.models.earlier.systems import WORDS, built, restored, train, with_setting, without_gradient
from tests.models.test_vilbert_pretraining import COLOURS
from vislang.boxes import Box
from vislang.document import Document, Image
from vislang.errors import UserError
from vislang.evaluate.ways import cell
from vislang.example import Answers, Example
from vislang.models.earlier.mattnet import (
    MAttNet,
    MAttNetConfig,
    MAttNetForBoxes,
    MAttNetRecipe,
    nearness,
    surroundings,
)
from vislang.models.loading import load
from vislang.models.regions.readers import RegionsConfig
from vislang.tasks.catalogue import TASKS

LEFT, RIGHT = (2.0, 8.0, 14.0, 24.0), (18.0, 8.0, 30.0, 24.0)


def config(**more) -> MAttNetConfig:
    words = dataclasses.replace(WORDS)
    return MAttNetConfig(words, recurrent_width=16, width=16, dropout=0.0, **{"surrounding": 2, **more})


@pytest.fixture
def examples(tmp_path):
    """Images with two rectangles, an expression by colour and one by place for each, and their boxes in a file."""
    made, annotations = [], []
    for n in range(12):
        colours = COLOURS[n % 4], COLOURS[(n + 1 + n // 4) % 4]
        drawn = Pillow.new("RGB", (32, 32), "white")
        for colour, box in zip(colours, (LEFT, RIGHT), strict=True):
            ImageDraw.Draw(drawn).rectangle(box, fill=colour)
            annotations.append({"image_id": n, "bbox": [box[0], box[1], box[2] - box[0], box[3] - box[1]]})
        drawn.save(tmp_path / f"{n}.png")
        image = Image(tmp_path / f"{n}.png")
        for place, colour, box in zip(("left", "right"), colours, (LEFT, RIGHT), strict=True):
            for text in (f"the {place} one", f"the {colour} one"):
                prompt = Document([image, text], name=f"my.jsonl:{n}")
                made.append(Example(f"{text} {n}", prompt, Box(*box), source=f"my.jsonl:{n}", task="refer"))
    images = [{"id": n, "file_name": f"{n}.png", "width": 32, "height": 32} for n in range(12)]
    (tmp_path / "boxes.json").write_text(json.dumps({"images": images, "annotations": annotations}))
    return made


def recipe_of(towers, examples, **more) -> MAttNetRecipe:
    boxes = RegionsConfig(tower=towers[1], image_size=0, boxes="boxes.json")
    return MAttNetRecipe(config(**more), boxes)


def model_of(towers, examples, **more) -> MAttNetForBoxes:
    return built(recipe_of(towers, examples, **more), examples)


BOXES = torch.tensor([[[0.0, 0.0, 0.2, 0.4], [0.4, 0.0, 0.6, 0.2], [0.8, 0.0, 1.0, 0.4], [0, 0, 0, 0]]])
PADDING = torch.tensor([[False, False, False, True]])


def test_surroundings_by_hand():
    found = surroundings(nearness(BOXES), BOXES, PADDING, 3)
    # The first region: the second is nearer than the third, and there is no fourth.
    assert found.index[0, 0, :2].tolist() == [1, 2]
    assert found.missing[0, 0].tolist() == [False, False, True]
    # Left, top, right, bottom in widths and heights of the first region; the second has half of its area.
    torch.testing.assert_close(found.offsets[0, 0, 0], torch.tensor([2.0, 0.0, 2.0, -0.5, 0.5]))
    torch.testing.assert_close(found.offsets[0, 0, 1], torch.tensor([4.0, 0.0, 4.0, 0.0, 1.0]))
    assert not found.offsets[0, 0, 2].any()


def test_a_single_region_has_no_surroundings():
    found = surroundings(nearness(BOXES[:, :1]), BOXES[:, :1], None, 5)
    assert found.missing.all()
    network = MAttNet(dataclasses.replace(config(), feature_width=4)).eval()
    from vislang.models.vilbert.word_pieces import Pieces

    text = Pieces(torch.tensor([[2, 7, 3]]), torch.zeros(1, 3, dtype=torch.long), None)
    one = torch.zeros(1, dtype=torch.long)
    boxes = torch.cat([BOXES[:, :1], torch.ones(1, 1, 1)], dim=-1)
    scores = network(text, torch.randn(1, 1, 4), boxes, None, one, one)
    assert scores.shape == (1, 1)
    assert scores.isfinite().all()


def test_a_module_reads_its_words_and_weights_add_up(towers, examples):
    model = model_of(towers, examples)
    text = model.inputs.text([("the left one",), ("red",)])
    phrases = model.network.language(text.ids, text.padding)
    torch.testing.assert_close(phrases.weights.sum(dim=-1), torch.ones(2))
    torch.testing.assert_close(phrases.attention.sum(dim=-1), torch.ones(2, 3))
    assert not phrases.attention[1][:, text.padding[1]].any()
    vectors = model.network.language.vectors.eval()(text.ids)
    torch.testing.assert_close(phrases.vectors[0, 1], phrases.attention[0, 1] @ vectors[0])


def test_the_ranking_loss_by_hand(towers, examples, monkeypatch):
    model = model_of(towers, examples).eval()
    batch = model.collate(examples[:2])
    assert batch.targets.shape == (2, 2)
    right = [0.5, 0.45], [0.1, 0.3]
    wrong = [0.2, 0.0], [0.0, 0.25]
    targets = torch.tensor([[1.0, 0.0], [0.0, 0.8]])
    monkeypatch.setattr(model.network, "forward", lambda *_: torch.tensor([*right, *wrong]))
    batch.targets = targets
    # The margin is 0.1. First: 0.1 + 0.45 - 0.5 = 0.05 and 0.1 + 0.2 - 0.5 < 0.
    # Second: 0.1 + 0.1 - 0.3 < 0 and 0.1 + 0.25 - 0.3 = 0.05.
    assert model(batch)["refer"].item() == pytest.approx(0.05)
    assert model.loss_counts(batch) == {"refer": 2}
    # Where no candidate overlaps the truth, nothing is learned.
    batch.targets = targets * torch.tensor([[0.0], [1.0]])
    assert model(batch)["refer"].item() == pytest.approx(0.05)
    assert model.loss_counts(batch) == {"refer": 1}


def test_a_wrong_expression_belongs_to_another_region_of_the_image(towers, examples):
    model = model_of(towers, examples)
    tokenizer = model.inputs.words.tokenizer
    for seed in range(5):
        batch = model.collate(examples, seed)
        assert batch.has_wrong.all()
        for example, ids in zip(examples, batch.wrong.ids.tolist(), strict=True):
            text = tokenizer.decode(ids)
            here = [e for e in examples if e.media == example.media and e.text == text]
            assert here
            assert all(e.target != example.target for e in here)
    again = model.collate(examples[4:], 4, first=4)
    assert torch.equal(again.wrong.ids[:, :3], batch.wrong.ids[4:, :3])


def test_it_learns_to_refer(towers, examples):
    model = model_of(towers, examples)
    train(model, model.collate(examples), 60)
    predictions = model.decide(examples, batch_size=7)
    assert all(len(found.candidates) == 2 and found.kind == "similarity" for found in predictions)
    right = [p.answer == e.target for p, e in zip(predictions, examples, strict=True)]
    assert np.mean(right) > 0.9


def test_every_parameter_learns(towers, examples):
    model = model_of(towers, examples)
    assert without_gradient(model, model.collate(examples)) == []


def test_a_saved_model_refers_alike_and_its_state_can_be_restored(towers, examples, tmp_path):
    model = model_of(towers, examples).eval()
    before = [prediction.scores for prediction in model.decide(examples)]
    model.save(tmp_path / "model")
    for other in (load(tmp_path / "model"), restored(recipe_of(towers, examples), model)):
        for one, two in zip(before, [prediction.scores for prediction in other.decide(examples)], strict=True):
            assert one == pytest.approx(two, abs=1e-6)


def test_what_it_can_answer(towers, examples):
    model = model_of(towers, examples)
    assert cell(model, TASKS["scenes"]).way == "decide"
    assert "has no head for targets of the kind answers" in cell(model, TASKS["easy-vqa"]).why_not


def test_bad_input_is_named(towers, examples, tmp_path):
    answered = [dataclasses.replace(example, target=Answers({"red": 1.0})) for example in examples]
    with pytest.raises(UserError, match=r"task refer: targets of the kind answers; MAttNet learns box\. Use ViLBERT"):
        recipe_of(towers, examples).build().fit(answered)
    with pytest.raises(UserError, match=r"network\.surrounding is 0; it must be at least 1"):
        config(surrounding=0)
    model = model_of(towers, examples)
    model.save(tmp_path / "model")
    with_setting(tmp_path / "model", "margin", 0)
    with pytest.raises(UserError, match=r"margin is 0\.0; it must be above 0"):
        load(tmp_path / "model")
