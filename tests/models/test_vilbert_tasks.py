"""Heads and tasks: each kind of target is learned and decided; many at once; what does not fit is refused."""

import dataclasses
import json

import numpy as np
import pytest
import torch

from tests.models.test_vilbert_pretraining import COLOURS, picture, small
from vislang.case import Answers, Case, Choice, Label, Place, Value
from vislang.document import Document
from vislang.errors import UserError
from vislang.models.loading import load
from vislang.models.regions.readers import RegionsConfig
from vislang.models.regions.region import Regions
from vislang.models.vilbert.inputs import PairInputs
from vislang.models.vilbert.tasks import Task, TaskCollator, ViLBERTForTasks, ViLBERTRecipe, task_of
from vislang.models.vilbert.word_pieces import WordPieces
from vislang.tasks.decisions import guess_scores, score_decisions

COUNT = 16


@pytest.fixture
def images(tmp_path):
    return [picture(tmp_path / f"{number}.png", COLOURS[number % 4], number) for number in range(COUNT)]


def colour(number: int) -> str:
    return COLOURS[number % 4]


def cases_of(kind: str, images) -> list[Case]:
    made = []
    for number, image in enumerate(images):
        other = images[(number + 1) % COUNT]
        if kind == "answers":
            options, target = [Document([image, "what colour?"])], Answers({colour(number): 1.0, "dark": 0.3})
        elif kind == "choice":
            right = number % 3
            said = [colour(number + 1 + place) for place in range(3)]
            said[right] = colour(number)
            options, target = [Document([image, "it is", text]) for text in said], Choice(right)
        elif kind == "place":
            left = number
            options, target = [Document([image, "the shape"])], Place(left, 8, left + 9, 25)
        elif kind == "value":
            options, target = [Document([image, "how far right?"])], Value(float(number) - 8)
        elif kind == "pair":
            second = other if number % 2 else images[(number + 4) % COUNT]
            options, target = [Document([image, second, "of one colour"])], Label("False" if number % 2 else "True")
        else:
            options, target = [Document([image, "is it red?"])], Label("yes" if number % 4 == 0 else "no")
        made.append(Case(f"{kind} {number}", tuple(options), target, kind, id=str(number)))
    return made


KINDS = ("answers", "choice", "place", "value", "pair", "label")


def model_of(towers, cases, **more) -> ViLBERTForTasks:
    torch.manual_seed(0)
    made = ViLBERTRecipe(small(**more), RegionsConfig(tower=towers[1], image_size=0)).build()
    made.fit(cases)
    return made


def train(model: ViLBERTForTasks, batches, steps: int, lr: float) -> None:
    optimizer = torch.optim.AdamW([p for group in model.parameter_groups().values() for _, p in group], lr=lr)
    model.train()
    for step in range(steps):
        (loss,) = model.losses(batches[step % len(batches)]).values()
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    model.eval()


@pytest.mark.parametrize("kind", KINDS)
def test_each_kind_of_task_is_learned(towers, images, kind):
    cases = cases_of(kind, images)
    model = model_of(towers, cases)
    train(model, [model.collate(cases)], 200, 1e-3)
    decisions = model.decide(cases, batch_size=5)
    scores = score_decisions(cases, decisions)
    if kind == "value":
        assert scores["Pearson r"] > 0.9
    elif kind == "place":
        # The best cell of the grid is found; how many of them overlap a box by one half, the grid decides.
        assert scores["accuracy"].value == scores["upper bound"].value
    else:
        value = scores["accuracy"]
        assert getattr(value, "value", value) > 0.9
    if kind != "value":
        assert all(len(d.candidates) == len(d.probabilities) for d in decisions)


def test_several_tasks_share_streams_and_each_has_its_head(towers, images):
    cases = [case for kind in KINDS for case in cases_of(kind, images)]
    model = model_of(towers, cases)
    assert {name: task.kind for name, task in model.tasks.items()} == {
        "answers": "answers",
        "choice": "choice",
        "place": "place",
        "value": "value",
        "pair": "label",
        "label": "label",
    }
    assert model.tasks["pair"].images == 2
    mixed = [cases[0], cases[20], cases[1]]
    assert [type(d.best).__name__ for d in model.eval().decide(mixed)] == ["str", "int", "str"]
    assert model.decide(mixed)[0].candidates == tuple(model.tasks["answers"].names)
    with pytest.raises(UserError, match="tasks answers, choice in one batch"):
        model.collate([cases[0], cases[20]])


def test_a_decision_does_not_depend_on_what_else_is_in_the_batch(towers, images):
    cases = cases_of("choice", images)
    cases[3] = dataclasses.replace(cases[3], options=cases[3].options[:2], target=Choice(0))
    model = model_of(towers, cases).eval()
    together, alone = model.decide(cases), [model.decide([case])[0] for case in cases]
    for one, other in zip(together, alone, strict=True):
        np.testing.assert_allclose(one.probabilities, other.probabilities, atol=1e-5)
    assert len(together[3].probabilities) == 2


def test_the_loss_of_places_counts_real_regions_alone(towers, images):
    cases = cases_of("place", images)
    model = model_of(towers, cases).eval()
    read = model.inputs.regions.read

    def fewer(wanted):
        found = read(wanted)
        return [
            regions.best(16 if image.name.endswith("0.png") else 9)
            for regions, image in zip(found, wanted, strict=True)
        ]

    model.inputs.regions.read = fewer
    pair = [cases[0], cases[1]]
    with torch.no_grad():
        both = model.losses(model.collate(pair))["place"]
        each = [model.losses(model.collate([case]))["place"] for case in pair]
    assert both.item() == pytest.approx(torch.stack(each).mean().item(), rel=1e-4)


def test_targets_of_places_are_overlaps_of_one_half_and_more(images):
    class Reader:
        name, fingerprint, classes_fingerprint, width, classes = "drawn", "", "", 4, 0

        def prepare(self, wanted, progress=None):
            return 0

        def read(self, wanted):
            boxes = np.array([[0, 8, 9, 25], [0, 8, 9, 14], [0, 8, 10, 25]], dtype=np.float32)
            return [Regions(np.ones((3, 4), np.float32), boxes, 32, 32) for _ in wanted]

    inputs = PairInputs(WordPieces.train(["the shape"], 40, 12), Reader(), RegionsConfig())
    batch = TaskCollator(inputs, {"place": Task("place")})(cases_of("place", images)[:1])
    # The whole image, the box itself, a part below one half, a little more than it.
    np.testing.assert_allclose(batch.targets[0].numpy(), [0, 1, 0, 0.9], atol=1e-6)


def test_a_saved_model_decides_alike_and_its_state_can_be_restored(towers, images, tmp_path):
    cases = [case for kind in KINDS for case in cases_of(kind, images)]
    model = model_of(towers, cases).eval()
    before = [d.probabilities for d in model.decide(cases)]
    model.save(tmp_path / "model")
    again = load(tmp_path / "model")
    fresh = ViLBERTRecipe(small(), RegionsConfig(tower=towers[1], image_size=0)).build()
    fresh.load_trainable_state(model.trainable_state())
    for other in (again, fresh.eval()):
        for one, two in zip(before, [d.probabilities for d in other.decide(cases)], strict=True):
            np.testing.assert_allclose(one, two, atol=1e-6)


def test_a_vocabulary_that_does_not_match_the_head_is_refused(towers, images, tmp_path):
    model_of(towers, cases_of("answers", images)).save(tmp_path / "model")
    config = json.loads((tmp_path / "model" / "config.json").read_text())
    config["tasks"]["answers"]["names"].append("purple")
    (tmp_path / "model" / "config.json").write_text(json.dumps(config))
    with pytest.raises(UserError, match="task answers: 6 answers or labels, and its head has 5 outputs"):
        load(tmp_path / "model")


def test_a_label_that_was_never_learned_is_named_in_training_and_no_obstacle_in_use(towers, images):
    cases = cases_of("label", images)
    model = model_of(towers, cases).eval()
    new = dataclasses.replace(cases[0], target=Label("perhaps"))
    with pytest.raises(UserError, match=r"label 0: label 'perhaps'; this model knows no, yes"):
        model.collate([new])
    assert model.decide([new])[0].best in ("yes", "no")


def test_answers_of_large_sets_are_right_nine_times_at_least(images):
    def case(number, answer):
        return Case(str(number), (Document([images[0], "?"]),), Answers({answer: 1.0}), "vqa")

    many = (
        [case(n, "often") for n in range(9_990)]
        + [case(n, "nine") for n in range(9)]
        + [case(n, "eight") for n in range(8)]
    )
    assert task_of("vqa", many).names == ["often", "nine"]
    assert task_of("vqa", many[-20:]).names == ["nine", "eight", "often"]


def test_a_path_of_several_images_is_read_as_one_document(towers, images):
    cases = [
        Case(
            f"path {n}",
            tuple(Document([*images[n : n + length], "go"]) for length in (2, 3)),
            Choice(n % 2),
            "path",
        )
        for n in range(8)
    ]
    config = small()
    config.vision.images = 3
    torch.manual_seed(0)
    model = ViLBERTRecipe(config, RegionsConfig(tower=towers[1], image_size=0)).build()
    model.fit(cases)
    batch = model.collate(cases)
    assert batch.pairs.features.shape[1] == 3 * 17
    assert batch.pairs.steps[0].unique().tolist() == [0, 1]
    before = model.eval().decide(cases[:1])[0].probabilities
    # The order of the images tells: each is marked by its step.
    turned = dataclasses.replace(cases[0], options=tuple(Document([*o.media[::-1], "go"]) for o in cases[0].options))
    with torch.no_grad():
        model.network.streams.region_embedding.images.weight.mul_(50)
    assert model.decide([turned])[0].probabilities != model.decide(cases[:1])[0].probabilities
    assert len(before) == 2
    with pytest.raises(UserError, match="4 images, and this model tells 3 apart"):
        model.decide([Case("long", (Document([*images[:4], "go"]),) * 2, None, "path")])


def test_guesses_that_never_look(images):
    cases = cases_of("label", images)
    assert guess_scores(cases, cases)["majority accuracy"] == 0.75
    assert guess_scores([], cases_of("choice", images))["chance accuracy"] == pytest.approx(1 / 3)


def test_the_whole_image_is_a_guess_at_a_place(images):
    """Right where the box is more than half of the image; unknown where an image is gone."""
    cases = cases_of("place", images)
    assert guess_scores([], cases) == {"whole image accuracy": 0.0}
    large = dataclasses.replace(cases[0], target=Place(0, 4, 32, 32))
    half = dataclasses.replace(cases[1], target=Place(0, 16, 32, 32))
    assert guess_scores([], [large, half, *cases[2:4]]) == {"whole image accuracy": 0.25}
    images[1].source.unlink()
    assert guess_scores([], [large, half]) == {}


def test_a_task_starts_from_pretrained_streams(towers, images, tmp_path):
    from vislang.models.regions.sources import ClusteredRegions
    from vislang.models.vilbert.pretraining import ViLBERTPretrainingRecipe

    source = RegionsConfig(tower=towers[1], image_size=0).open().source
    ClusteredRegions.fit(source, [image.decode() for image in images], clusters=4).save(tmp_path / "c.safetensors")
    regions = RegionsConfig(tower=towers[1], image_size=0, clusters=str(tmp_path / "c.safetensors"))
    pretrained = ViLBERTPretrainingRecipe(small(), regions).build()
    pretrained.fit([Document([image, f"a {colour(n)} shape"]) for n, image in enumerate(images)])
    pretrained.save(tmp_path / "pretrained")
    model = ViLBERTRecipe(start_from=str(tmp_path / "pretrained")).build()
    for name, tensor in pretrained.network.streams.state_dict().items():
        torch.testing.assert_close(model.network.streams.state_dict()[name], tensor)
    model.fit(cases_of("answers", images))
    assert model.inputs.words.size == pretrained.inputs.words.size
    with pytest.raises(UserError, match=r"no config\.json in it"):
        ViLBERTRecipe(start_from=str(tmp_path)).build()


def test_boxes_of_region_files_are_those_of_the_image_itself(images, tmp_path):
    """The files were made of each image at twice its size; where it is gone, their own pixels are all there is."""
    boxes = np.array([[0, 0, 20, 20], [10, 10, 60, 64]], dtype=np.float32)
    features = np.random.default_rng(0).standard_normal((2, 8)).astype(np.float32)
    record = {"bbox": boxes, "features": features, "num_boxes": 2, "image_width": 64, "image_height": 64}
    for number in range(COUNT):
        np.save(tmp_path / f"{number}.npy", record)
    cases = cases_of("place", images)
    torch.manual_seed(0)
    model = ViLBERTRecipe(small(), RegionsConfig(tower=None, files=str(tmp_path))).build()
    model.fit(cases)
    wanted = [[0, 0, 32, 32], [0, 0, 10, 10], [5, 5, 30, 32]]
    assert model.collate.boxes(cases[0]).tolist() == wanted
    batch = model.collate([dataclasses.replace(cases[0], target=Place(5, 5, 30, 32))])
    np.testing.assert_array_equal(batch.candidates[0], wanted)
    assert batch.targets[0].tolist()[2] == 1.0
    images[1].source.unlink()
    assert model.collate.boxes(cases[1]).tolist() == [[0, 0, 64, 64], *boxes.tolist()]


@pytest.mark.parametrize("kind", ["choice", "value"])
def test_two_images_that_are_no_pair_to_compare_are_a_path(towers, images, kind):
    target = {"choice": Choice(0), "value": Value(1.0)}[kind]
    count = 3 if kind == "choice" else 1
    cases = [
        Case(f"{n}", (Document([*images[n : n + 2], "go"]),) * count, dataclasses.replace(target), kind)
        for n in range(4)
    ]
    config = small()
    config.vision.images = 2
    model = ViLBERTRecipe(config, RegionsConfig(tower=towers[1], image_size=0)).build()
    model.fit(cases)
    assert model.losses(model.collate(cases))[kind].isfinite()
    assert len(model.eval().decide(cases)) == 4


def test_a_place_in_several_images_is_refused(images):
    case = Case("x", (Document([*images[:2], "the shape"]),), Place(0.0, 0.0, 9.0, 9.0), "place")
    with pytest.raises(UserError, match="a place is one in one image, and a record has 2"):
        task_of("place", [case])


def test_a_model_whose_weights_are_bad_decides_nothing(towers, images):
    cases = cases_of("choice", images)
    model = model_of(towers, cases).eval()
    with torch.no_grad():
        next(model.network.parameters()).fill_(torch.nan)
    with pytest.raises(UserError, match="scores are no numbers"):
        model.decide(cases)


def test_all_of_a_grid_is_looked_at(towers, images):
    """However many cells there are, and whatever ``count`` says of detectors."""
    inputs = ViLBERTRecipe(small(), RegionsConfig(tower=towers[1], image_size=0, count=3)).build().inputs
    boxes = inputs.regions_of((images[0],)).found[0].boxes
    assert len(boxes) == 16
    assert boxes[:, 3].max() == images[0].decode().height


def test_padding_is_no_candidate_of_a_place(towers, images, tmp_path):
    cases = cases_of("place", images)
    model = model_of(towers, cases).eval()
    few = model.decide(cases[:1])[0]
    assert len(few.candidates) == 17
    assert all(place.right > place.left for place in few.candidates)


def test_each_task_has_its_token_where_the_streams_have_such(towers, images, tmp_path):
    cases = [*cases_of("label", images), *cases_of("choice", images)]
    config = small()
    config.text.task_tokens = 3
    torch.manual_seed(0)
    model = ViLBERTRecipe(config, RegionsConfig(tower=towers[1], image_size=0)).build()
    model.fit(cases)
    assert [task.token for task in model.tasks.values()] == [0, 1]
    batches = [model.collate(cases[:4]), model.collate(cases[COUNT : COUNT + 4])]
    train(model, batches, 4, 1e-3)
    decided = model.decide(cases)
    model.save(tmp_path / "model")
    opened = load(tmp_path / "model")
    assert [found.probabilities for found in opened.decide(cases)] == [found.probabilities for found in decided]
    with torch.no_grad():
        opened.network.streams.text_embedding.tasks.weight[1].mul_(-30)
    again = opened.decide(cases)
    assert [d.probabilities for d in again[:COUNT]] == [d.probabilities for d in decided[:COUNT]]
    assert [d.probabilities for d in again[COUNT:]] != [d.probabilities for d in decided[COUNT:]]
    shown = model.explain(dataclasses.replace(cases[0], target=None))
    assert shown.tokens[:2] == ["[CLS]", "[TASK]"]
    assert len(shown.tokens) == shown.blocks[0].text.shape[1]
    assert model.match_all(images[:2], ["red", "blue"]).isfinite().all()
