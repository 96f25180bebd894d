"""Decoding: beams find the most likely text, samples follow the distribution, a prefilled state is used for many
prompts."""

import dataclasses
import itertools

import pytest
import torch

from tests import tiny
from tests.models.flamingo.test_collate import image
from vislang.capabilities import Decoding
from vislang.document import Document, EndOfChunk, Learned
from vislang.errors import UserError
from vislang.models.flamingo.bridge import Bridge
from vislang.models.flamingo.collate import Batch, CollateConfig, PromptNotice
from vislang.models.flamingo.decoding import generate, top
from vislang.models.flamingo.prefill import NextSteps, Runner


@pytest.fixture
def model(towers):
    return tiny.flamingo(towers)


@pytest.fixture
def prompts(model, pictures):
    return [
        model.prompts.render(tiny.question(image(pictures, 0), "what color?")),
        Document([image(pictures, 2), "a cat", image(pictures, 3), " and"]),
        Document(["a dog and a"]),
    ]


def shots(pictures):
    colours = ["red", "blue", "red", "blue"]
    return [tiny.question(image(pictures, n), "what color is the shape?", colour) for n, colour in enumerate(colours)]


@torch.no_grad()
@pytest.mark.parametrize("family", sorted({**tiny.FAMILIES, **tiny.TUPLES, **tiny.WINDOWED}))
def test_rows_of_unequal_length_are_continued_as_each_alone(family):
    """For each treatment of padding in a family: positions, biases by distance, windows."""
    runner = Runner(tiny.bridge(tiny.language_model(family), opened=True))
    bridge = runner.bridge
    batch = tiny.batch(bridge.media_token)
    text = torch.tensor([[7, 9, 11, 4]])
    more = dataclasses.replace(tiny.batch(bridge.media_token, prefix=0), features=batch.features)

    def likelihoods(batch: Batch, more: Batch) -> list[torch.Tensor]:
        state = runner.prefill(batch)
        ids = text.expand(len(batch.input_ids), -1)
        return [
            runner.log_likelihoods_after(each, torch.arange(len(ids)), ids, torch.ones_like(ids))
            for each in (state, runner.extend(state, more))
        ]

    together = likelihoods(batch, more)
    for row in range(3):
        alone = likelihoods(*(_row(each, row) for each in (batch, more)))
        for ours, theirs in zip(together, alone, strict=True):
            torch.testing.assert_close(ours[row], theirs[0], atol=2e-5, rtol=0)


def _row(batch: Batch, row: int) -> Batch:
    """A text without its padding."""
    real = batch.attention_mask[row].bool()
    columns = {
        name: getattr(batch, name)[row][real][None] for name in ("input_ids", "attention_mask", "media_time", "targets")
    }
    prefix = int(batch.attention_mask[row, : batch.prefix].sum())
    return dataclasses.replace(batch, **columns, media_index=batch.media_index[row : row + 1], prefix=prefix)


@torch.no_grad()
@pytest.mark.parametrize("penalty", [0.0, 1.0])
def test_enough_beams_find_the_best_of_all_texts(penalty):
    bridge = tiny.bridge(tiny.language_model("llama"), opened=True)
    batch = tiny.batch(bridge.media_token)
    end = 5
    runner = Runner(bridge)
    decoding = Decoding(2, beams=tiny.TYPES, length_penalty=penalty, returns=3)
    found = generate(runner, runner.prefill(batch), decoding, frozenset({end}))
    state = runner.prefill(batch)
    first = bridge.logits(state.hidden)[:, -1].log_softmax(-1)
    everything = torch.full((3, tiny.TYPES, tiny.TYPES), -torch.inf)
    for token in range(tiny.TYPES):
        again = state.of(torch.arange(3))
        after = runner.advance(again, torch.full((3,), token), NextSteps(runner, again))
        everything[:, token] = first[:, token, None] + bridge.logits(after.hidden)[:, -1].log_softmax(-1)
    for row in range(3):
        texts = [([], first[row, end].item(), 1)]
        for one, two in itertools.product(range(tiny.TYPES), repeat=2):
            if one != end:
                texts.append(([one] if two == end else [one, two], everything[row, one, two].item(), 2))
        texts.sort(key=lambda text: -text[1] / text[2] ** penalty)
        assert [text.tokens for text in found[row]] == [tokens for tokens, _, _ in texts[:3]]
        likelihoods = [text.log_likelihood for text in found[row]]
        assert likelihoods == pytest.approx([value for _, value, _ in texts[:3]], abs=1e-4)


@pytest.mark.parametrize("settings", [{}, {"beams": 3}, {"temperature": 1.0, "returns": 2, "seed": 4}])
def test_prompts_in_a_batch_are_continued_as_each_alone(model, prompts, settings):
    decoding = Decoding(6, **settings)
    together = model.complete(prompts, decoding)
    for prompt, texts in zip(prompts, together, strict=True):
        ((alone),) = model.complete([prompt], decoding)
        assert [text.text for text in alone] == [text.text for text in texts]
        likelihoods = [text.log_likelihood for text in texts]
        assert [text.log_likelihood for text in alone] == pytest.approx(likelihoods, abs=1e-3)


def test_beams_go_over_media_that_are_not_repeated(model, prompts, monkeypatch):
    seen = []
    steps = Bridge.steps
    monkeypatch.setattr(
        Bridge,
        "steps",
        lambda self, media, *args, **kw: seen.append(len(media.index)) or steps(self, media, *args, **kw),
    )
    model.complete(prompts, Decoding(4, beams=5))
    assert set(seen) == {len(prompts)}


def test_draws_follow_the_distribution(model, prompts):
    drawn = [w.text for w in model.complete(prompts[:1], Decoding(1, temperature=1.0, returns=4000))[0]]
    logits = model.bridge.logits(model.prefill(prompts[0]).hidden)[0, -1].softmax(-1)
    likely = logits.topk(5)
    for probability, token in zip(likely.values.tolist(), likely.indices.tolist(), strict=True):
        share = drawn.count(model.tokenizer.decode([token], skip_special_tokens=True).strip()) / len(drawn)
        assert share >= probability - 4 * (probability * (1 - probability) / len(drawn)) ** 0.5


def test_the_same_seed_draws_the_same_and_another_does_not(model, prompts):
    def texts(seed):
        return [[w.text for w in own] for own in model.complete(prompts, Decoding(8, temperature=1.0, seed=seed))]

    assert texts(1) == texts(1)
    assert texts(1) != texts(2)


def test_top_k_and_top_p_leave_the_most_likely():
    logits = torch.tensor([[0.5, 0.3, 0.15, 0.05]]).log()
    assert (top(logits, 2, 1.0) > -torch.inf).tolist() == [[True, True, False, False]]
    assert (top(logits, 0, 0.79) > -torch.inf).tolist() == [[True, True, False, False]]
    assert (top(logits, 0, 0.81) > -torch.inf).tolist() == [[True, True, True, False]]
    assert (top(logits, 0, 0.01) > -torch.inf).tolist() == [[True, False, False, False]]
    assert torch.equal(top(logits, 9, 1.0), logits)


def test_stops_end_a_text_and_are_left_out(model, prompts):
    (whole,) = model.generate(prompts[:1], 12)
    stop = whole[3:5]
    ((stopped,),) = model.complete(prompts[:1], Decoding(12, stop=(stop,)))
    assert stopped.text == whole[: whole.index(stop)].strip()


@pytest.mark.parametrize("stop", [(), (" ",)])
def test_a_streamed_text_is_the_written_one(model, prompts, stop):
    for prompt in prompts:
        ((written,),) = model.complete([prompt], Decoding(12, stop=stop))
        pieces = list(model.stream(prompt, Decoding(12, stop=stop)))
        assert "".join(pieces) == written.text
    with pytest.raises(UserError, match="streaming gives one text"):
        list(model.stream(prompts[0], Decoding(beams=2)))


def test_between_two_pieces_of_a_stream_the_caller_has_gradients(model, prompts):
    streams = [model.stream(prompt, Decoding(8)) for prompt in prompts[:2]]
    for pieces in itertools.zip_longest(*streams):
        assert torch.is_grad_enabled()
        assert any(pieces)
    assert torch.is_grad_enabled()


def test_a_prompt_is_complete_although_its_examples_are_targets(towers, pictures):
    """Windows, packed rows and the removed end are for training examples only."""
    model = tiny.flamingo(towers, CollateConfig(page_tokens=20, page_media=2, pack=60))
    options = ["red", "a blue shape"]
    ranked = []
    for learned in (True, False):
        asked = [
            model.prompts.render(tiny.question(image(pictures, n), "what?"), shots(pictures), learn=learned)
            for n in (8, 9)
        ]
        ranked.append([[score.log_likelihood for score in own] for own in model.rank(asked, options)])
        scored = model.score([dataclasses.replace(document, target="red") for document in asked])
        assert [score.log_likelihood for score in scored] == pytest.approx([own[0] for own in ranked[-1]], abs=1e-3)
    torch.testing.assert_close(torch.tensor(ranked[0]), torch.tensor(ranked[1]), atol=1e-4, rtol=0)
    lengths = [
        int(model.prefill(Document([image(pictures, 0), text, EndOfChunk()])).lengths)
        for text in (Learned("a red shape"), " a red shape")
    ]
    assert lengths[0] == lengths[1]


def test_a_text_ends_where_the_context_does(model, pictures):
    """The language model has positions for 128 tokens; the last generated token is not an input."""
    prefilled = model.prefill(Document(["cat and dog " * 24]))
    prompt = Document([image(pictures, 0), "a cat"])
    whole = int(model.prefill(prompt, state=prefilled).lengths)
    with pytest.warns(PromptNotice, match=f"at most {128 - whole + 1} tokens are generated"):
        model.complete([prompt], Decoding(300), state=prefilled)
    with pytest.warns(PromptNotice):
        assert list(model.stream(prompt, Decoding(300), state=prefilled))
    with pytest.raises(UserError, match=r"an answer of \d+ tokens.*room for \d+ more"):
        model.rank([prompt], ["cat and dog " * 20, "red"], state=prefilled)
    with pytest.raises(UserError, match=r"\d+ tokens, and the language model has 128 positions"):
        model.prefill(Document(["cat and dog " * 20]), state=prefilled)


@pytest.mark.parametrize("attend_to", ["latest", "all"])
def test_examples_are_read_once_for_many_questions(towers, pictures, attend_to):
    model = tiny.flamingo(towers, attend_to=attend_to)
    examples = shots(pictures)
    asked = [tiny.question(image(pictures, n), "what color?") for n in (8, 9, 10)]
    whole = [model.prompts.render(each, examples) for each in asked]
    prefilled = model.prefill(Document(model.prompts.examples(examples)))
    columns = prefilled.attention_mask.shape[1]
    queries = [model.prompts.render(each) for each in asked]
    for _ in range(2):
        assert model.generate(queries, 6, state=prefilled) == model.generate(whole, 6)
        assert prefilled.cache.get_seq_length() == columns
    ranked = [[s.log_likelihood for s in own] for own in model.rank(queries, ["red", "blue"], state=prefilled)]
    plain = [[s.log_likelihood for s in own] for own in model.rank(whole, ["red", "blue"])]
    torch.testing.assert_close(torch.tensor(ranked), torch.tensor(plain), atol=1e-3, rtol=0)
    assert "".join(model.stream(queries[0], Decoding(6), prefilled)) == model.generate(whole[:1], 6)[0]


def test_given_answers_are_scored_as_they_would_be_alone(model, prompts):
    options = ["red", "a red shape and a cat", "blue shape"]
    for prompt, scores in zip(prompts, model.rank(prompts, options), strict=True):
        for option, score in zip(options, scores, strict=True):
            (alone,) = model.score([Document(prompt.parts, target=option)])
            assert alone.tokens == score.tokens
            assert score.log_likelihood == pytest.approx(alone.log_likelihood, abs=1e-3)
            # The plain definition gives the same.
            batch = model.with_features(model.collate.documents([Document(prompt.parts, target=option)]))
            through = model.bridge(batch).log_softmax(-1)[batch.targets != -100]
            targets = batch.targets[batch.targets != -100]
            assert through.gather(1, targets[:, None]).sum().item() == pytest.approx(score.log_likelihood, abs=1e-3)


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"beams": 0}, "beams is 0"),
        ({"temperature": -1.0}, "temperature is -1.0; it must be 0 or"),
        ({"top_p": 0.0}, "top_p is 0.0; it must be above 0"),
        ({"beams": 2, "temperature": 1.0}, "beam search does not sample"),
        ({"returns": 2}, "would be equal"),
        ({"stop": ("",)}, "empty string"),
    ],
)
def test_settings_that_exclude_each_other_are_errors(settings, message):
    with pytest.raises(UserError, match=message):
        Decoding(**settings)
