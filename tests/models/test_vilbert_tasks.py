"""Heads and tasks: each kind of target is learned and decided; several tasks at once; mismatches are errors."""

import dataclasses
import json

import numpy as np
import pytest
import torch

from tests.models.test_vilbert_pretraining import COLOURS, pair_of, picture, small
from vislang.boxes import Box, overlaps
from vislang.document import Document
from vislang.errors import UserError
from vislang.evaluate.ways import cell
from vislang.example import Answers, Choice, Example, Label, Value
from vislang.models.loading import load
from vislang.models.regions.readers import RegionsConfig
from vislang.models.regions.region import Regions
from vislang.models.vilbert.inputs import PairInputs
from vislang.models.vilbert.task_batches import Task, TaskCollator, task_of
from vislang.models.vilbert.tasks import ViLBERTForTasks, ViLBERTRecipe
from vislang.models.vilbert.word_pieces import WordPieces
from vislang.tasks.catalogue import TASKS

COUNT = 16


@pytest.fixture
def images(tmp_path):
    return [picture(tmp_path / f"{number}.png", COLOURS[number % 4], number) for number in range(COUNT)]


def colour(number: int) -> str:
    return COLOURS[number % 4]


def examples_of(kind: str, images) -> list[Example]:
    made = []
    for number, image in enumerate(images):
        other = images[(number + 1) % COUNT]
        parts, choices = [image], ()
        if kind == "answers":
            parts, target = [image, "what colour?"], Answers({colour(number): 1.0, "dark": 0.3})
        elif kind == "choice":
            right = number % 3
            texts = [colour(number + 1 + index) for index in range(3)]
            texts[right] = colour(number)
            choices = tuple(Document([text]) for text in texts)
            parts, target = [image, "it is"], Choice(right)
        elif kind == "box":
            parts, target = [image, "the shape"], Box(number, 8, number + 9, 25)
        elif kind == "value":
            parts, target = [image, "how far right?"], Value(float(number) - 8)
        elif kind == "pair":
            second = other if number % 2 else images[(number + 4) % COUNT]
            parts, target = [image, second, "of one colour"], Label("False" if number % 2 else "True")
        else:
            parts, target = [image, "is it red?"], Label("yes" if number % 4 == 0 else "no")
        made.append(Example(str(number), Document(parts), target, choices, source=f"{kind} {number}", task=kind))
    return made


KINDS = ("answers", "choice", "box", "value", "pair", "label")


def model_of(towers, examples, **more) -> ViLBERTForTasks:
    torch.manual_seed(0)
    made = ViLBERTRecipe(small(**more), RegionsConfig(tower=towers[1], image_size=0)).build()
    made.fit(examples)
    return made


def train(model: ViLBERTForTasks, batches, steps: int, lr: float, is_done=lambda: False) -> None:
    """Train for some steps, or until ``is_done``, which is called after every 20 steps."""
    optimizer = torch.optim.AdamW([p for group in model.parameter_groups().values() for _, p in group], lr=lr)
    model.train()
    for step in range(steps):
        (loss,) = model(batches[step % len(batches)]).values()
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        if step % 20 == 19:
            model.eval()
            if is_done():
                return
            model.train()
    model.eval()


def is_learned(kind: str, examples, predictions) -> bool:
    """Whether nearly all predictions are right."""
    answers = [prediction.answer for prediction in predictions]
    if kind == "value":
        return np.corrcoef(answers, [example.target.number for example in examples])[0, 1] > 0.9
    if kind == "box":
        # The best cell of the grid is found; the share of boxes that a cell overlaps by one half depends on the grid.
        def overlap(box, example):
            return overlaps(np.array([list(vars(box).values())]), np.array([list(vars(example.target).values())]))[0, 0]

        return all(
            overlap(prediction.answer, example) >= 0.5
            or max(overlap(box, example) for box in prediction.candidates) < 0.5
            for prediction, example in zip(predictions, examples, strict=True)
        )
    truth = {
        "answers": lambda example: max(example.target.scores, key=example.target.scores.get),
        "choice": lambda example: example.target.index,
    }.get(kind, lambda example: example.target.name)
    return np.mean([answer == truth(example) for answer, example in zip(answers, examples, strict=True)]) > 0.9


@pytest.mark.parametrize("kind", KINDS)
def test_each_kind_of_task_is_learned(towers, images, kind):
    examples = examples_of(kind, images)
    model = model_of(towers, examples)
    batches = [model.collate(examples)]
    train(model, batches, 200, 1e-3, lambda: is_learned(kind, examples, model.decide(examples)))
    predictions = model.decide(examples, batch_size=5)
    assert [prediction.id for prediction in predictions] == [example.id for example in examples]
    assert is_learned(kind, examples, predictions)
    if kind != "value":
        assert all(len(prediction.candidates) == len(prediction.scores) for prediction in predictions)


def test_several_tasks_share_streams_and_each_has_its_head(towers, images):
    examples = [example for kind in KINDS for example in examples_of(kind, images)]
    model = model_of(towers, examples)
    assert {name: task.kind for name, task in model.tasks.items()} == {
        "answers": "answers",
        "choice": "choice",
        "box": "box",
        "value": "value",
        "pair": "label",
        "label": "label",
    }
    assert model.tasks["pair"].images == 2
    mixed = [examples[0], examples[20], examples[1]]
    assert [type(found.answer).__name__ for found in model.eval().decide(mixed)] == ["str", "int", "str"]
    assert model.decide(mixed)[0].candidates == tuple(model.tasks["answers"].names)
    with pytest.raises(UserError, match="a batch with the tasks answers, choice"):
        model.collate([examples[0], examples[20]])


def test_a_decision_does_not_depend_on_what_else_is_in_the_batch(towers, images):
    examples = examples_of("choice", images)
    examples[3] = dataclasses.replace(examples[3], choices=examples[3].choices[:2], target=Choice(0))
    model = model_of(towers, examples).eval()
    together, alone = model.decide(examples), [model.decide([example])[0] for example in examples]
    for one, other in zip(together, alone, strict=True):
        np.testing.assert_allclose(one.scores, other.scores, atol=1e-5)
    assert len(together[3].scores) == 2


def test_the_loss_of_boxes_counts_real_regions_alone(towers, images):
    examples = examples_of("box", images)
    model = model_of(towers, examples).eval()
    read = model.inputs.regions.read

    def fewer(wanted):
        found = read(wanted)
        return [
            regions.best(16 if image.name.endswith("0.png") else 9)
            for regions, image in zip(found, wanted, strict=True)
        ]

    model.inputs.regions.read = fewer
    pair = [examples[0], examples[1]]
    with torch.no_grad():
        both = model(model.collate(pair))["box"]
        each = [model(model.collate([example]))["box"] for example in pair]
    assert both.item() == pytest.approx(torch.stack(each).mean().item(), rel=1e-4)


def test_targets_of_boxes_are_overlaps_of_one_half_and_more(images):
    class Reader:
        name, fingerprint, classes_fingerprint, width, classes = "drawn", "", "", 4, 0

        def prepare(self, wanted, progress=None):
            return 0

        def keep_in_memory(self, images):
            raise AssertionError("nothing is cached here")

        def read(self, wanted):
            boxes = np.array([[0, 8, 9, 25], [0, 8, 9, 14], [0, 8, 10, 25]], dtype=np.float32)
            return [Regions(np.ones((3, 4), np.float32), boxes, 32, 32) for _ in wanted]

    inputs = PairInputs(WordPieces.train(["the shape"], 40, 12), Reader(), RegionsConfig())
    batch = TaskCollator(inputs, {"box": Task("box")})(examples_of("box", images)[:1])
    # The whole image, the box itself, a part below one half, a little more than it.
    np.testing.assert_allclose(batch.targets[0].numpy(), [0, 1, 0, 0.9], atol=1e-6)


def test_a_saved_model_decides_alike_and_its_state_can_be_restored(towers, images, tmp_path):
    examples = [example for kind in KINDS for example in examples_of(kind, images)]
    model = model_of(towers, examples).eval()
    before = [d.scores for d in model.decide(examples)]
    model.save(tmp_path / "model")
    again = load(tmp_path / "model")
    fresh = ViLBERTRecipe(small(), RegionsConfig(tower=towers[1], image_size=0)).build()
    fresh.load_extra_state(json.loads(json.dumps(model.extra_state())))
    fresh.load_trainable_state(model.trainable_state())
    for other in (again, fresh.eval()):
        for one, two in zip(before, [d.scores for d in other.decide(examples)], strict=True):
            np.testing.assert_allclose(one, two, atol=1e-6)


def test_a_vocabulary_that_does_not_match_the_head_is_an_error(towers, images, tmp_path):
    model_of(towers, examples_of("answers", images)).save(tmp_path / "model")
    config = json.loads((tmp_path / "model" / "config.json").read_text())
    config["tasks"]["answers"]["names"].append("purple")
    (tmp_path / "model" / "config.json").write_text(json.dumps(config))
    with pytest.raises(UserError, match="task answers: it has 6 answers or labels, and its head has 5 outputs"):
        load(tmp_path / "model")


def test_a_label_that_was_never_learned_is_named_in_training_and_no_obstacle_in_use(towers, images):
    examples = examples_of("label", images)
    model = model_of(towers, examples).eval()
    new = dataclasses.replace(examples[0], target=Label("perhaps"))
    with pytest.raises(UserError, match=r"label 0: unknown label 'perhaps'; this model knows no, yes"):
        model.collate([new])
    assert model.decide([new])[0].answer in ("yes", "no")


def test_answers_of_large_sets_are_right_nine_times_at_least(images):
    def example(number, answer):
        return Example(str(number), Document([images[0], "?"]), Answers({answer: 1.0}), task="vqa")

    many = (
        [example(n, "often") for n in range(9_990)]
        + [example(n, "nine") for n in range(9)]
        + [example(n, "eight") for n in range(8)]
    )
    assert task_of("vqa", many).names == ["often", "nine"]
    assert task_of("vqa", many[-20:]).names == ["nine", "eight", "often"]


def test_a_path_of_several_images_is_read_as_one_document(towers, images):
    examples = [
        Example(
            f"path {n}",
            Document(["go"]),
            Choice(n % 2),
            tuple(Document(images[n : n + length]) for length in (2, 3)),
            task="path",
        )
        for n in range(8)
    ]
    config = small()
    config.vision.images = 3
    torch.manual_seed(0)
    model = ViLBERTRecipe(config, RegionsConfig(tower=towers[1], image_size=0)).build()
    model.fit(examples)
    batch = model.collate(examples)
    assert batch.pairs.features.shape[1] == 3 * 17
    assert batch.pairs.steps[0].unique().tolist() == [0, 1]
    before = model.eval().decide(examples[:1])[0].scores
    # The order of the images matters: each is marked with its step.
    turned = dataclasses.replace(examples[0], choices=tuple(Document(o.media[::-1]) for o in examples[0].choices))
    with torch.no_grad():
        model.network.streams.region_embedding.images.weight.mul_(50)
    assert model.decide([turned])[0].scores != model.decide(examples[:1])[0].scores
    assert len(before) == 2
    with pytest.raises(UserError, match="4 images; this model reads 3 at once"):
        model.decide([Example("long", Document(["go"]), None, (Document(images[:4]),) * 2, task="path")])


def test_a_task_starts_from_pretrained_streams(towers, images, tmp_path):
    from vislang.models.regions.sources import ClusteredRegions
    from vislang.models.vilbert.pretraining import ViLBERTPretrainingRecipe

    source = RegionsConfig(tower=towers[1], image_size=0).open().source
    ClusteredRegions.fit(source, [image.decode() for image in images], clusters=4).save(tmp_path / "c.safetensors")
    regions = RegionsConfig(tower=towers[1], image_size=0, clusters=str(tmp_path / "c.safetensors"))
    pretrained = ViLBERTPretrainingRecipe(small(), regions).build()
    pretrained.fit([pair_of(image, f"a {colour(n)} shape") for n, image in enumerate(images)])
    pretrained.save(tmp_path / "pretrained")
    model = ViLBERTRecipe(start_from=str(tmp_path / "pretrained")).build()
    for name, tensor in pretrained.network.streams.state_dict().items():
        torch.testing.assert_close(model.network.streams.state_dict()[name], tensor)
    model.fit(examples_of("answers", images))
    assert model.inputs.words.size == pretrained.inputs.words.size
    with pytest.raises(UserError, match=r"contains no config\.json"):
        ViLBERTRecipe(start_from=str(tmp_path)).build()


def test_boxes_of_region_files_are_those_of_the_image_itself(images, tmp_path):
    """The files were made from images of twice the size; if an image is missing, boxes stay in pixels of the file."""
    boxes = np.array([[0, 0, 20, 20], [10, 10, 60, 64]], dtype=np.float32)
    features = np.random.default_rng(0).standard_normal((2, 8)).astype(np.float32)
    record = {"bbox": boxes, "features": features, "num_boxes": 2, "image_width": 64, "image_height": 64}
    for number in range(COUNT):
        np.save(tmp_path / f"{number}.npy", record)
    examples = examples_of("box", images)
    torch.manual_seed(0)
    model = ViLBERTRecipe(small(), RegionsConfig(tower=None, files=str(tmp_path))).build()
    model.fit(examples)
    wanted = [[0, 0, 32, 32], [0, 0, 10, 10], [5, 5, 30, 32]]
    assert model.collate.boxes(examples[0]).tolist() == wanted
    batch = model.collate([dataclasses.replace(examples[0], target=Box(5, 5, 30, 32))])
    np.testing.assert_array_equal(batch.candidates[0], wanted)
    assert batch.targets[0].tolist()[2] == 1.0
    images[1].source.unlink()
    assert model.collate.boxes(examples[1]).tolist() == [[0, 0, 64, 64], *boxes.tolist()]


@pytest.mark.parametrize("kind", ["choice", "value"])
def test_two_images_that_are_no_pair_to_compare_are_a_path(towers, images, kind):
    target = {"choice": Choice(0), "value": Value(1.0)}[kind]
    count = 3 if kind == "choice" else 0
    examples = [
        Example(f"{n}", Document([*images[n : n + 2], "go"]), target, (Document(["on"]),) * count, task=kind)
        for n in range(4)
    ]
    config = small()
    config.vision.images = 2
    model = ViLBERTRecipe(config, RegionsConfig(tower=towers[1], image_size=0)).build()
    model.fit(examples)
    assert model(model.collate(examples))[kind].isfinite()
    assert len(model.eval().decide(examples)) == 4


def test_a_box_in_several_images_is_an_error(images):
    example = Example("x", Document([*images[:2], "the shape"]), Box(0.0, 0.0, 9.0, 9.0), task="box")
    with pytest.raises(UserError, match="a record has 2 images; a box needs a single image"):
        task_of("box", [example])


def test_a_model_whose_weights_are_bad_decides_nothing(towers, images):
    examples = examples_of("choice", images)
    model = model_of(towers, examples).eval()
    with torch.no_grad():
        next(model.network.parameters()).fill_(torch.nan)
    with pytest.raises(UserError, match="output is not a number"):
        model.decide(examples)


def test_all_of_a_grid_is_looked_at(towers, images):
    """For any number of cells, and regardless of ``count``, which is for detectors."""
    inputs = ViLBERTRecipe(small(), RegionsConfig(tower=towers[1], image_size=0, count=3)).build().inputs
    boxes = inputs.regions_of((images[0],)).found[0].boxes
    assert len(boxes) == 16
    assert boxes[:, 3].max() == images[0].decode().height


def test_padding_is_no_candidate_of_a_box(towers, images, tmp_path):
    examples = examples_of("box", images)
    model = model_of(towers, examples).eval()
    few = model.decide(examples[:1])[0]
    assert len(few.candidates) == 17
    assert all(box.right > box.left for box in few.candidates)


def test_each_task_has_its_token_where_the_streams_have_such(towers, images, tmp_path):
    examples = [*examples_of("label", images), *examples_of("choice", images)]
    config = small()
    config.text.task_tokens = 3
    torch.manual_seed(0)
    model = ViLBERTRecipe(config, RegionsConfig(tower=towers[1], image_size=0)).build()
    model.fit(examples)
    assert [task.token for task in model.tasks.values()] == [0, 1]
    batches = [model.collate(examples[:4]), model.collate(examples[COUNT : COUNT + 4])]
    train(model, batches, 4, 1e-3)
    decided = model.decide(examples)
    model.save(tmp_path / "model")
    opened = load(tmp_path / "model")
    assert [found.scores for found in opened.decide(examples)] == [found.scores for found in decided]
    with torch.no_grad():
        opened.network.streams.text_embedding.tasks.weight[1].mul_(-30)
    again = opened.decide(examples)
    assert [d.scores for d in again[:COUNT]] == [d.scores for d in decided[:COUNT]]
    assert [d.scores for d in again[COUNT:]] != [d.scores for d in decided[COUNT:]]
    shown = model.explain(dataclasses.replace(examples[0], target=None))
    assert shown.tokens[:2] == ["[CLS]", "[TASK]"]
    assert len(shown.tokens) == shown.blocks[0].text.shape[1]
    assert model.match_all(images[:2], ["red", "blue"]).isfinite().all()


def test_a_head_is_found_by_name_task_or_kind(towers, images):
    examples = [*examples_of("label", images), *examples_of("pair", images), *examples_of("choice", images)]
    model = model_of(towers, examples).eval()
    assert model.heads == {"label": "label", "pair": "label", "choice": "choice"}
    assert model.head_for("choice") == "choice"
    assert model.head_for("label", "pair") == "pair"
    with pytest.raises(UserError, match=r"this model has label \(label\), pair \(label\), choice \(choice\)"):
        model.head_for("label")
    with pytest.raises(UserError, match=r"no head 'yes'.*Choose one with --head"):
        model.head_for("label", "yes")
    assert model.why_undecided("label", ["yes", "no"]) is None
    assert model.why_undecided("label", ["yes", "maybe"]) == "was not trained on the label 'maybe'"
    assert "has no head for targets of the kind box" in model.why_undecided("box")
    unnamed = dataclasses.replace(examples[0], task="", target=None)
    assert model.decide([unnamed], head="label") == model.decide([examples[0]])
    with pytest.raises(UserError, match="head"):
        model.decide([unnamed])
    # An example of another task is decided by the only head of its kind.
    other = dataclasses.replace(examples[-1], task="vcr")
    assert model.decide([other]) == model.decide([examples[-1]])
    assert model.why_unreadable(frozenset({"text", "image", "several images"})) is None


def test_images_are_compared_with_texts_by_a_head_for_choices(towers, images):
    task = TASKS["snli-ve"]
    choosing, labelling = (model_of(towers, examples_of(kind, images)).eval() for kind in ("choice", "answers"))
    assert (choosing.why_unmatched(), cell(choosing, task).way) == (None, "match")
    found = cell(labelling, task)
    assert found.way is None
    assert "has no head for choices" in found.why_not
    image = examples_of("answers", images)[0].media[0]
    with pytest.raises(UserError, match="no head for choices"):
        labelling.match_all([image], ["a text"])


def test_a_task_without_a_name_is_called_by_its_kind(towers, images):
    examples = [dataclasses.replace(example, task="") for example in examples_of("answers", images)]
    model = model_of(towers, examples)
    assert model.heads == {"answers": "answers"}
    assert model.collate(examples[:2]).task == "answers"
    assert model.eval().decide(examples[:2])[0].answer in model.tasks["answers"].names


def test_a_target_of_another_kind_is_named(towers, images):
    examples = examples_of("label", images)
    model = model_of(towers, examples)
    with pytest.raises(UserError, match="label 0: its target is of the kind value; the task label has label"):
        model.collate([dataclasses.replace(examples[0], target=Value(1.0))])
    with pytest.raises(UserError, match="targets of the kind label, value; a task has one kind, of"):
        task_of("x", [examples[0], dataclasses.replace(examples[0], target=Value(1.0))])
