"""Computation once for shared parts: mixed batches, results that do not depend on the batch, generated media tokens."""

import math

import pytest
import torch

import vislang
from tests import tiny
from tests.models.flamingo.test_collate import image
from vislang.capabilities import Decoding
from vislang.document import Document, EndOfChunk, Learned
from vislang.errors import UserError
from vislang.example import VERBATIM, Answers, Box, Choice, Example, Label, Wording
from vislang.models.flamingo.collate import IGNORED, Batch, PromptNotice
from vislang.models.flamingo.decoding import generate
from vislang.models.flamingo.prefill import Runner

MEDIA = 4


@pytest.fixture
def model(towers):
    return tiny.flamingo(towers)


def mixture(pictures) -> list[Example]:
    """Questions that begin with an image, and pages that begin with text, as in one file of records."""
    pages = [
        Document([Learned(f"a {words}"), EndOfChunk(), image(pictures, number), Learned("a red shape")])
        for number, words in enumerate(("cat and a dog", "cat", "shape"))
    ]
    questions = [tiny.question(image(pictures, n % 4), "what color?", "red") for n in range(6)]
    pages_twice = [Example("p", page, wording=VERBATIM) for page in pages * 2]
    return [example for pair in zip(questions, pages_twice, strict=True) for example in pair]


def test_questions_and_pages_train_together(model, pictures):
    """A text that was stored from a batch without a prefix is used with texts that have one."""
    examples = mixture(pictures)
    assert model.prepare(examples) == 4
    mixed = model(model.collate(examples[:4]))["text"]
    fresh = tiny.flamingo((model.language_name, model.vision.name))
    torch.testing.assert_close(mixed, fresh(fresh.collate(examples[:4]))["text"], atol=1e-5, rtol=0)
    batch = model.with_features(model.collate(examples[:4]))
    assert batch.prefix > 0
    labelled = batch.targets != IGNORED
    whole = torch.nn.functional.cross_entropy(model.bridge(batch)[labelled], batch.targets[labelled])
    torch.testing.assert_close(mixed, whole, atol=1e-5, rtol=0)


def test_questions_and_texts_are_continued_together(model, pictures):
    prompts = [model.prompts.render(example.without_target()) for example in mixture(pictures)]
    prompts += [Document(["a cat and", image(pictures, 5), " a"])] * 2
    alone = [tiny.flamingo((model.language_name, model.vision.name)).generate([prompt], 5)[0] for prompt in prompts]
    model.prepare_documents(prompts)
    assert model.generate(prompts, 5) == alone


def prompts_of_many_lengths(model, pictures) -> list[Document]:
    words = ["", "cat", "a cat and a dog and a shape", "what color is the shape? yes or no"]
    return [
        Document([*([words[n % 4]] if n % 4 else []), image(pictures, n), f"{words[(n + 1) % 4]} what color? Answer:"])
        for n in range(7)
    ]


def test_what_is_ranked_does_not_depend_on_the_batch(model, pictures):
    prompts = prompts_of_many_lengths(model, pictures)
    options = [[f"{word} shape" * (1 + n % 3) for word in ("red", "blue", "a")[: 1 + n % 3]] for n in range(7)]
    state = model.prefill(Document([image(pictures, 9), "a dog", EndOfChunk()]))
    for after in (None, state):
        found = [model.rank(prompts, options, batch_size, after) for batch_size in (1, 7)]
        assert [len(own) for own in found[0]] == [1, 2, 3, 1, 2, 3, 1]
        values = [torch.tensor([score.log_likelihood for own in each for score in own]) for each in found]
        torch.testing.assert_close(*values, atol=1e-4, rtol=0)
    shared = model.rank(prompts, options[2], 7)
    each = model.rank(prompts, [options[2]] * 7, 3)
    values = [torch.tensor([[score.log_likelihood for score in own] for own in one]) for one in (shared, each)]
    torch.testing.assert_close(*values, atol=1e-4, rtol=0)


def test_more_options_than_are_ranked_at_once(model, pictures, monkeypatch):
    prompts = prompts_of_many_lengths(model, pictures)[:3]
    options = [f"a {word}" * (1 + n % 2) for n, word in enumerate(("red", "blue", "cat", "dog", "shape"))]
    whole = model.rank(prompts, options)
    monkeypatch.setattr("vislang.models.flamingo.model.RANKED_AT_ONCE", 4)
    parts = model.rank(prompts, options)
    values = [torch.tensor([[score.log_likelihood for score in own] for own in one]) for one in (whole, parts)]
    torch.testing.assert_close(*values, atol=1e-4, rtol=0)


def test_options_are_a_list_for_all_or_one_for_each(model, pictures):
    with pytest.raises(ValueError, match="2 lists of options for 3 documents"):
        model.rank([Document(["a"])] * 3, [["b"], ["c"]])


@pytest.mark.parametrize("decoding", [Decoding(6), Decoding(6, beams=3), Decoding(6, temperature=1.0, returns=2)])
def test_what_is_written_does_not_depend_on_the_batch(model, pictures, decoding):
    prompts = prompts_of_many_lengths(model, pictures)
    one, seven = ([[text.text for text in own] for own in model.complete(prompts, decoding, size)] for size in (1, 7))
    assert one == seven


def test_a_long_prompt_does_not_shorten_the_texts_beside_it(model, pictures):
    """The tiny language model has positions for 128 tokens."""
    prompts = [Document(["cat and dog " * 26]), Document([image(pictures, 0), "a"])]
    with pytest.warns(PromptNotice):
        together = model.generate(prompts, 60)
    with pytest.warns(PromptNotice):
        alone = [model.generate([prompt], 60)[0] for prompt in prompts]
    assert together == alone
    assert len(model.tokenizer(together[1])["input_ids"]) > len(model.tokenizer(together[0])["input_ids"])


def test_an_answer_that_does_not_fit_names_its_own_prompt(model, pictures):
    prompts = [Document([image(pictures, 0), "a"], name="a:1"), Document(["cat and dog " * 26], name="a:2")]
    options = [["cat and dog " * 20], ["red"]]
    assert len(model.rank(prompts, options)) == 2
    with pytest.raises(UserError, match=r"a:2: an answer of \d+ tokens"):
        model.rank(prompts, options[::-1])


def test_output_that_is_no_number_is_an_error(model, pictures):
    prompt = Document([image(pictures, 0), "a"])
    with torch.no_grad():
        model.bridge.gated_blocks["1"].attention.to_output.weight[0, 0] = math.nan
    for answered in (
        lambda: model.generate([prompt]),
        lambda: model.complete([prompt], Decoding(3, beams=2)),
        lambda: list(model.stream(prompt)),
        lambda: model.rank([prompt], ["red", "blue"]),
    ):
        with pytest.raises(UserError, match=r"not a number .* are damaged"):
            answered()


def test_a_target_that_cannot_be_written_is_an_error(model, pictures):
    """Before anything is encoded, and in a batch."""
    box = Example("7", Document([image(pictures, 0), "the cat"]), Box(0, 0, 1, 1), source="my.jsonl:7")
    for read in (model.prepare, model.collate):
        with pytest.raises(
            UserError, match=r"my\.jsonl:7: this model learns to generate text, and the target is of the kind box"
        ):
            read([box])


def test_examples_of_every_kind_that_can_be_written_train(model, pictures):
    picture = image(pictures, 0)
    examples = [
        tiny.caption(picture, "a cat"),
        Example("a", Document([picture, "what?"]), Answers({"red": 0.3, "blue": 1.0})),
        Example("c", Document([picture, "why?"]), Choice(1), (Document(["yes"]), Document(["no"]))),
        Example("l", Document([picture, image(pictures, 1), "x"]), Label("1"), wording=Wording("cat?", {"1": "a dog"})),
    ]
    batch = model.collate(examples)
    written = [model.tokenizer.decode(row[row != IGNORED], skip_special_tokens=True) for row in batch.targets]
    assert written == [" a cat", " blue", " no", " a dog"]
    assert batch.names == [str(picture.source), "a", "c", "l"]
    assert model(batch)["text"].item() > 0


def test_features_are_measured_on_the_training_media(model, pictures):
    examples = [tiny.caption(image(pictures, n), "a cat") for n in range(5)] * 2
    model.prepare(examples)
    model.fit(examples)
    features = torch.stack([model.collate.cache.get(image(pictures, n).content_hash) for n in range(5)]).flatten(0, 1)
    torch.testing.assert_close(model.bridge.resampler.features_mean, features.mean(dim=0), atol=1e-5, rtol=1e-4)


def test_why_unreadable_names_the_inputs(model, towers):
    assert model.why_unreadable(frozenset({"text", "several images"})) is None
    assert "no audio" in (model.why_unreadable(frozenset({"audio"})) or "")
    assert "was trained on images only" in (model.why_unreadable(frozenset({"video"})) or "")
    assert tiny.flamingo(towers, frames=4).why_unreadable(frozenset({"video"})) is None


def test_rates_go_by_gates_and_decay_by_matrices(towers):
    model = tiny.flamingo(towers, train_added_tokens=True, frames=2)
    groups = model.parameter_groups()
    assert {name.rpartition(".")[2] for name, _ in groups["gates"]} == {"attention_gate", "feed_forward_gate"}
    for name, parameter in (*groups["gates"], *groups["other"]):
        assert model.decays(name, parameter) == (parameter.ndim > 1), name


@pytest.mark.parametrize("penalty", [1e300, -11.0, math.nan, math.inf])
def test_a_length_penalty_out_of_range_is_an_error(penalty):
    with pytest.raises(UserError, match=r"length_penalty is .*; it must be a number from -10 to 10"):
        Decoding(beams=2, length_penalty=penalty)


@pytest.mark.parametrize(("setting", "value"), [("attend_to", "sideways"), ("look", "sideways"), ("latents", "many")])
def test_a_wrong_setting_of_a_saved_bridge_is_named(model, tmp_path, setting, value):
    import json

    model.save(tmp_path)
    config = json.loads((tmp_path / "config.json").read_text())
    config["bridge"] = {**config["bridge"], setting: value}
    (tmp_path / "config.json").write_text(json.dumps(config))
    with pytest.raises(UserError, match=rf"config\.json: bridge\.{setting.replace('look', 'attend_to')} is '{value}'"):
        vislang.load(tmp_path)


def test_a_damaged_bridge_is_not_opened(model, tmp_path):
    model.save(tmp_path)
    weights = bytearray((tmp_path / "model.safetensors").read_bytes())
    weights[-3] ^= 1
    (tmp_path / "model.safetensors").write_bytes(bytes(weights))
    with pytest.raises(UserError, match=r"model\.safetensors: damaged"):
        vislang.load(tmp_path)


# A media token that the language model generates


class OriginalTimes:
    """OpenFlamingo's rule for decoding with cached media (flamingo_lm.py and helpers.py), for the rows of a batch.

    Tokens with a media token among them set ``media_locations`` for all rows, and go with the media by their count so
    far. Tokens without any go with as many media as ``media_locations`` has.
    """

    def __init__(self) -> None:
        self.media_locations: torch.Tensor | None = None

    def __call__(self, tokens: torch.Tensor) -> torch.Tensor:
        locations = tokens == MEDIA
        if self.media_locations is not None and not locations.any():
            return self.media_locations.sum(dim=1)[:, None].expand(-1, tokens.shape[1])
        self.media_locations = locations
        return locations.cumsum(dim=1)


@torch.no_grad()
def as_the_original(bridge, batch: Batch, count: int) -> tuple[torch.Tensor, list[float]]:
    """Greedy tokens of all rows (rows, count) and their likelihoods; each step computes every layer for every token."""
    times = OriginalTimes()
    ids, media_time = batch.input_ids, times(batch.input_ids)
    likelihoods = torch.zeros(len(ids))
    for _ in range(count):
        whole = Batch(
            ids, torch.ones_like(ids), media_time, torch.full_like(ids, IGNORED), batch.media_index, 0, batch.features
        )
        best = bridge(whole)[:, -1].log_softmax(dim=-1).max(dim=-1)
        likelihoods += best.values
        ids = torch.cat([ids, best.indices[:, None]], dim=1)
        media_time = torch.cat([media_time, times(best.indices[:, None])], dim=1)
    return ids[:, -count:], likelihoods.tolist()


def row_of(batch: Batch, row: int) -> Batch:
    one = slice(row, row + 1)
    return Batch(
        *(tensor[one] for tensor in (batch.input_ids, batch.attention_mask, batch.media_time, batch.targets)),
        batch.media_index[one],
        0,
        batch.features,
    )


@pytest.fixture(params=["latest", "all"])
def writes_media(request):
    """A bridge whose language model generates a media token, and two prompts with two media each."""
    lm = tiny.language_model("llama")
    ids = torch.randint(5, 90, (2, 9), generator=torch.Generator().manual_seed(5))
    ids[:, [1, 5]] = MEDIA
    with torch.no_grad():
        lm.lm_head.weight.mul_(30)
    bridge = tiny.bridge(lm, opened=True, media_token=MEDIA, gate_all_text=True, attend_to=request.param)
    batch = Batch(
        ids,
        torch.ones_like(ids),
        (ids == MEDIA).cumsum(dim=1),
        torch.full_like(ids, IGNORED),
        torch.arange(4).view(2, 2),
        0,
        features=torch.randn(4, 1, 9, 20, generator=torch.Generator().manual_seed(6)),
    )
    free, _ = as_the_original(bridge, batch, 3)
    with torch.no_grad():
        # The third token of the first row becomes the media token.
        lm.lm_head.weight[MEDIA] = 1.001 * lm.lm_head.weight[free[0, 2]]
    return bridge, batch


def test_a_written_media_token_counts_as_in_the_original(writes_media):
    bridge, batch = writes_media
    runner = Runner(bridge)
    together = generate(runner, runner.prefill(batch), Decoding(10), frozenset())
    for row, (text,) in enumerate(together):
        expected, (likelihood,) = as_the_original(bridge, row_of(batch, row), 10)
        assert text.tokens == expected[0].tolist()
        assert text.log_likelihood == pytest.approx(likelihood, abs=1e-3)
    written, after = together[0][0].tokens, together[0][0].tokens.index(MEDIA) + 1
    assert 0 < after < len(written)
    # The rule matters: if the row still attended to its latest medium, text or likelihood would differ.
    state = runner.prefill(row_of(batch, 0))
    plain = 0.0
    ids, time = batch.input_ids[:1], batch.media_time[:1]
    for token in written:
        whole = Batch(
            ids, torch.ones_like(ids), time, torch.full_like(ids, IGNORED), batch.media_index[:1], 0, batch.features
        )
        plain += bridge(whole)[0, -1].log_softmax(-1)[token].item()
        ids, time = torch.cat([ids, torch.tensor([[token]])], 1), torch.cat([time, time[:, -1:]], 1)
    assert abs(plain - together[0][0].log_likelihood) > 1e-3
    assert state.media_time.tolist() == [2]


def test_hypotheses_that_write_a_media_token_are_each_continued_as_alone(writes_media):
    bridge, batch = writes_media
    runner = Runner(bridge)
    found = generate(runner, runner.prefill(batch), Decoding(6, beams=4, returns=4), frozenset())
    with_media = 0
    for row, texts in enumerate(found):
        for text in texts:
            times, expected = OriginalTimes(), 0.0
            ids = batch.input_ids[row : row + 1]
            media_time = times(ids)
            for token in text.tokens:
                whole = Batch(
                    *(ids, torch.ones_like(ids), media_time, torch.full_like(ids, IGNORED)),
                    batch.media_index[row : row + 1],
                    0,
                    batch.features,
                )
                with torch.no_grad():
                    expected += bridge(whole)[0, -1].log_softmax(dim=-1)[token].item()
                ids = torch.cat([ids, torch.tensor([[token]])], dim=1)
                media_time = torch.cat([media_time, times(torch.tensor([[token]]))], dim=1)
            assert text.log_likelihood == pytest.approx(expected, abs=1e-3)
            with_media += MEDIA in text.tokens[:-1]
    assert with_media > 0
