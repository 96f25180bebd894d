"""R2R: candidate paths from the graph, ranked by a speaker, and the directions of a path."""

import json
import math
from dataclasses import replace

import pytest
import torch

import vislang
from tests import tiny
from tests.models.test_vilbert_pretraining import small
from tests.tasks.official import FOLDERS, r2r_folder
from vislang.cli import main
from vislang.data.problems import DataError
from vislang.document import Document, Image
from vislang.errors import UserError
from vislang.example import Choice, Example, Prediction, Text
from vislang.metrics.navigation import Graph
from vislang.models.regions.readers import RegionsConfig
from vislang.models.vilbert.tasks import ViLBERTRecipe
from vislang.tasks.benchmarks.r2r import R2R, VIEWS

SQUARE = Graph(
    {
        "a": {"b": 1.0, "d": 1.0},
        "b": {"a": 1.0, "c": 1.0},
        "c": {"b": 1.0, "d": 1.0},
        "d": {"a": 1.0, "c": 1.0},
    },
    {"a": (0, 0, 0), "b": (0, 1, 0), "c": (1, 1, 1), "d": (1, 0, 0)},
)


def test_simple_paths_visit_no_viewpoint_twice():
    assert SQUARE.simple_paths("a", 2, 9) == [tuple("abc"), tuple("adc"), tuple("abcd"), tuple("adcb")]
    assert SQUARE.simple_paths("a", 0, 1) == [("a",), ("a", "b"), ("a", "d")]
    with pytest.raises(UserError, match="viewpoint z: not in the building's graph"):
        SQUARE.simple_paths("z", 0, 1)


def test_directions_are_those_of_the_simulator():
    """Along y is 0, along x a quarter turn clockwise; from b to c the camera looks up by 45 degrees."""
    found = SQUARE.directions(list("abbcda"))
    expected = [(0, 0), (0, 0), (0, 0), (90, 45), (180, -45), (270, 0)]
    assert found == [pytest.approx(tuple(math.radians(angle) for angle in pair)) for pair in expected]


def test_a_submission_has_the_direction_of_each_step(tmp_path):
    """The viewpoints of the folder are in a row along x."""
    task = R2R(r2r_folder(tmp_path))
    examples = task.examples("val")
    _, content = task.submission(examples, [Prediction(example.id, ("a", "b", "a")) for example in examples])
    east, west = pytest.approx(math.pi / 2), pytest.approx(3 * math.pi / 2)
    assert json.loads(content)[0]["trajectory"] == [["a", 0, 0], ["b", east, 0], ["a", west, 0]]


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """R2R with pictures and without beam files."""
    made = tmp_path_factory.mktemp("r2r")
    FOLDERS["r2r"](made)
    for path in made.glob("beams_*.json"):
        path.unlink()
    return made


def test_all_paths_without_a_speaker(folder, tmp_path):
    out = tmp_path / "beams.json"
    command = ["paths", str(folder), "val_unseen", "--shortest", "2", "--longest", "3", "--out", str(out)]
    assert main(command) == 0
    records = json.loads(out.read_text())
    assert [record["instr_id"] for record in records] == ["1_0", "1_1", "1_2"]
    assert records[0]["ranked_paths"] == [list("abc"), list("abcd")]


def test_a_speaker_ranks_the_paths_and_a_model_chooses_among_them(folder, long_towers, tmp_path, capsys):
    tiny.flamingo(long_towers).save(tmp_path / "speaker")
    speaker = vislang.load(tmp_path / "speaker")
    command = ["paths", str(folder), "val_unseen", "--speaker", str(tmp_path / "speaker"), "--device", "cpu"]
    assert main([*command, "--shortest", "1", "--longest", "4", "--keep", "3"]) == 0
    records = json.loads((folder / "beams_val_unseen.json").read_text())
    task = R2R(folder)
    paths = [list("ab"), list("abc"), list("abcd"), list("abcde")]
    for record, example in zip(records, task.examples("val_unseen"), strict=True):
        assert len(record["ranked_paths"]) == len(record["scores"]) == 3
        # Each path alone, its prompt written out by hand: the images, then the instruction as their caption.
        given = task.paths_from_start(example, 1, 4)
        prompts = [speaker.prompts.render(Example("x", choice, Text(("x",)))) for choice in given.choices]
        scores = [speaker.rank([prompt], [example.text])[0][0].log_likelihood for prompt in prompts]
        likely = dict(zip(map(tuple, paths), scores, strict=True))
        best = sorted(likely, key=lambda path: -likely[path])[:3]
        assert [tuple(path) for path in record["ranked_paths"]] == best
        assert record["scores"] == pytest.approx([likely[path] for path in best], abs=1e-4)
    assert main(["eval", str(tmp_path / "speaker"), "--task", f"r2r:{folder}", "--json", "--device", "cpu"]) == 0
    assert json.loads(capsys.readouterr().out.splitlines()[-1])["figures"]["success_rate"]["n"] == 3


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["val_unseen", "--shortest", "3", "--longest", "2"], "--shortest must be from 0 to --longest"),
        (["val_unseen", "--keep", "0"], "--keep must be at least 1"),
        (["val_unseen", "--shortest", "9", "--longest", "9"], "1_0: no path of 9 to 9 steps begins at a"),
        (["none"], "no split 'none'"),
        (["val_unseen", "--out", "/none/beams.json"], "there is no folder /none"),
        (["val_unseen", "--speaker", "MODEL"], "a Data2Vec does not give the likelihood of an instruction"),
    ],
)
def test_options_that_cannot_be_used(folder, tmp_path, capsys, options, message):
    if "MODEL" in options:
        from tests.models.test_pretraining import recipe

        recipe("v2", "image").build().save(tmp_path / "model")
        options = [str(tmp_path / "model") if option == "MODEL" else option for option in options]
    before = sorted(folder.iterdir())
    assert main(["paths", str(folder), *options]) == 2
    assert message in capsys.readouterr().err
    assert sorted(folder.iterdir()) == before


def test_a_model_without_paths_is_told_how_to_make_them(folder):
    for path in folder.glob("beams_*.json"):
        path.unlink()
    task = R2R(folder)
    with pytest.raises(DataError, match=r"1_0: has no paths to choose from\. Add .* \(vislang paths makes it\)"):
        task.must_be_answerable(task.examples("val_unseen"))


def test_images_of_a_path_face_the_way_it_goes(folder):
    task = R2R(folder)
    given = task.paths_from_start(task.examples("val_unseen")[0], 2, 2)
    (path,) = given.choices
    east = pytest.approx(math.pi / 2)
    found = [(medium.source.heading, medium.source.next_heading) for medium in path.media]
    assert found == [(0, east), (east, east), (east, east)]
    assert path.media[1].source.direction() == pytest.approx((1, 0, 0, 1, 1, 0))
    assert path.media[1].content_hash == Image(path.media[1].source.path).content_hash


@pytest.mark.parametrize("directions", [False, True])
def test_a_vilbert_reads_directions_if_it_is_built_so(folder, towers, tmp_path, directions):
    """The same images in the same order, seen in other directions."""
    task = R2R(folder)
    example = task.paths_from_start(task.examples("val_unseen")[0], 2, 2)
    streams = small()
    streams.vision.images, streams.vision.directions = VIEWS, directions
    torch.manual_seed(0)
    model = ViLBERTRecipe(streams, RegionsConfig(tower=towers[1], image_size=0)).build()
    model.fit([replace(example, target=Choice(0))])
    model.eval().save(tmp_path / "model")
    model = vislang.load(tmp_path / "model", regions=RegionsConfig(tower=towers[1], image_size=0))
    turned = [Image(replace(medium.source, heading=2.0)) for medium in example.choices[0].media]
    without = [Image(medium.source.path) for medium in turned]
    paths = (example.choices[0], Document(turned), Document(without))
    with torch.no_grad():
        for parameter in model.network.parameters():
            if parameter.ndim > 1:
                parameter.mul_(4)
    (chosen,) = model.decide([replace(example, choices=paths)])
    own, other, none = chosen.scores
    assert (abs(own - other) > 1e-6) == directions
    assert (abs(own - none) > 1e-6) == directions
