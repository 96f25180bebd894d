"""Pretraining on pairs: masks, negatives, and learning."""

import json

import numpy as np
import pytest
import torch
from PIL import Image as Pillow
from PIL import ImageDraw

from vislang.document import Document, Image
from vislang.errors import UserError
from vislang.example import Example, Label, Text
from vislang.models.loading import load
from vislang.models.regions.readers import RegionsConfig
from vislang.models.regions.sources import ClusteredRegions, GridRegions
from vislang.models.vilbert.config import TextStreamConfig, ViLBERTConfig, VisionStreamConfig
from vislang.models.vilbert.inputs import encode
from vislang.models.vilbert.model import ViLBERT
from vislang.models.vilbert.pretraining import PairMasking, PretrainedViLBERT, ViLBERTPretrainingRecipe

COLOURS = ("red", "blue", "green", "black")


def small(**more) -> ViLBERTConfig:
    text = TextStreamConfig(vocabulary_size=60, max_length=16, width=32, depth=2, heads=2, mlp_width=64, dropout=0.0)
    vision = VisionStreamConfig(width=32, depth=1, heads=2, mlp_width=64, dropout=0.0)
    return ViLBERTConfig(text, vision, **{"co_attention_layers": ((1, 0),), "width": 32, "heads": 2, **more})


def picture(path, colour, left):
    made = Pillow.new("RGB", (32, 32), "white")
    ImageDraw.Draw(made).rectangle([left, 8, left + 8, 24], fill=colour)
    made.save(path)
    return Image(path)


def pair_of(image: Image, *captions: str, name: str = "") -> Example:
    return Example(name, Document([image]), Text(captions), source=name)


@pytest.fixture
def pairs(tmp_path):
    made = []
    for number in range(16):
        colour = COLOURS[number % 4]
        image = picture(tmp_path / f"{number}.png", colour, number)
        made.append(pair_of(image, f"a {colour} shape", name=f"pair {number}"))
    return made


@pytest.fixture
def regions(towers, tmp_path, pairs):
    """A grid of a random tower, with clusters for classes."""
    config = RegionsConfig(tower=towers[1], image_size=0)
    source = config.open().source
    assert isinstance(source, GridRegions)
    images = [pair.media[0].decode() for pair in pairs]
    ClusteredRegions.fit(source, images, clusters=4).save(tmp_path / "clusters.safetensors")
    return RegionsConfig(tower=towers[1], image_size=0, clusters=str(tmp_path / "clusters.safetensors"))


def model_of(regions, pairs, masking=None, **more) -> PretrainedViLBERT:
    torch.manual_seed(0)
    made = ViLBERTPretrainingRecipe(small(**more), regions, masking or PairMasking()).build()
    made.fit(pairs)
    return made


def test_a_negative_is_really_another_pictures_caption(regions, pairs):
    """There are four pictures of each colour, with the same caption, which is a negative for none of them."""
    model = model_of(regions, pairs, PairMasking(mismatched=1.0))
    words = model.inputs.words
    for seed in range(20):
        batch = model.collate(pairs, seed)
        assert not batch.labels.aligned.any()
        own = words([pair.target.references for pair in pairs]).ids
        masked = batch.labels.words >= 0
        read = batch.pairs.text.ids.where(~masked, batch.labels.words)
        assert not (read == own).all(dim=1).any()


def test_where_all_captions_are_one_there_is_no_negative(regions, pairs):
    same = [pair_of(pair.media[0], "a shape", name=pair.name) for pair in pairs]
    model = model_of(regions, same, PairMasking(mismatched=1.0))
    assert model.collate(same, 0).labels.aligned.all()


def test_masked_regions_lose_their_features_and_not_their_boxes(regions, pairs):
    model = model_of(regions, pairs, PairMasking(regions=0.5, mismatched=0.0))
    whole = [model.inputs.regions_of((pair.media[0],)) for pair in pairs]
    batch = model.collate(pairs, 3)
    kept = 0
    for row, image in enumerate(whole):
        masked = batch.labels.regions[row]
        assert not masked[0]  # the whole image is no region
        np.testing.assert_array_equal(batch.pairs.boxes[row].numpy(), image.boxes)
        features = batch.pairs.features[row].numpy()
        gone = (features == 0).all(axis=1)
        assert not gone[~masked.numpy()].any()
        kept += int((masked.numpy() & ~gone).sum())
        # The feature of the whole image is the mean of the unmasked regions.
        shown = ~gone[1:]
        np.testing.assert_allclose(features[0], image.features[1:][shown].mean(axis=0), atol=1e-5)
    share = kept / int(batch.labels.regions.sum())
    assert 0.02 < share < 0.25  # a tenth keep them


def test_neighbours_that_overlap_a_masked_region_lose_their_features_too(regions, pairs):
    model = model_of(regions, pairs, PairMasking(regions=0.2, overlap=0.3, mismatched=0.0))
    (found,) = model.inputs.regions_of((pairs[0].media[0],)).found
    doubled = type(found)(found.features, found.boxes * 0 + found.boxes[:1], found.width, found.height, found.classes)
    model.inputs.regions.read = lambda images: [doubled for _ in images]
    batch = model.collate(pairs[:8], 1)
    for row in range(8):
        gone = (batch.pairs.features[row, 1:] == 0).all(dim=1)
        # All boxes are the same: if one region loses its features, all do; but not more are predicted.
        assert gone.all() or not gone.any()
        assert batch.labels.regions[row].sum() < 16


def test_words_are_chosen_as_in_bert(regions, pairs):
    model = model_of(regions, pairs)
    chosen = maskable = 0
    for seed in range(30):
        batch = model.collate(pairs, seed)
        rows = batch.labels.aligned
        chosen += int((batch.labels.words[rows] >= 0).sum())
        maskable += int(rows.sum()) * 3
        assert (batch.labels.words[~rows] < 0).all()  # 12-in-1: nothing is predicted where image and text do not belong
        assert not batch.labels.regions[~rows].any()
    assert chosen / maskable == pytest.approx(1 / 3, abs=0.01)  # at least one of three words
    both = model_of(regions, pairs, PairMasking(masked_when_mismatched=True))
    assert (both.collate(pairs, 0).labels.words >= 0).any(dim=1).all()


def test_the_same_seed_gives_the_same_batch(regions, pairs):
    model = model_of(regions, pairs)
    one, other, another = (model.collate(pairs, seed) for seed in (5, 5, 6))
    torch.testing.assert_close(one.pairs.features, other.pairs.features)
    assert torch.equal(one.pairs.text.ids, other.pairs.text.ids)
    assert not torch.equal(one.labels.regions, another.labels.regions)


def trained(model, batches, lr, *names, is_done=lambda loss: False) -> float:
    """Minimise the sum of some losses over batches, until ``is_done``, which is asked after every 10 steps; returns the
    last."""
    optimizer = torch.optim.AdamW([p for group in model.parameter_groups().values() for _, p in group], lr=lr)
    model.train()
    for step, batch in enumerate(batches, start=1):
        losses = model(batch)
        total = torch.stack([losses[name] for name in names]).sum()
        optimizer.zero_grad()
        total.backward()
        optimizer.step()
        if step % 10 == 0:
            model.eval()
            if is_done(total.item()):
                break
            model.train()
    model.eval()
    return total.item()


def test_a_masked_word_is_read_off_the_image(regions, pairs):
    model = model_of(regions, pairs, PairMasking(words=0.2, regions=0.1, mismatched=0.0))
    words = model.inputs.words
    read = model.inputs.read([(("a red shape",), (pair.media[0],)) for pair in pairs], ["x"] * 16)
    position = read.text.ids[0].tolist().index(words.tokenizer.token_to_id("red"))
    read.text.ids[:, position] = words.mask
    wanted = torch.tensor([words.tokenizer.token_to_id(COLOURS[number % 4]) for number in range(16)])

    @torch.no_grad()
    def share_read() -> float:
        encoded = encode(model.network, read)
        fused = model.network.fuse(encoded)
        logits = model.network.pretraining_logits(encoded.text[:, position], encoded.vision, fused)
        return (logits.words.argmax(dim=-1) == wanted).float().mean().item()

    batches = (model.collate(pairs, seed) for seed in range(150))
    trained(model, batches, 2e-3, "words", "regions", "alignment", is_done=lambda loss: share_read() > 0.8)
    assert share_read() > 0.8


@pytest.mark.parametrize("single_stream", [False, True])
def test_pairs_that_belong_together_score_above_those_that_do_not(regions, pairs, single_stream):
    model = model_of(regions, pairs, PairMasking(words=0.0, regions=0.0), single_stream=single_stream)
    batch = model.collate(pairs, 0)
    assert trained(model, [batch] * 150, 1e-3, "alignment", is_done=lambda loss: loss < 0.03) < 0.1
    with torch.no_grad():
        logits = model.network.alignment_logits(model.network.fuse(encode(model.network, batch.pairs)))
    assert torch.equal(logits[:, 0] > logits[:, 1], batch.labels.aligned)


def test_scores_of_all_pairs_are_those_of_each_pair_alone(regions, pairs):
    model = model_of(regions, pairs).eval()
    images = [pair.media[0] for pair in pairs[:5]]
    texts = ["a red shape", "blue", "a green shape , or a black shape"]
    scores = model.match_all(images, texts)
    for row, image in enumerate(images):
        for column, text in enumerate(texts):
            pair = model.inputs.read([((text,), (image,))], ["one"])
            with torch.no_grad():
                yes, no = model.network.alignment_logits(model.network.fuse(encode(model.network, pair)))[0]
            assert scores[row, column].item() == pytest.approx((yes - no).item(), abs=1e-5)
    wanted = torch.zeros(5, 3, dtype=torch.bool)
    wanted[2, 1] = wanted[4, 0] = True
    some = model.match_all(images, texts, wanted)
    torch.testing.assert_close(some[wanted], scores[wanted], atol=1e-5, rtol=0)
    assert torch.isneginf(some[~wanted]).all()


def test_pairs_pass_in_chunks_however_many_there_are(regions, pairs, monkeypatch):
    model = model_of(regions, pairs).eval()
    forward, chunks = model.network.streams.forward, []

    def watched(text, vision):
        chunks.append(len(text.tokens))
        return forward(text, vision)

    monkeypatch.setattr(model.network.streams, "forward", watched)
    reported = []
    images, texts = [pair.media[0] for pair in pairs], [f"shape {n}" for n in range(40)]
    model.match_all(images, texts, progress=lambda done, wanted: reported.append((done, wanted)))
    assert sum(chunks) == 640
    assert max(chunks) <= 256
    assert reported[-1] == (640, 640)


def test_each_item_is_read_once_however_many_pairs_there_are(regions, pairs, monkeypatch):
    model = model_of(regions, pairs).eval()
    seen = {"text": 0, "image": 0}
    streams = model.network.streams
    read_text, read_regions = streams.read_text, streams.read_regions

    def count_text(ids, *rest):
        seen["text"] += len(ids)
        return read_text(ids, *rest)

    def count_regions(features, *rest):
        seen["image"] += len(features)
        return read_regions(features, *rest)

    monkeypatch.setattr(streams, "read_text", count_text)
    monkeypatch.setattr(streams, "read_regions", count_regions)
    model.match_all([pair.media[0] for pair in pairs], [f"a {colour} shape" for colour in COLOURS])
    assert seen == {"text": 4, "image": 16}


def test_a_saved_model_scores_alike_and_its_state_can_be_restored(regions, pairs, tmp_path):
    model = model_of(regions, pairs).eval()
    images, texts = [pair.media[0] for pair in pairs[:3]], ["a red shape", "a blue shape"]
    before = model.match_all(images, texts)
    model.save(tmp_path / "model")
    torch.testing.assert_close(load(tmp_path / "model").match_all(images, texts), before)
    other = ViLBERTPretrainingRecipe(small(), regions).build()
    other.load_extra_state(json.loads(json.dumps(model.extra_state())))
    other.load_trainable_state(model.trainable_state())
    torch.testing.assert_close(other.eval().match_all(images, texts), before)


def test_a_model_that_was_saved_without_a_mark_of_its_classes_opens(towers, pairs, regions, tmp_path):
    model_of(regions, pairs).save(tmp_path / "model")
    config = json.loads((tmp_path / "model" / "config.json").read_text())
    del config["inputs"]["classes_fingerprint"]
    (tmp_path / "model" / "config.json").write_text(json.dumps(config))
    assert load(tmp_path / "model").inputs.learned_classes == ""


def test_regions_without_classes_are_an_error_with_a_remedy(towers):
    with pytest.raises(UserError, match=r"gives no classes, .*\. Compute clusters"):
        ViLBERTPretrainingRecipe(small(), RegionsConfig(tower=towers[1], image_size=0)).build()


def test_another_source_of_regions_is_an_error(regions, pairs, tmp_path):
    model_of(regions, pairs).save(tmp_path / "model")
    with pytest.raises(UserError, match="was trained with a source of regions with the hash"):
        PretrainedViLBERT.load(tmp_path / "model", RegionsConfig())


def test_pretraining_starts_from_a_model_only_with_its_clusters(regions, pairs, towers, tmp_path):
    """Ranking pairs needs no classes; to predict them, they must be the same classes, not only the same number."""
    first = model_of(regions, pairs)
    first.save(tmp_path / "model")
    PretrainedViLBERT.load(tmp_path / "model", RegionsConfig(tower=towers[1], image_size=0))
    on = ViLBERTPretrainingRecipe(start_from=str(tmp_path / "model"), masking=PairMasking(words=0.3)).build()
    assert on.training
    assert on.collate.masking.words == 0.3
    assert on.inputs.words.size == first.inputs.words.size
    for name, tensor in first.network.state_dict().items():
        torch.testing.assert_close(on.network.state_dict()[name], tensor)
    with pytest.raises(UserError, match="gives no classes"):
        ViLBERTPretrainingRecipe(
            start_from=str(tmp_path / "model"), regions=RegionsConfig(tower=towers[1], image_size=0)
        ).build()
    images = [pair.media[0].decode() for pair in pairs]
    source = regions.open().source.source
    for clusters, seed, message in ((4, 1, "not the clusters that .*model predicts"), (3, 0, "gives 3 classes")):
        path = tmp_path / f"{clusters}.safetensors"
        ClusteredRegions.fit(source, images, clusters, seed).save(path)
        others = RegionsConfig(tower=towers[1], image_size=0, clusters=str(path))
        with pytest.raises(UserError, match=message):
            ViLBERTPretrainingRecipe(start_from=str(tmp_path / "model"), regions=others).build()


def test_pretraining_starts_from_converted_weights(regions, pairs, tmp_path):
    """Converted weights have no inputs: regions and a vocabulary must be given."""
    first = model_of(regions, pairs)
    config = first.network.config
    first.save(tmp_path / "model")
    vocabulary = str(tmp_path / "model" / "tokenizer.json")
    (tmp_path / "converted").mkdir()
    ViLBERT(config, pretraining=True).save(tmp_path / "converted")
    start = {"start_from": str(tmp_path / "converted")}
    on = ViLBERTPretrainingRecipe(**start, regions=regions, tokenizer=vocabulary).build()
    on.fit(pairs)
    assert sum(on(on.collate(pairs)).values()).isfinite()
    with pytest.raises(UserError, match=r"converted weights need regions, and BERT's vocab\.txt as the tokenizer"):
        ViLBERTPretrainingRecipe(**start, regions=regions).build()
    ViLBERT(config, pretraining=False).save(tmp_path / "converted")
    with pytest.raises(UserError, match="has no heads of pretraining"):
        ViLBERTPretrainingRecipe(**start, regions=regions, tokenizer=vocabulary).build()


@pytest.mark.parametrize("name", ["words", "regions", "overlap", "mismatched"])
@pytest.mark.parametrize("share", [-0.1, 1.5, float("nan")])
def test_shares_outside_their_range_are_errors(name, share):
    with pytest.raises(UserError, match=f"masking.{name} is .*; it must be from 0 to 1"):
        PairMasking(**{name: share})


@pytest.mark.parametrize(
    ("parts", "target", "message"),
    [
        ((0, 0), Text(("a shape",)), "2 images; a pair is one image and its caption"),
        (("text",), Text(("a shape",)), "reads only text with images"),
        ((0,), None, "not a pair of an image and its caption"),
        ((0,), Text((" ",)), "not a pair of an image and its caption"),
        ((0, "a"), Text(("b",)), "not a pair of an image and its caption"),
        ((0,), Label("b"), "not a pair of an image and its caption"),
    ],
)
def test_examples_that_are_no_pair_are_named(regions, pairs, parts, target, message):
    model = model_of(regions, pairs)
    prompt = Document([pairs[0].media[0] if part == 0 else part for part in parts])
    with pytest.raises(UserError, match=f"line 7: .*{message}"):
        model.collate([Example("7", prompt, target, source="line 7")], 0)


def test_each_reference_is_a_pair_of_its_own_in_order(regions, pairs):
    several = [pair_of(pair.media[0], "one", "two", name=pair.name) for pair in pairs[:3]]
    model = model_of(regions, several, PairMasking(mismatched=0.0, words=0.0))
    assert [pair.target.references for pair in model.expand(several)] == [("one",), ("two",)] * 3
    assert model.collate(several, 0).names == [name for pair in several for name in (pair.name, pair.name)]
    assert model.collate.captions_of[several[0].media[0].name] == {"one", "two"}


def test_what_it_reads(regions, pairs):
    model = model_of(regions, pairs)
    assert model.why_unreadable(frozenset({"text", "image"})) is None
    assert model.why_unreadable(frozenset({"text"})) == "reads text only together with an image"
    assert model.why_unreadable(frozenset({"text", "image", "several images"})) is None
    assert model.why_unreadable(frozenset({"video"})) == "reads images and text, but no video"
