"""The contrastive pair: its loss by hand, equal results with chunks, training, saving."""

import dataclasses
import math

import pytest
import torch

from tests.models.test_vilbert_pretraining import COLOURS, pair_of, picture
from vislang.document import Document
from vislang.errors import UserError
from vislang.models.augmentation import Augmentation
from vislang.models.dual_encoder.encoders import DualEncoder, DualEncoderConfig, contrastive_loss
from vislang.models.dual_encoder.model import ContrastiveEncoder, DualEncoderRecipe, UnknownWords
from vislang.models.dual_encoder.words import WordsAndPieces
from vislang.models.loading import load
from vislang.models.regions.readers import RegionsConfig
from vislang.models.towers.vision import load_vision_tower
from vislang.models.vilbert.config import TextStreamConfig, VisionStreamConfig
from vislang.models.vilbert.word_pieces import WordPieces


def small() -> DualEncoderConfig:
    text = TextStreamConfig(vocabulary_size=60, max_length=16, width=32, depth=1, heads=2, mlp_width=64, dropout=0.0)
    vision = VisionStreamConfig(width=32, depth=1, heads=2, mlp_width=64, dropout=0.0, attention_dropout=0.0)
    text.attention_dropout = 0.0
    return DualEncoderConfig(text, vision, width=16)


def pairs_in(folder) -> list:
    """Sixteen shapes of four colours with their captions."""
    return [
        pair_of(picture(folder / f"{n}.png", COLOURS[n % 4], n), f"a {COLOURS[n % 4]} shape", name=str(n))
        for n in range(16)
    ]


@pytest.fixture
def pairs(tmp_path):
    return pairs_in(tmp_path)


def model_of(towers, pairs, chunk: int = 0) -> ContrastiveEncoder:
    torch.manual_seed(0)
    made = DualEncoderRecipe(small(), RegionsConfig(tower=towers[1], image_size=0), chunk=chunk).build()
    made.fit(pairs)
    return made


@pytest.fixture(scope="session")
def dual(towers, tmp_path_factory) -> str:
    """The folder of a dual encoder that knows four colours."""
    folder = tmp_path_factory.mktemp("dual")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("VISLANG_CACHE", str(folder / "cache"))
        pairs = pairs_in(folder)
        model = model_of(towers, pairs)
        optimizer, batch = torch.optim.AdamW(model.parameters(), lr=3e-3), model.collate(pairs)
        for _ in range(60):
            optimizer.zero_grad()
            sum(model(batch).values()).backward()
            optimizer.step()
        model.eval().save(folder / "model")
    return str(folder / "model")


def test_the_loss_by_hand():
    images, texts = torch.eye(2), torch.tensor([[1.0, 0.0], [0.6, 0.8]])
    losses = contrastive_loss(images, texts, torch.eye(2, dtype=torch.bool), torch.tensor(2.0))
    # Scores times two: [[2, 1.2], [0, 1.6]].
    rows = math.log(1 + math.exp(1.2 - 2)), math.log(1 + math.exp(0 - 1.6))
    columns = math.log(1 + math.exp(0 - 2)), math.log(1 + math.exp(1.2 - 1.6))
    assert losses["image_to_text"].item() == pytest.approx(sum(rows) / 4)
    assert losses["text_to_image"].item() == pytest.approx(sum(columns) / 4)


def test_what_belongs_to_an_image_too_is_no_negative():
    """Two images with the same text: both are correct for it, and neither is the other's negative."""
    images, texts = torch.eye(3), torch.eye(3)[:2]
    belong = torch.tensor([[True, False], [True, False], [False, True]])
    losses = contrastive_loss(images, texts, belong, torch.tensor(1.0))
    # The first text finds its image 0 among 0 and 2 (scores 1 and 0), and image 1 among 1 and 2 (0 and 0).
    first = math.log(1 + math.exp(-1)) + math.log(2)
    # The second finds image 2 (score 0) among all three (0, 1 and 0).
    second = math.log(2 + math.exp(1))
    assert losses["text_to_image"].item() == pytest.approx((first + second) / 6)


def test_chunks_change_neither_loss_nor_gradient(towers, pairs):
    """In float64: how a processor rounds sums of float32 depends on the size of a batch and on its vector units."""
    whole, cut = model_of(towers, pairs).double().train(), model_of(towers, pairs, chunk=3).double().train()
    batch = whole.collate(pairs)
    batch.features, batch.boxes = batch.features.double(), batch.boxes.double()
    results = []
    for model in (whole, cut):
        torch.stack(list(model(batch).values())).sum().backward()
        results.append({name: parameter.grad for name, parameter in model.network.named_parameters()})
    assert results[0].keys() == results[1].keys()
    for name, gradient in results[0].items():
        if gradient is not None:
            torch.testing.assert_close(gradient, results[1][name], atol=1e-12, rtol=1e-9)


def test_chunks_keep_the_inner_states_of_one_chunk_alone(towers, pairs):
    """The memory of the graph between the passes must not grow with the batch."""

    def held(chunk: int) -> int:
        model = model_of(towers, pairs, chunk).train()
        kept = 0

        def pack(tensor):
            nonlocal kept
            kept += tensor.nbytes if tensor.is_floating_point() and tensor.ndim > 1 else 0
            return tensor

        batch = model.collate(pairs)
        with torch.autograd.graph.saved_tensors_hooks(pack, lambda tensor: tensor):
            model(batch)
        return kept

    assert held(2) < held(0) / 3


def test_it_learns_and_ranks(towers, pairs):
    model = model_of(towers, pairs).train()
    batch = model.collate(pairs)
    assert len(batch.text.ids) == 4  # a caption that several pictures share is read once
    optimizer = torch.optim.AdamW([p for group in model.parameter_groups().values() for _, p in group], lr=3e-3)
    for _ in range(100):
        loss = torch.stack(list(model(batch).values())).sum()
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    model.eval()
    scores = model.match_all([pair.media[0] for pair in pairs], [f"a {colour} shape" for colour in COLOURS])
    assert (scores.argmax(dim=1) == torch.arange(16) % 4).float().mean() > 0.9
    assert 0.01 <= model.diagnostics()["temperature"] < 0.1


def bag() -> DualEncoderConfig:
    text = TextStreamConfig(vocabulary_size=30, max_length=16, depth=0, dropout=0.0)
    vision = VisionStreamConfig(width=32, depth=0, heads=2, mlp_width=64, dropout=0.0)
    return DualEncoderConfig(text, vision, width=16)


def bag_of(towers, pairs) -> ContrastiveEncoder:
    torch.manual_seed(0)
    made = DualEncoderRecipe(bag(), RegionsConfig(tower=towers[1], image_size=0)).build()
    made.fit(pairs)
    return made


def test_a_bag_learns_from_its_words_alone(towers, pairs):
    """The order of words, single letters and unknown words have no effect."""
    model = bag_of(towers, pairs).train()
    batch = model.collate(pairs)
    optimizer = torch.optim.AdamW([p for group in model.parameter_groups().values() for _, p in group], lr=3e-3)
    for _ in range(150):
        loss = torch.stack(list(model(batch).values())).sum()
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    model.eval()
    texts = [f"a {colour} shape" for colour in COLOURS]
    scores = model.match_all([pair.media[0] for pair in pairs], texts)
    assert (scores.argmax(dim=1) == torch.arange(16) % 4).float().mean() > 0.9
    with pytest.warns(UnknownWords, match="not in the model's vocabulary are ignored: platypus, wug"):
        red, again, nothing = model.embed_texts(["a red shape", "Shape, b red platypus!", "a wug"])
    torch.testing.assert_close(again, red)
    assert red.norm() == pytest.approx(1)
    assert not nothing.any()


def with_pieces(towers, pairs) -> ContrastiveEncoder:
    torch.manual_seed(0)
    config = dataclasses.replace(bag(), pieces=60)
    made = DualEncoderRecipe(config, RegionsConfig(tower=towers[1], image_size=0)).build()
    made.fit(pairs)
    return made


@torch.no_grad()
def test_a_bag_of_words_and_pieces_is_the_sum_of_both(towers, pairs, recwarn):
    model = with_pieces(towers, pairs).eval()
    words = model.inputs.words
    assert isinstance(words, WordsAndPieces)
    torch.nn.init.normal_(model.network.text.embedding.weight)
    table = model.network.text.embedding.weight
    of_words = words.words.tokenizer.encode("red shape", add_special_tokens=False).ids
    of_pieces = words.pieces.tokenizer.encode("red shape", add_special_tokens=False).ids
    expected = table[of_words].sum(dim=0) + table[30:][of_pieces].sum(dim=0)
    torch.testing.assert_close(model.embed_texts(["red shape", "a black shape of red"])[0], expected / expected.norm())
    # A word of no training caption is read by its pieces, without a warning.
    assert model.embed_texts(["shaped"]).norm() == pytest.approx(1)
    assert not [warning for warning in recwarn if warning.category is UnknownWords]


def test_words_and_pieces_are_saved_and_extended(towers, pairs, tmp_path):
    model = with_pieces(towers, pairs).eval()
    texts = ["a red shape", "shaped"]
    vectors = model.embed_texts(texts)
    model.save(tmp_path / "model")
    torch.testing.assert_close(load(tmp_path / "model").embed_texts(texts), vectors)
    config = dataclasses.replace(bag(), pieces=60)
    fresh = DualEncoderRecipe(config, RegionsConfig(tower=towers[1], image_size=0)).build()
    fresh.load_extra_state(model.extra_state())
    fresh.load_trainable_state(model.trainable_state())
    torch.testing.assert_close(fresh.eval().embed_texts(texts), vectors)
    on = DualEncoderRecipe(start_from=str(tmp_path / "model")).build()
    on.fit([pair_of(pair.media[0], f"one wug {n % 2}", name=str(n)) for n, pair in enumerate(pairs)])
    assert on.inputs.words.size == model.inputs.words.size + 2
    torch.testing.assert_close(on.eval().embed_texts(texts), vectors)


def test_pieces_need_a_bag_without_a_tokenizer_of_its_own(towers):
    with pytest.raises(UserError, match="only a bag of words has words and pieces"):
        dataclasses.replace(small(), pieces=60)
    with pytest.raises(UserError, match="leave out encoders"):
        DualEncoderRecipe(dataclasses.replace(bag(), pieces=60), tokenizer="vocab.txt").build()


def test_pieces_of_a_tokenizer_of_ones_own_are_all_known(towers, pairs, tmp_path, recwarn):
    pieces = WordPieces.train([f"a {colour} shape" for colour in COLOURS], 30, 16)
    (tmp_path / "tokenizer.json").write_text(pieces.tokenizer.to_str())
    regions = RegionsConfig(tower=towers[1], image_size=0)
    model = DualEncoderRecipe(bag(), regions, tokenizer=str(tmp_path / "tokenizer.json")).build()
    model.fit(pairs)
    assert model.inputs.words.size == pieces.size
    assert model.eval().embed_texts(["shared"]).any()
    assert not [warning for warning in recwarn if warning.category is UnknownWords]


def test_an_image_without_blocks_is_its_mean_feature(towers, pairs):
    model = bag_of(towers, pairs).eval()
    batch = model.collate(pairs[:3])
    whole = model.network.image(batch.features, batch.boxes, batch.region_padding)
    batch.features[:, 1:] = 7.0
    torch.testing.assert_close(model.network.image(batch.features, batch.boxes, None), whole)
    states = model.network.image.read(batch.features, batch.boxes)
    assert states.shape == (3, batch.features.shape[1], 32)


def pooled_by(pooling: str, towers, pairs, depth: int = 0) -> ContrastiveEncoder:
    torch.manual_seed(0)
    config = dataclasses.replace(bag() if depth == 0 else small(), pooling=pooling)
    made = DualEncoderRecipe(config, RegionsConfig(tower=towers[1], image_size=0)).build()
    made.fit(pairs)
    return made


@pytest.mark.parametrize("depth", [0, 1])
def test_the_whole_image_is_the_mean_and_the_maximum_of_its_cells(towers, pairs, depth):
    model = pooled_by("both", towers, pairs, depth)
    batch = model.collate(pairs)
    cells = batch.features[:, 1:]
    image = model.network.image
    pooled = image.pool(batch.features)
    assert pooled.shape[1] == (1 if depth == 0 else batch.features.shape[1])
    torch.testing.assert_close(pooled[:, 0], torch.cat([cells.mean(dim=1), cells.amax(dim=1)], dim=-1))
    # A single cell is its own mean and maximum.
    torch.testing.assert_close(pooled[:, 1:], torch.cat([cells, cells], dim=-1)[:, : pooled.shape[1] - 1])
    torch.testing.assert_close(image.features_mean, pooled.flatten(0, 1).mean(dim=0), atol=1e-5, rtol=1e-4)
    # Padding is never the greatest.
    padding = torch.zeros(batch.features.shape[:2], dtype=torch.bool)
    padding[:, -1] = True
    longer = batch.features.clone()
    longer[:, -1] = 1e6
    torch.testing.assert_close(image.pool(longer, padding)[:, 0, 16:], cells[:, :-1].amax(dim=1))


@pytest.mark.parametrize("pooling", ["max", "both"])
def test_a_model_of_every_pooling_is_saved_and_is_a_tower(towers, pairs, tmp_path, pooling):
    model = pooled_by(pooling, towers, pairs).eval()
    model.save(tmp_path / "model")
    again = load(tmp_path / "model")
    images = [pair.media[0] for pair in pairs[:3]]
    torch.testing.assert_close(again.embed_images(images), model.embed_images(images))
    tower = load_vision_tower(str(tmp_path / "model"))
    cells = tower(torch.stack([tower.preprocess(image.decode()) for image in images]))
    assert cells.shape == (3, model.collate(pairs).features.shape[1] - 1, 32)


def test_features_are_dropped_in_training_alone(towers, pairs):
    config = dataclasses.replace(bag(), feature_dropout=0.5)
    model = DualEncoderRecipe(config, RegionsConfig(tower=towers[1], image_size=0)).build()
    model.fit(pairs)
    batch = model.collate(pairs)
    inputs = (batch.features, batch.boxes, batch.region_padding)
    assert not torch.equal(model.network.image(*inputs), model.network.image(*inputs))
    model.eval()
    assert torch.equal(model.network.image(*inputs), model.network.image(*inputs))


def augmented(towers, **more) -> ContrastiveEncoder:
    torch.manual_seed(0)
    regions = RegionsConfig(tower=towers[1], image_size=0)
    return DualEncoderRecipe(bag(), regions, Augmentation(scale=(0.3, 1.0), hue=0.4), **more).build()


def test_versions_of_the_training_images_are_encoded_once_and_drawn(towers, pairs):
    model = augmented(towers, versions=3)
    held = [dataclasses.replace(pair, target=None) for pair in pairs[:2]]
    assert model.prepare([*pairs[2:], *held]) == 14 * 4 + 2
    assert model.prepare(pairs[2:]) == 0
    model.fit(pairs)
    drawn = torch.stack([model.collate(pairs[2:], seed).features for seed in range(12)])
    assert model.prepare(pairs[2:]) == 0
    assert 2 <= len(drawn[:, 0].flatten(1).unique(dim=0)) <= 4
    torch.testing.assert_close(model.collate(pairs[2:], 5).features, drawn[5])
    # Held-out images are not augmented.
    model.eval()
    whole = [model.collate(pairs[2:], seed).features for seed in range(2)]
    assert torch.equal(*whole)
    assert torch.equal(whole[0], model_of(towers, pairs).collate(pairs[2:]).features)
    assert not torch.equal(whole[0], drawn[0])


def test_the_captions_of_one_image_see_the_same_version(towers, pairs):
    """Otherwise one caption would count as a negative of the other."""
    model = augmented(towers)
    both = [pair_of(pairs[0].media[0], caption, name=caption) for caption in ("a red shape", "a square")]
    model.fit([*both, *pairs])
    for seed in range(5):
        batch = model.collate([*both, *pairs[1:3]], seed)
        assert len(batch.features) == 3
        assert batch.image_of.tolist() == [0, 0, 1, 2]


def test_only_the_images_of_a_tower_can_be_augmented(towers, tmp_path):
    (tmp_path / "boxes.json").write_text('{"images": [], "annotations": []}')
    regions = RegionsConfig(tower=towers[1], image_size=0, boxes=str(tmp_path / "boxes.json"))
    with pytest.raises(UserError, match="Leave augmentation out"):
        DualEncoderRecipe(bag(), regions, Augmentation()).build()


def test_what_all_images_have_in_common_is_taken_off(towers, pairs):
    model = model_of(towers, pairs)
    image = model.network.image
    features = model.collate(pairs).features.flatten(0, 1)
    torch.testing.assert_close(image.features_mean, features.mean(dim=0), atol=1e-5, rtol=1e-4)
    wide = features.std(dim=0) > 0.1 * features.std(dim=0).mean()
    torch.testing.assert_close(image.features_deviation[wide], features.std(dim=0)[wide], atol=1e-5, rtol=1e-4)
    before = image.features_mean.clone()
    model.fit(pairs[:4])
    torch.testing.assert_close(image.features_mean, before)


def test_a_bag_of_words_learns_new_words_in_further_training(towers, pairs, tmp_path):
    model = bag_of(towers, pairs)
    model.save(tmp_path / "model")
    on = DualEncoderRecipe(start_from=str(tmp_path / "model")).build()
    renamed = [pair_of(pair.media[0], f"one wug {n % 2}", name=str(n)) for n, pair in enumerate(pairs)]
    on.fit(renamed)
    assert on.inputs.words.size == model.inputs.words.size + 2
    with pytest.warns(UnknownWords, match="wug"):
        assert not model.embed_texts(["wug"]).any()
    on.eval()
    before = model.eval().embed_texts(["red shape"])
    torch.testing.assert_close(on.embed_texts(["red shape"]), before)
    assert on.embed_texts(["wug"]).norm() == pytest.approx(1)


def test_images_and_texts_are_embedded_in_batches_in_their_order(towers, pairs, monkeypatch):
    model = model_of(towers, pairs).eval()
    mixed = [Document([pair.target.references[0]]) if n % 2 else pair.prompt for n, pair in enumerate(pairs)]
    alone = torch.cat([model.embed([document]) for document in mixed])
    called = []
    encode = model.embed_images
    monkeypatch.setattr(model, "embed_images", lambda images: (called.append(len(images)), encode(images))[1])
    torch.testing.assert_close(model.embed(mixed, batch_size=10), alone, atol=1e-5, rtol=0)
    assert called == [5, 3]
    for parts in ((*pairs[0].media, "a shape"), (*pairs[0].media, *pairs[1].media)):
        with pytest.raises(UserError, match="has an image and a text"):
            model.embed([Document(parts, name="both")])


def test_a_saved_model_embeds_alike(towers, pairs, tmp_path):
    model = model_of(towers, pairs).eval()
    documents = [Document([pairs[0].media[0]]), Document(["a red shape"])]
    before = model.embed(documents)
    torch.testing.assert_close(before.norm(dim=-1), torch.ones(2))
    model.save(tmp_path / "model")
    torch.testing.assert_close(load(tmp_path / "model").embed(documents), before)
    fresh = DualEncoderRecipe(small(), RegionsConfig(tower=towers[1], image_size=0)).build()
    fresh.load_extra_state(model.extra_state())
    fresh.load_trainable_state(model.trainable_state())
    torch.testing.assert_close(fresh.eval().embed(documents), before)


def test_the_temperature_has_a_floor():
    network = DualEncoder(small())
    with torch.no_grad():
        network.log_scale.fill_(10.0)
    assert network.scale.item() == pytest.approx(100)
