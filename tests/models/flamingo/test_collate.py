"""Text, images and videos in any order: which token attends to which medium, targets, and packing."""

import dataclasses
import random

import pytest
import torch
from transformers import AutoModelForCausalLM

import vislang
from tests import tiny
from vislang.document import Document, EndOfChunk, Image, Learned, Video
from vislang.errors import UserError
from vislang.models.flamingo.collate import IGNORED, Batch, CollateConfig, PromptNotice
from vislang.models.flamingo.model import Flamingo
from vislang.models.flamingo.prefill import Runner
from vislang.models.flamingo.resampler import LayerShape, PerceiverResampler


def image(pictures, number: int) -> Image:
    return Image(pictures / f"{number}.png")


def page(pictures, *numbers: int, media_side="before") -> Document:
    """A caption after each image; the first words come before any image."""
    parts = [Learned("a cat and a dog")]
    for number in numbers:
        parts += [EndOfChunk(), image(pictures, number), Learned(f"a {'red' if number % 2 else 'blue'} shape")]
    return Document([*parts, EndOfChunk()], name="page", media_side=media_side)


def said(model: Flamingo, batch: Batch, row: int = 0) -> list[str]:
    return [model.tokenizer.decode([token]) for token in batch.targets[row].tolist() if token != IGNORED]


def test_words_go_with_the_image_before_them_and_are_learned_once_there_is_one(towers, pictures):
    model = tiny.flamingo(towers)
    batch = model.collate.documents([page(pictures, 0, 1)])
    media = (batch.input_ids[0] == model.bridge.media_token).nonzero()[:, 0].tolist()
    assert len(media) == 2
    times = batch.media_time[0].tolist()
    assert times == [0] * media[0] + [1] * (media[1] - media[0]) + [2] * (len(times) - media[1])
    assert "".join(said(model, batch)) == " a blue shape</s> a red shape</s>"
    assert batch.targets[0, media[1] - 1] == IGNORED, "an image was to be predicted"
    assert batch.prefix == media[0]


def test_words_go_with_the_image_after_them(towers, pictures):
    model = tiny.flamingo(towers)
    batch = model.collate.documents([page(pictures, 0, 1, media_side="after")])
    media = (batch.input_ids[0] == model.bridge.media_token).nonzero()[:, 0].tolist()
    times = batch.media_time[0].tolist()
    assert batch.prefix == 0
    assert times == [1] * (media[0] + 1) + [2] * (media[1] - media[0]) + [0] * (len(times) - media[1] - 1)
    assert "".join(said(model, batch)).startswith(" cat and a dog</s> a blue shape</s>")


def test_which_of_the_two_is_drawn_by_seed(towers, pictures):
    model = tiny.flamingo(towers)
    document = page(pictures, 0, 1, media_side="either")
    times = [model.collate.documents([document], seed).media_time.tolist() for seed in range(20)]
    assert times == [model.collate.documents([document], seed).media_time.tolist() for seed in range(20)]
    either = [
        model.collate.documents([page(pictures, 0, 1, media_side=side)]).media_time.tolist()
        for side in ("before", "after")
    ]
    assert all(time in either for time in times)
    assert {either.index(time) for time in times} == {0, 1}


@pytest.mark.parametrize("attend_to", ["latest", "all"])
def test_a_token_attends_to_the_latest_medium_or_to_all_before_it(towers, pictures, attend_to):
    model = tiny.flamingo(towers, attend_to=attend_to)
    document = Document([image(pictures, 0), "and", image(pictures, 1), "what color?"], target="red")
    (token,) = model.attention(document)
    first, second = (grid.sum().item() for grid in token.maps)
    assert first + second == pytest.approx(1, abs=1e-5)
    assert (first > 0) == (attend_to == "all")


@pytest.mark.parametrize("attend_to", ["latest", "all"])
@pytest.mark.parametrize("added", [False, True])
def test_packed_documents_do_not_see_each_other(towers, pictures, attend_to, added):
    plain = tiny.flamingo(towers, attend_to=attend_to, train_added_tokens=added)
    packed = tiny.flamingo(towers, CollateConfig(pack=60), attend_to=attend_to, train_added_tokens=added)
    packed.load_trainable_state(plain.trainable_state())
    documents = [
        page(pictures, 0, 1),
        page(pictures, 2, media_side="after"),
        Document([image(pictures, 3), "what color?"], target="red"),
        page(pictures, 4),
        Document(["is it a cat?"], target="no"),
    ]
    batch = packed.collate.documents(documents)
    assert len(batch.input_ids) < len(documents)
    assert batch.segments is not None
    results = []
    for model, of in ((plain, plain.collate.documents(documents)), (packed, batch)):
        found, _ = model.runner.token_log_likelihoods(model.with_features(of))
        trained = [p for p in model.bridge.parameters() if p.requires_grad]
        gradients = torch.autograd.grad(found.sum(), trained, allow_unused=True)
        results.append((found.sort().values, [g for g in gradients if g is not None]))
    (alone, gradients), (together, packed_gradients) = results
    torch.testing.assert_close(together, alone, atol=2e-5, rtol=0)
    assert len(gradients) == len(packed_gradients) > 10
    for ours, theirs in zip(packed_gradients, gradients, strict=True):
        torch.testing.assert_close(ours, theirs, atol=1e-4, rtol=1e-3)


@torch.no_grad()
@pytest.mark.parametrize("family", sorted(tiny.FAMILIES))
def test_packing_is_exact_on_every_family(family):
    bridge = tiny.bridge(tiny.language_model(family), opened=True)
    rows = tiny.batch(bridge.media_token, prefix=0)
    lengths = rows.attention_mask.sum(dim=-1).tolist()
    side_by_side = {
        name: torch.cat([getattr(rows, name)[row, :n] for row, n in enumerate(lengths)])[None]
        for name in ("input_ids", "attention_mask", "targets")
    }
    number = torch.cat([torch.full((n,), row) for row, n in enumerate(lengths)])[None]
    one = Batch(
        **side_by_side,
        media_time=number + 1,
        media_index=rows.media_index.t(),
        prefix=0,
        features=rows.features,
        segments=number,
        media_before=number,
    )
    assert one.position_ids()[0].tolist() == [n for length in lengths for n in range(length)]
    expected = torch.cat([bridge(rows)[row, :n] for row, n in enumerate(lengths)])
    torch.testing.assert_close(bridge(one)[0], expected, atol=1e-5, rtol=0)
    ours, theirs = Runner(bridge).token_log_likelihoods(one)[0], Runner(bridge).token_log_likelihoods(rows)[0]
    torch.testing.assert_close(ours, theirs, atol=1e-5, rtol=0)


def test_a_language_model_with_alibi_is_not_packed():
    bridge = tiny.bridge(AutoModelForCausalLM.from_config(tiny.TUPLES["bloom"]))
    batch = tiny.batch(bridge.media_token, prefix=0)
    batch = dataclasses.replace(batch, segments=torch.zeros_like(batch.input_ids))
    for read in (bridge, Runner(bridge).losses):
        with pytest.raises(UserError, match=r"collate\.pack: a bloom .* Set pack to 0"):
            read(batch)


def test_a_language_model_with_a_window_is_packed_within_it():
    bridge = tiny.bridge(tiny.language_model("mistral"))
    batch = tiny.batch(bridge.media_token, prefix=0)
    bridge(dataclasses.replace(batch, segments=torch.zeros_like(batch.input_ids)))
    # Padding is no document, for any amount of it.
    short = tiny.batch(bridge.media_token, prefix=5)
    short.attention_mask[:, 2:] = 0
    segments = torch.zeros_like(short.input_ids)
    segments[:, 2:] = -1
    bridge(dataclasses.replace(short, segments=segments))
    batch = tiny.batch(bridge.media_token, prefix=5)
    with pytest.raises(UserError, match=r"the last 5 columns of a row.* Set pack to at most 5, or to 0"):
        bridge(dataclasses.replace(batch, segments=torch.zeros_like(batch.input_ids)))


def test_of_a_short_page_with_many_images_each_comes_up(towers, pictures):
    model = tiny.flamingo(towers, CollateConfig(page_media=2))
    numbers = range(5)
    many = page(pictures, *numbers)
    hashes = {image(pictures, n).content_hash: n for n in numbers}
    drawn = set()
    for seed in range(40):
        row = model.collate._row(many, random.Random(seed), 0)
        assert row.ids.count(model.bridge.media_token) == 2
        drawn.add(tuple(hashes[medium.content_hash] for medium in row.media))
    assert drawn == {(0, 1), (1, 2), (2, 3), (3, 4)}


def test_of_a_long_page_a_window_is_learned(towers, pictures):
    model = tiny.flamingo(towers, CollateConfig(page_tokens=30, page_media=2))
    long = page(pictures, 0, 1, 2, 3, 4, 5, 6, 7)
    seen = set()
    for seed in range(30):
        batch = model.collate.documents([long], seed)
        assert batch.input_ids.shape[1] <= 30
        media = (batch.input_ids == model.bridge.media_token).sum().item()
        assert media == (batch.media_index >= 0).sum().item() <= 2
        assert batch.media_time.max() <= 2
        seen.add(tuple(batch.input_ids[0].tolist()))
        assert media > 0
        first = (batch.input_ids[0] == model.bridge.media_token).nonzero()[0].item()
        assert batch.media_time[0, :first].tolist() == [0] * first
        assert batch.media_time[0, first] == 1
        assert batch.targets[0, :first].tolist() == [IGNORED] * first, "learned what no medium goes with"
    assert len(seen) > 5


def test_a_prompt_over_the_context_is_an_error_or_loses_its_first_examples(towers, pictures):
    shots = [vislang.Image(pictures / f"{n}.png") for n in range(20)] * 2
    parts = [part for shot in shots for part in (shot, "a red shape", EndOfChunk())]
    prompt = Document([*parts, image(pictures, 20), "a"], name="my.jsonl:3")
    with pytest.raises(UserError, match=r"my\.jsonl:3: \d+ tokens.*128.*or let the first ones be dropped"):
        tiny.flamingo(towers).collate.documents([prompt])
    model = tiny.flamingo(towers, CollateConfig(too_long="drop"))
    with pytest.warns(PromptNotice, match=r"my\.jsonl:3: .*the first (\d+) of its examples were dropped"):
        batch = model.collate.documents([prompt])
    assert batch.input_ids.shape[1] <= 128
    whole = model.collate.documents([Document([*parts[3:6], image(pictures, 20), "a"])]).input_ids[0]
    assert batch.input_ids[0, -5:].tolist() == whole[-5:].tolist()
    with pytest.raises(UserError, match="Shorten it"):
        model.collate.documents([Document(["cat and dog " * 100])])


def test_a_document_of_one_word_teaches_nothing_and_breaks_nothing(towers, pictures):
    model = tiny.flamingo(towers)
    losses = model(model.collate.documents([Document([Learned("a")]), Document([Learned("a cat")])]))
    assert losses["text"].item() == 0
    both = model(model.collate.documents([Document([Learned("a")]), page(pictures, 0)]))
    alone = model(model.collate.documents([page(pictures, 0)]))
    assert both["text"].item() == pytest.approx(alone["text"].item(), abs=1e-5)


@pytest.mark.parametrize("settings", [{"page_tokens": 0}, {"pack": -1}, {"frames_per_second": 0.0}, {"max_frames": 0}])
def test_invalid_settings_are_errors(settings):
    with pytest.raises(ValueError, match=next(iter(settings))):
        CollateConfig(**settings)


# Videos


def test_a_video_is_frames_with_times(towers, pictures, tmp_path):
    film = Video(tiny.write_video(tmp_path / "film.mp4", [0, 80, 160, 240]))
    model = tiny.flamingo(towers, frames=8)
    document = Document([film, "what color?"], target="red")
    batch = model.collate.documents([document, Document([image(pictures, 0), "a cat"], target="no")])
    assert batch.frames.tolist() == [4, 1]
    alone = [model.score([d])[0].log_likelihood for d in (document, Document([image(pictures, 0)], target="no"))]
    together = model.score([document, Document([image(pictures, 0)], target="no")])
    assert [score.log_likelihood for score in together] == pytest.approx(alone, abs=1e-4)
    assert model.prepare_documents([document]) == 1
    assert model.prepare_documents([document]) == 0
    assert model.score([document])[0].log_likelihood == pytest.approx(alone[0], abs=1e-5)
    assert isinstance(model.ask(film, "what color?"), str)
    (token,) = model.attention(document)
    assert token.maps[0].shape == (4, 4, 4)
    assert token.maps[0].sum() == pytest.approx(1, abs=1e-5)


def test_a_video_for_a_bridge_without_frames_is_an_error(towers, tmp_path):
    film = Video(tiny.write_video(tmp_path / "film.mp4", [0, 80]))
    with pytest.raises(UserError, match=r"bridge\.frames"):
        tiny.flamingo(towers).score([Document([film], target="red")])


@torch.no_grad()
def test_frames_in_another_order_are_another_video_and_images_are_one_frame():
    torch.manual_seed(0)
    resampler = PerceiverResampler(20, 16, LayerShape(2, 2, 8), latents=3, frames=4)
    features = torch.randn(1, 4, 9, 20)
    assert not torch.allclose(resampler(features), resampler(features.flip(1)), atol=1e-3)
    padded = torch.cat([features[:, :1], torch.full((1, 3, 9, 20), 99.0)], dim=1)
    torch.testing.assert_close(resampler(padded, torch.tensor([1])), resampler(features[:, :1]))
    both = torch.cat([features, padded])
    alone = torch.cat([resampler(features), resampler(features[:, :1])])
    torch.testing.assert_close(resampler(both, torch.tensor([4, 1])), alone)


def test_time_embeddings_of_more_frames_than_trained_are_interpolated():
    resampler = PerceiverResampler(20, 16, LayerShape(1, 2, 8), latents=3, frames=3)
    spread = resampler._times(5)
    torch.testing.assert_close(spread[[0, 2, 4]], resampler.times)
    torch.testing.assert_close(spread[1], resampler.times[:2].mean(dim=0))
    assert resampler(torch.randn(2, 5, 9, 20)).shape == (2, 3, 16)


# Added tokens


@pytest.mark.parametrize("family", ["llama", "gpt2", "opt", "gemma2"])
def test_only_the_rows_of_added_tokens_train(family):
    lm = tiny.language_model(family)
    bridge = tiny.bridge(lm, opened=True, train_added_tokens=True)
    tied = lm.get_output_embeddings().weight is lm.get_input_embeddings().weight
    assert (bridge.chunk_head is None) == tied
    batch = tiny.batch(bridge.media_token)
    batch = dataclasses.replace(batch, targets=batch.targets.clone(), input_ids=batch.input_ids.clone())
    batch.targets[:2, -1] = bridge.chunk_token
    batch.input_ids[:2, -2] = bridge.chunk_token
    assert bridge.logits(torch.zeros(1, 1, bridge.lm.head_width)).shape[-1] == tiny.TYPES + 2
    Runner(bridge).losses(batch)["text"].backward()
    assert lm.get_input_embeddings().weight.grad is None
    for row in (bridge.media_embedding, bridge.chunk_embedding, *([] if tied else [bridge.chunk_head])):
        assert row.grad.abs().max() > 0
    # The added row uses the language model's head: with a copy of a token's row, it has that token's logit.
    hidden = torch.randn(1, 3, bridge.lm.head_width)
    with torch.no_grad():
        own = lm.get_output_embeddings().weight[9]
        (bridge.chunk_embedding if tied else bridge.chunk_head).copy_(own)
        logits = bridge.logits(hidden)
    torch.testing.assert_close(logits[..., bridge.chunk_token], logits[..., 9], atol=1e-5, rtol=1e-5)
    assert (logits[..., bridge.media_token] == -torch.inf).all()


def test_added_tokens_are_saved_and_end_texts(towers, pictures, tmp_path):
    model = tiny.flamingo(towers, train_added_tokens=True)
    batch = model.collate.documents([page(pictures, 0, 1)])
    assert model.bridge.chunk_token in batch.input_ids
    assert model.bridge.chunk_token in batch.targets
    prompt = Document([image(pictures, 0), "a cat"])
    with torch.no_grad():
        model.bridge.chunk_head.copy_(model.bridge.lm.lm.lm_head.weight[7] * 0)
    model.save(tmp_path / "saved")
    opened = vislang.load(tmp_path / "saved")
    torch.testing.assert_close(opened.bridge.chunk_embedding, model.bridge.chunk_embedding)
    with torch.no_grad():
        # A head with the largest logit everywhere ends the text at once.
        hidden = model.prefill(prompt).hidden[0, 0]
        model.bridge.chunk_head.copy_(100 * hidden / hidden.norm())
    assert model.generate([prompt]) == [""]
