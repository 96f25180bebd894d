"""Texts that are generated together: they join and leave at any time, and are the same as alone; guesses from the
prompt save passes and change nothing."""

import dataclasses
import itertools

import pytest
import torch

from tests import tiny
from tests.models.flamingo.test_collate import image
from vislang.capabilities import Decoding
from vislang.document import Document
from vislang.errors import UserError
from vislang.models.flamingo import continuing, decoding
from vislang.models.flamingo.decoding import Text, TextBatch
from vislang.models.flamingo.drafting import draft
from vislang.models.flamingo.model import _of_similar_length
from vislang.models.flamingo.prefill import Runner

CLOSE = {"rtol": 0, "atol": 1e-3}
"""Between a text in a batch and alone: float32 sums in another order, in a model whose logits are of the size of 40."""


@pytest.fixture
def model(towers):
    return tiny.flamingo(towers)


@pytest.fixture
def prompts(model, pictures):
    """Prompts of different lengths and numbers of images."""
    return [
        model.prompts.render(tiny.question(image(pictures, 0), "what color?")),
        Document([image(pictures, 2), "a cat", image(pictures, 3), " and"]),
        Document(["a dog and a"]),
        model.prompts.render(tiny.question(image(pictures, 1), "is it red of the cat and the dog?")),
    ]


@pytest.mark.parametrize("shots", [0, 2])
def test_prompts_that_are_read_together_are_continued_as_alone(model, prompts, pictures, shots, monkeypatch):
    shown = [tiny.question(image(pictures, n), "what color?", ("red", "blue")[n]) for n in range(shots)]
    before = model.prefill(Document(model.prompts.examples(shown))) if shots else None
    batches = []
    prefill = type(model)._prefill
    monkeypatch.setattr(type(model), "_prefill", lambda *given: (batches.append(len(given[1])), prefill(*given))[1])
    states = model.prefill_each(prompts, before)
    assert sum(batches) == len(prompts)
    assert max(batches) > 1, "each was read alone"
    for state, prompt in zip(states, prompts, strict=True):
        alone = model.prefill(prompt, before)
        assert torch.equal(state.ids, alone.ids)
        assert model.prompt_tokens(state) == model.prompt_tokens(alone)
        ours, theirs = (ended(model.together().continuations(own, Decoding(8), 2)) for own in (state, alone))
        agree(ours, theirs)


def test_prompts_of_other_lengths_are_read_apart():
    assert _of_similar_length([5, 100, 9, 60, 200, 4]) == [[4, 1], [3], [2, 0], [5]]
    assert _of_similar_length([1500, 1000]) == [[0], [1]]
    assert _of_similar_length([]) == []


SETTINGS = [
    Decoding(9),
    Decoding(4, stop=("cat",)),
    Decoding(12, temperature=1.0, seed=3),
    Decoding(7, temperature=1.0, top_k=5, returns=2, seed=1),
]


def ended(iterator):
    *_, last = iterator
    return last


def agree(found, expected) -> None:
    assert [text.text for text in found] == [text.text for text in expected]
    assert [text.finish for text in found] == [text.finish for text in expected]
    for ours, theirs in zip(found, expected, strict=True):
        assert [token.text for token in ours.tokens] == [token.text for token in theirs.tokens]
        values = [torch.tensor([token.log_probability for token in each.tokens]) for each in (ours, theirs)]
        torch.testing.assert_close(*values, **CLOSE)


def test_texts_that_join_and_leave_are_those_of_each_alone(model, prompts):
    alone = [
        ended(model.together().continuations(model.prefill(p), s, 0)) for p, s in zip(prompts, SETTINGS, strict=True)
    ]
    for order in ((0, 1, 2, 3), (3, 1, 0, 2), (2, 3, 1, 0)):
        together, going, found = model.together(), {}, {}
        # Every two steps another one joins; they end at different times.
        for step in itertools.count():
            if step % 2 == 0 and step // 2 < 4:
                number = order[step // 2]
                going[number] = together.continuations(model.prefill(prompts[number]), SETTINGS[number], 0)
            for number, iterator in list(going.items()):
                texts = next(iterator, None)
                if texts is None:
                    del going[number]
                else:
                    found[number] = texts
            if not going and step >= 8:
                break
        assert together.texts == 0
        for number in range(4):
            agree(found[number], alone[number])


def test_iterators_that_are_advanced_in_turn_share_their_passes(model, prompts, monkeypatch):
    passes = []
    step = TextBatch.step
    monkeypatch.setattr(TextBatch, "step", lambda batch: passes.append(len(batch.texts)) or step(batch))
    # No token ends a text.
    together = continuing.Together(
        model.runner, model._detokenizer, frozenset(), model._arithmetic, model._fitting_after
    )
    iterators = [together.continuations(model.prefill(prompt), Decoding(6)) for prompt in prompts]
    for _ in range(40):
        for iterator in iterators:
            next(iterator, None)
    # The first token of each needs none; a guess that is right saves one.
    assert len(passes) <= 5 + 3
    assert max(passes) == 4


def test_an_iterator_that_is_closed_takes_its_texts_out(model, prompts):
    together = model.together()
    first, second = (together.continuations(model.prefill(prompt), Decoding(20)) for prompt in prompts[:2])
    expected = ended(model.together().continuations(model.prefill(prompts[1]), Decoding(20), 0))
    next(first), next(second), next(first)
    assert together.texts == 2
    first.close()
    assert together.texts == 1
    assert ended(second)[0].text == expected[0].text
    assert together.texts == 0


def test_a_long_prompt_gets_a_batch_of_its_own(model, prompts, monkeypatch):
    """Otherwise all others would be padded to its length."""
    monkeypatch.setattr(continuing, "MOST_COLUMNS", 80)
    together = model.together()
    long = Document(["a cat and a dog " * 10])
    iterators = [together.continuations(model.prefill(p), Decoding(5), 0) for p in (prompts[0], long, prompts[1])]
    for iterator in iterators:
        next(iterator)
    assert sorted(len(batch.texts) for batch in together._batches) == [1, 2]
    for iterator, prompt in zip(iterators, (prompts[0], long, prompts[1]), strict=True):
        agree(ended(iterator), ended(model.together().continuations(model.prefill(prompt), Decoding(5), 0)))


def test_a_failure_of_one_text_is_not_that_of_the_others(model, prompts):
    expected = ended(model.together().continuations(model.prefill(prompts[0]), Decoding(8), 0))
    together = model.together()
    good = together.continuations(model.prefill(prompts[0]), Decoding(8), 0)
    next(good)
    broken = model.prefill(prompts[1])
    broken = dataclasses.replace(broken, hidden=torch.full_like(broken.hidden, torch.nan))
    with pytest.raises(UserError, match="not a number"):
        ended(together.continuations(broken, Decoding(8)))
    agree(ended(good), expected)


def test_a_failure_of_the_model_is_that_of_all_and_none_stays(model, prompts, monkeypatch):
    together = model.together()
    both = [together.continuations(model.prefill(prompt), Decoding(8)) for prompt in prompts[:2]]
    for iterator in both:
        next(iterator)
    tried = Runner.try_tokens

    def failing(*arguments):
        raise RuntimeError("out of memory")

    monkeypatch.setattr(Runner, "try_tokens", failing)
    for iterator in both:
        with pytest.raises(RuntimeError, match="out of memory"):
            ended(iterator)
    assert together.texts == 0
    monkeypatch.setattr(Runner, "try_tokens", tried)
    assert ended(together.continuations(model.prefill(prompts[0]), Decoding(3)))


# Guesses


@torch.no_grad()
@pytest.mark.parametrize("family", sorted({**tiny.FAMILIES, **tiny.TUPLES, **tiny.WINDOWED}))
def test_guesses_change_no_token_in_any_family(family, monkeypatch):
    """Guesses of which some tokens are right, of texts that are continued together; each is right for another time."""
    attend_to = "all" if family == "llama" else "latest"
    runner = Runner(tiny.bridge(tiny.language_model(family), opened=True, attend_to=attend_to))
    batch = tiny.batch(runner.bridge.media_token)
    state = runner.prefill(batch)
    prompts = [ids[len(ids) - length :] for ids, length in zip(state.ids.tolist(), state.lengths.tolist(), strict=True)]
    plain = [Text(Decoding(15), frozenset()) for _ in prompts]
    generated(TextBatch(runner, drafts=False), state, plain)
    known = [prompt + text.tokens for prompt, text in zip(prompts, plain, strict=True)]

    def guess(ids: list[int], most: int, excluded: frozenset[int]) -> list[int]:
        (whole,) = [own for own in known if own[: len(ids)] == ids]
        right = whole[len(ids) :][:most]
        # The first wrong token is another one each time.
        wrong = len(ids) % 4
        return [(token + 1) % tiny.TYPES if place == wrong else token for place, token in enumerate(right)]

    monkeypatch.setattr(decoding, "draft", guess)
    monkeypatch.setattr(decoding, "TOKENS_A_PASS", 18)
    guessed = [Text(Decoding(15), frozenset()) for _ in prompts]
    made = generated(TextBatch(runner), runner.prefill(batch), guessed)
    assert made.passes < 14
    for ours, theirs in zip(guessed, plain, strict=True):
        assert ours.tokens == theirs.tokens
        torch.testing.assert_close(
            torch.tensor(ours.log_probabilities), torch.tensor(theirs.log_probabilities), **CLOSE
        )


def generated(batch: TextBatch, state, texts: list[Text]) -> TextBatch:
    batch.join(state, texts)
    while batch.texts:
        batch.step()
    return batch


@torch.no_grad()
@pytest.mark.parametrize("length", [1, 2, 3, 8])
def test_right_guesses_save_passes_and_end_where_the_text_does(model, prompts, monkeypatch, length):
    plain, guessed = Text(Decoding(length), frozenset()), Text(Decoding(length), frozenset())
    generated(TextBatch(model.runner, drafts=False), model.prefill(prompts[0]), [plain])
    monkeypatch.setattr(decoding, "draft", lambda ids, most, excluded: plain.tokens[len(guessed.tokens) :][:most])
    made = generated(TextBatch(model.runner), model.prefill(prompts[0]), [guessed])
    assert guessed.tokens == plain.tokens
    assert len(guessed.tokens) == length
    # The first token comes from the prompt; each pass gives one more than was guessed: 1 + 3 + 1, then 1 + 7 + 1.
    assert made.passes == (0 if length == 1 else 1 if length <= 5 else 2)


def test_drafts_follow_the_latest_earlier_occurrence():
    assert draft([1, 2, 3, 4, 1, 2, 5, 6, 1, 2], 3, frozenset()) == [5, 6, 1]
    # The longer context comes first.
    assert draft([9, 1, 2, 3, 4, 8, 1, 2, 5, 9, 1, 2], 2, frozenset()) == [3, 4]
    assert draft([1, 2, 3, 4, 1, 2], 3, frozenset({4})) == [3]
    assert draft([1, 2, 3, 1, 2], 0, frozenset()) == []
    assert draft([1, 2, 3], 4, frozenset()) == []
    assert draft([], 4, frozenset()) == []
