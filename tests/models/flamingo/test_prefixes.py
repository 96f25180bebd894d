"""Examples of prompts are read once: by their content, within a budget of memory."""

import gc
import weakref

import pytest
import torch

from tests import tiny
from tests.models.flamingo.test_collate import image
from vislang.capabilities import Prefix
from vislang.document import Document, EndOfChunk, Image
from vislang.models.flamingo.prefixes import Prefixes, key_of, split

BUDGET = 2**30


@pytest.fixture
def model(towers):
    return tiny.flamingo(towers)


def shot(medium: Image, answer: str = "red", text: str = "what color?"):
    return tiny.question(medium, text, answer)


def prompt(model, pictures, *shots, number: int = 9) -> Document:
    return model.prompts.render(tiny.question(image(pictures, number), "what color?"), shots)


def hidden(model, document: Document, prefixes: Prefixes) -> torch.Tensor:
    state, rest = model.resume(document, prefixes)
    return model.prefill(rest, state).hidden


def test_two_images_at_the_same_place_of_the_same_text_are_told_apart(model, pictures):
    prefixes = model.prefixes(BUDGET)
    one, other = (prompt(model, pictures, shot(image(pictures, n))) for n in (0, 1))
    texts = [[part for part in document.parts if isinstance(part, str)] for document in (one, other)]
    assert texts[0] == texts[1]
    first, second = hidden(model, one, prefixes), hidden(model, other, prefixes)
    assert (prefixes.hits, prefixes.misses) == (0, 2)
    assert not torch.allclose(first, second, atol=1e-3)
    for document, expected in ((one, first), (other, second)):
        assert torch.equal(hidden(model, document, prefixes), expected)
        assert torch.equal(hidden(model, document, model.prefixes(0)), expected)
    assert (prefixes.hits, prefixes.misses) == (2, 2)


def test_copies_of_an_image_are_the_same_whatever_their_names(model, pictures):
    prefixes = model.prefixes(BUDGET)
    expected = hidden(model, prompt(model, pictures, shot(image(pictures, 0))), prefixes)
    copy = Image((pictures / "0.png").read_bytes())
    assert torch.equal(hidden(model, prompt(model, pictures, shot(copy)), prefixes), expected)
    assert prefixes.hits == 1


def test_texts_that_differ_are_told_apart(model, pictures):
    keys = {
        key_of(prompt(model, pictures, *shots).parts)
        for shots in (
            [shot(image(pictures, 0))],
            [shot(image(pictures, 0), "blue")],
            [shot(image(pictures, 0), text="what?")],
            [shot(image(pictures, 0)), shot(image(pictures, 1))],
            [shot(image(pictures, 1)), shot(image(pictures, 0))],
        )
    }
    assert len(keys) == 5
    assert key_of(("a", EndOfChunk())) != key_of(("a", ""))


def test_examples_read_apart_are_those_of_a_whole_prompt(model, pictures):
    """And a prompt that begins with known examples reads only those that follow."""
    shots = [shot(image(pictures, n), ("red", "blue")[n % 2]) for n in range(3)]
    document = prompt(model, pictures, *shots)
    whole = model.prefill(document)
    prefixes = model.prefixes(BUDGET)
    model.resume(prompt(model, pictures, *shots[:2]), prefixes)
    read, forward = [], model.runner.extend
    model.runner.extend = lambda state, batch: read.append(batch.tokens) or forward(state, batch)
    state, rest = model.resume(document, prefixes)
    assert len(read) == 1
    assert read[0] < int(state.lengths) / 2
    found = model.prefill(rest, state)
    assert torch.equal(found.ids, whole.ids)
    assert torch.equal(found.media_time, whole.media_time)
    torch.testing.assert_close(found.hidden, whole.hidden, atol=1e-4, rtol=0)
    # The longer prompt is known now, too.
    model.resume(document, prefixes)
    assert (prefixes.hits, len(read)) == (1, 2)


@pytest.mark.parametrize("separator", ["", "\n", " ###"])
def test_the_separator_belongs_to_what_follows(towers, pictures, separator):
    from dataclasses import replace

    model = tiny.flamingo(towers)
    model.collate.prompts = replace(model.prompts, separator=separator, question="{question}{image}")
    document = prompt(model, pictures, shot(image(pictures, 0)), shot(image(pictures, 1)))
    first, rest = split(document)
    assert isinstance(first.parts[-1], EndOfChunk)
    state = model.prefill(rest, model.prefill(first))
    assert torch.equal(state.ids, model.prefill(document).ids)
    query = tiny.question(image(pictures, 9), "what color?")
    after = model.prompts.render(query, after_shots=True)
    shots = Document(model.prompts.examples([shot(image(pictures, 0)), shot(image(pictures, 1))]))
    assert (*shots.parts, *after.parts) == document.parts


def test_what_was_not_used_for_longest_makes_room(model, pictures):
    documents = [prompt(model, pictures, shot(image(pictures, n))) for n in range(4)]
    sizes = [model.prefill(split(document)[0]).nbytes for document in documents]
    prefixes = model.prefixes(2 * max(sizes) + 2000)
    for number in (0, 1, 0, 2):
        model.resume(documents[number], prefixes)
        assert prefixes.nbytes <= prefixes.budget
    assert (prefixes.hits, len(prefixes)) == (1, 2)
    model.resume(documents[0], prefixes)
    assert prefixes.hits == 2
    model.resume(documents[1], prefixes)
    assert prefixes.hits == 2


def test_images_are_not_kept(model, pictures):
    """Their bytes would not count."""
    medium = image(pictures, 0)
    content = weakref.ref(medium)
    prefixes = model.prefixes(BUDGET)
    document = prompt(model, pictures, shot(medium))
    model.resume(document, prefixes)
    assert len(prefixes) == 1
    del document, medium
    gc.collect()
    assert content() is None


def test_long_texts_count(model, pictures):
    prefixes = model.prefixes(BUDGET)
    examples, _ = split(prompt(model, pictures, shot(image(pictures, 0))))
    prefixes.put(examples, state := model.prefill(examples))
    assert state.nbytes + 64 < prefixes.nbytes < state.nbytes + 4000


def test_nothing_beyond_the_budget_is_kept(model, pictures):
    prefixes = model.prefixes(100)
    for _ in range(2):
        model.resume(prompt(model, pictures, shot(image(pictures, 0))), prefixes)
    assert (prefixes.hits, prefixes.misses, prefixes.nbytes, len(prefixes)) == (0, 2, 0, 0)


def test_what_is_pinned_stays(model, pictures):
    prefixes = model.prefixes(0)
    document = prompt(model, pictures, shot(image(pictures, 0)))
    examples, _ = split(document)
    prefixes.pin(Prefix(examples, model.prefill(examples)))
    model.resume(prompt(model, pictures, shot(image(pictures, 1))), prefixes)
    model.resume(document, prefixes)
    assert (prefixes.hits, prefixes.misses, prefixes.nbytes) == (1, 1, 0)


def test_a_prompt_without_examples_is_read_whole(model, pictures):
    prefixes = model.prefixes(BUDGET)
    for document in (prompt(model, pictures), Document(["a cat"]), Document(["a cat", EndOfChunk()])):
        assert model.resume(document, prefixes) == (None, document)
    assert (prefixes.hits, prefixes.misses) == (0, 0)


def test_a_kept_state_is_not_changed_by_what_continues_it(model, pictures):
    from vislang.capabilities import Decoding

    prefixes = model.prefixes(BUDGET)
    document = prompt(model, pictures, shot(image(pictures, 0)))
    found = []
    for _ in range(2):
        state, rest = model.resume(document, prefixes)
        *_, last = model.together().continuations(model.prefill(rest, state), Decoding(6), 0)
        found.append(last)
    assert found[0] == found[1]
