"""A data2vec model as the tower of a Flamingo, of the regions of a ViLBERT, and of a dual encoder."""

import json

import pytest
import torch
from PIL import Image as Pillow
from PIL import ImageDraw

import vislang
from tests import tiny
from tests.models import test_dual_encoder, test_vilbert_pretraining
from tests.models.test_dual_encoder import pairs  # noqa: F401
from tests.models.test_pretraining import recipe as pretraining
from vislang.cli import main
from vislang.document import Document
from vislang.example import Example, Label
from vislang.models.data2vec.finetuning import FineTuneRecipe
from vislang.models.data2vec.heads import HeadConfig
from vislang.models.data2vec.inputs import ImageInput
from vislang.models.data2vec.tower import Data2VecTower
from vislang.models.dual_encoder.model import DualEncoderRecipe
from vislang.models.flamingo.config import FlamingoConfig
from vislang.models.flamingo.recipe import FlamingoRecipe
from vislang.models.regions.readers import RegionsConfig
from vislang.models.regions.sources import ClusteredRegions
from vislang.models.towers.packaged import TowerError
from vislang.models.towers.vision import load_vision_tower
from vislang.models.vilbert.pretraining import PairMasking, ViLBERTPretrainingRecipe


@pytest.fixture
def encoder(tmp_path):
    """A data2vec model of images of 32 pixels in patches of 4, and its folder."""
    torch.manual_seed(0)
    model = pretraining("v2", "image").build().model.eval()
    model.save(tmp_path / "data2vec")
    return model, str(tmp_path / "data2vec")


@torch.no_grad()
def test_the_tower_gives_the_encoders_output_for_each_patch(encoder, pairs):  # noqa: F811
    model, folder = encoder
    tower = load_vision_tower(folder)
    assert isinstance(tower, Data2VecTower)
    assert (tower.image_size, tower.width) == (32, 16)
    # These images are squares of this size, of which embed crops nothing.
    image = pairs[0].media[0]
    cells = tower(tower.preprocess(image.decode())[None])
    assert cells.shape == (1, 64, 16)
    torch.testing.assert_close(cells.mean(dim=1), model.embed([Document([image])]))
    assert not tower.trains


def test_the_whole_of_a_wide_image_is_seen(encoder):
    """The grid of the cells covers the image, as the boxes of regions say."""
    tower = load_vision_tower(encoder[1])
    wide = Pillow.new("RGB", (96, 32), "white")
    ImageDraw.Draw(wide).rectangle([0, 0, 20, 31], fill="black")
    dark = tower.preprocess(wide).mean(dim=0) < 0
    assert dark[:, :5].all()
    assert not dark[:, 9:].any()


def test_another_size_another_modality_and_other_pixels_are_not_this_tower(encoder, tmp_path):
    model, folder = encoder
    with pytest.raises(TowerError, match="reads images of 32 pixels"):
        load_vision_tower(folder, 64)
    before = load_vision_tower(folder, 32).fingerprint
    model.inputs.image = ImageInput(32, mean=(0.5, 0.5, 0.5))
    model.save(tmp_path / "other")
    assert load_vision_tower(str(tmp_path / "other")).fingerprint != before
    pretraining("v2", "speech").build().model.save(tmp_path / "speech")
    with pytest.raises(TowerError, match="reads no images"):
        load_vision_tower(str(tmp_path / "speech"))


def test_a_fine_tuned_encoder_is_a_tower(encoder, pairs, tmp_path):  # noqa: F811
    tuned = FineTuneRecipe(encoder[1], head=HeadConfig(pooling="mean")).build()
    tuned.fit([Example(p.id, p.prompt, Label(str(n % 2))) for n, p in enumerate(pairs)])
    tuned.save(tmp_path / "tuned")
    tower = load_vision_tower(str(tmp_path / "tuned"))
    assert tower.fingerprint == load_vision_tower(encoder[1]).fingerprint


def test_a_flamingo_sees_by_it(encoder, towers, pairs, tmp_path):  # noqa: F811
    flamingo = FlamingoRecipe(towers[0], encoder[1], bridge=FlamingoConfig(**tiny.BRIDGE)).build().eval()
    document = Document([pairs[0].media[0], "what color?"], target="red")
    score = flamingo.score([document])[0].log_likelihood
    flamingo.save(tmp_path / "flamingo")
    again = vislang.load(tmp_path / "flamingo")
    assert again.score([document])[0].log_likelihood == pytest.approx(score, abs=1e-5)
    with torch.no_grad():
        encoder[0].student.blocks[0].narrow.weight.add_(1e-2)
    encoder[0].save(tmp_path / "data2vec")
    with pytest.raises(TowerError, match="is not the one that this bridge was trained with"):
        vislang.load(tmp_path / "flamingo")


def test_a_vilbert_reads_its_patches_as_regions(encoder, pairs, tmp_path):  # noqa: F811
    """Clusters of its features are the classes that pretraining predicts."""
    source = RegionsConfig(tower=encoder[1], image_size=0).open().source
    images = [pair.media[0].decode() for pair in pairs]
    ClusteredRegions.fit(source, images, clusters=4).save(tmp_path / "clusters.safetensors")
    regions = RegionsConfig(tower=encoder[1], image_size=0, clusters=str(tmp_path / "clusters.safetensors"))
    model = ViLBERTPretrainingRecipe(test_vilbert_pretraining.small(), regions, PairMasking()).build()
    model.fit(pairs)
    batch = model.collate(pairs)
    assert batch.pairs.features.shape == (16, 65, 16)
    assert all(loss.isfinite() for loss in model(batch).values())


def test_a_dual_encoder_stands_on_it_and_is_a_tower_again(encoder, pairs, tmp_path):  # noqa: F811
    made = DualEncoderRecipe(test_dual_encoder.bag(), RegionsConfig(tower=encoder[1], image_size=0)).build()
    made.fit(pairs)
    made.eval().save(tmp_path / "dual")
    vectors = vislang.load(tmp_path / "dual").embed_images([pair.media[0] for pair in pairs])
    torch.testing.assert_close(vectors, made.embed_images([pair.media[0] for pair in pairs]))
    tower = load_vision_tower(str(tmp_path / "dual"))
    assert tower(tower.preprocess(pairs[0].media[0].decode())[None]).shape == (1, 64, 32)


def test_a_recipe_of_a_flamingo_trains_on_it(encoder, recipe, pictures, tmp_path):
    out = tmp_path / "run"
    words = ["train", str(recipe), "--data", str(pictures / "my.jsonl"), "--model.vision_tower", encoder[1]]
    assert main([*words, "--train.steps", "2", "--out", str(out), "--no-report"]) == 0
    recorded = json.loads((out / "model" / "config.json").read_text())
    assert recorded["vision_tower"]["fingerprint"] == load_vision_tower(encoder[1]).fingerprint
