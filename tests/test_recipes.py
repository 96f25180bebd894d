"""Every recipe of vislang can be read, and its model can be built."""

import re
from pathlib import Path

import pytest

from vislang.models.data2vec.pretraining import Data2VecRecipe
from vislang.models.flamingo.recipe import FlamingoRecipe
from vislang.recipe import RecipeError, read_recipe
from vislang.runs.streams import read_streams

RECIPES = sorted((Path(__file__).parent.parent / "recipes").glob("*.yaml"))
PRETRAINING = {path.stem.removeprefix("data2vec-"): path for path in RECIPES if "Data2VecRecipe" in path.read_text()}


@pytest.mark.parametrize("path", RECIPES, ids=lambda path: path.stem)
def test_a_recipe_can_be_read(path):
    recipe, _ = read_recipe(path, [])
    assert recipe.train.steps > 0


@pytest.mark.parametrize("generation", ["v1", "v2"])
@pytest.mark.parametrize("name", PRETRAINING)
def test_one_switch_changes_the_generation(name, generation):
    recipe, _ = read_recipe(PRETRAINING[name], [f"--model.generation={generation}"])
    assert isinstance(recipe.model, Data2VecRecipe)
    model = recipe.model.build().model
    assert model.objective_config.generation == generation
    assert all((config.decoder is None) == (generation == "v1") for config in model.modalities.present().values())


def test_the_shared_encoder_learns_each_stream_as_the_encoders_of_one_do():
    """So that sharing is the only difference between them."""
    shared, _ = read_recipe(PRETRAINING["shared"], [])
    assert isinstance(shared.model, Data2VecRecipe)
    streams = {stream.name: stream for stream in shared.data}
    for name in ("image", "text", "speech"):
        alone, _ = read_recipe(PRETRAINING[name], [])
        assert isinstance(alone.model, Data2VecRecipe)
        (stream,) = alone.data
        assert streams[stream.name].sources == stream.sources
        sizes = [
            of.batch_size or recipe.train.batch_size for of, recipe in ((streams[stream.name], shared), (stream, alone))
        ]
        assert sizes[0] == sizes[1]
        for what in ("encoder", "dtype", "generation"):
            assert getattr(shared.model, what) == getattr(alone.model, what), what
        ours, theirs = shared.model.build().model, alone.model.build().model
        assert ours.objective_config == theirs.objective_config
        assert ours.teacher_config == theirs.teacher_config
        assert getattr(shared.model.modalities, name) == getattr(alone.model.modalities, name)
        assert getattr(shared.model.masking, name) == getattr(alone.model.masking, name)
        for what in ("steps", "lr", "warmup_steps", "clip_norm", "weight_decay"):
            assert getattr(shared.train, what) == getattr(alone.train, what), what
    image, _ = read_recipe(PRETRAINING["image"], [])
    assert image.model.augmentation == shared.model.augmentation


@pytest.mark.parametrize("name", ["flamingo", "flamingo-films"])
def test_recipes_for_videos_have_time_embeddings(name):
    """A user's records may be videos (README), which need time embeddings."""
    (path,) = [path for path in RECIPES if path.stem == name]
    recipe, _ = read_recipe(path, [])
    assert isinstance(recipe.model, FlamingoRecipe)
    assert recipe.model.bridge.frames > 0


def test_what_is_scored_on_may_have_no_splits(pictures):
    file = str(pictures / "my.jsonl")
    changes = [f"--data={file}", f"--eval_data={file}", "--hold_out=0"]
    recipe, _ = read_recipe(Path(__file__).parent.parent / "recipes" / "flamingo.yaml", changes)
    found = read_streams(recipe)
    (stream,) = found.streams
    assert (len(stream.train), len(stream.test), found.bad_records.count, found.indexed) == (24, 24, 0, [])


MODEL = "model: {class_path: vislang.models.flamingo.recipe.FlamingoRecipe, init_args: {%s}}\n"


@pytest.mark.parametrize(
    ("recipe", "message"),
    [
        ("data: x", "model is missing"),
        (
            "model: 3",
            "model is 3; it must name the recipe of a model, such as vislang.models.flamingo.recipe.FlamingoRecipe",
        ),
        ("model: {class_path: os.system}", "model is os.system; it must name the recipe of a model"),
        ("model: {class_path: vislang.nothing.X}", "it must name the recipe of a model"),
        ("model: {class_path: vislang.models.flamingo.model.Flamingo}", "it must name the recipe of a model"),
        (MODEL % "bridge: {latents: x}", "model.bridge.latents is x; it must be a whole number"),
        (MODEL % "bridge: {latnts: 3}", "model.bridge.latnts is unknown"),
        (MODEL % "image_sze: 3", "model.image_sze is unknown"),
        (MODEL % "dtype: float16", "model.dtype is float16; it must be one of 'float32', 'bfloat16', 'auto'"),
        (MODEL % "dtype: null", "model.dtype is null; give it a value, or leave it out"),
        (MODEL % "bridge: null", "model.bridge is null"),
        (MODEL % "bridge: 3", "must be an object with settings, not int"),
        (MODEL % "bridge: {latents: 0}", "bridge.latents is 0; it must be at least 1"),
        (MODEL % "" + "train: []", "must be an object with settings, not list"),
        (MODEL % "" + "train: {lr: null}", "train.lr is null"),
        (MODEL % "" + "train: {lrr: 1}", "train.lrr is unknown"),
        (MODEL % "" + "train: {betas: [0.9]}", "train.betas is [0.9]; it must be a list of 2 values"),
        (MODEL % "" + "data: 3", "data must be text or a list"),
        (MODEL % "" + "evaluate: easy-vqa", "evaluate must be a list"),
        (MODEL % "" + "nothing: 3", "nothing is unknown"),
    ],
)
def test_a_mistake_in_a_recipe_is_one_sentence_that_names_the_setting(tmp_path, recipe, message):
    path = tmp_path / "my.yaml"
    path.write_text(recipe)
    with pytest.raises(RecipeError) as caught:
        read_recipe(path)
    assert str(caught.value).startswith(f"{path}: ")
    assert message in str(caught.value)
    assert not re.search(r"<class|NoneType|Parser key|functools|\n", str(caught.value))


@pytest.mark.parametrize("value", ["1e-3", "1.0e-3", "'1e-3'", "0.001"])
def test_a_number_may_be_written_as_in_python(tmp_path, value):
    path = tmp_path / "my.yaml"
    path.write_text(MODEL % "" + f"train: {{lr: {value}}}")
    assert read_recipe(path)[0].train.lr == 1e-3
