"""Rates, sizes, determinism by seed, and at least one masked and one visible position."""

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from vislang.nn.masking import block_mask, inverse_block_mask, mask_tokens, span_mask


def seeded(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


seeds = st.integers(0, 2**31)


@settings(deadline=None, max_examples=60)
@given(seeds, st.integers(1, 6), st.integers(2, 60), st.floats(0.05, 0.9), st.integers(1, 5))
def test_the_wanted_share_of_tokens_is_chosen_and_specials_never(seed, batch, tokens, rate, span):
    ids = torch.randint(10, 90, (batch, tokens), generator=seeded(seed))
    maskable = torch.rand(batch, tokens, generator=seeded(seed + 1)) < 0.8
    maskable[:, -1] = True
    found = mask_tokens(ids, maskable, 99, 90, seeded(seed), rate, span=span)
    wanted = (maskable.sum(1) * rate).round().clamp(min=1)
    assert torch.equal(found.mask.sum(1), wanted.long())
    assert not (found.mask & ~maskable).any()
    assert torch.equal(found.input_ids[~found.mask], ids[~found.mask])
    again = mask_tokens(ids, maskable, 99, 90, seeded(seed), rate, span=span)
    assert torch.equal(found.input_ids, again.input_ids)
    assert torch.equal(found.mask, again.mask)


def test_eighty_ten_ten():
    ids = torch.full((200, 500), 5)
    found = mask_tokens(ids, torch.ones_like(ids, dtype=torch.bool), 99, 90, seeded())
    chosen = found.input_ids[found.mask]
    assert found.mask.float().mean() == pytest.approx(0.15, abs=1e-6)
    assert (chosen == 99).float().mean() == pytest.approx(0.8, abs=0.015)
    assert (chosen == 5).float().mean() == pytest.approx(0.1 + 0.1 / 90, abs=0.01)


def test_spans_of_tokens_stay_together():
    ids = torch.full((50, 400), 5)
    found = mask_tokens(ids, torch.ones_like(ids, dtype=torch.bool), 99, 90, seeded(), 0.35, 1.0, 0.0, span=4)
    assert (found.input_ids[found.mask] == 99).all()
    starts = (found.mask[:, 1:] & ~found.mask[:, :-1]).sum()
    assert found.mask.sum() / starts > 4


def test_a_text_without_maskable_tokens_is_an_error():
    with pytest.raises(ValueError, match="no token"):
        mask_tokens(torch.ones(1, 3, dtype=torch.long), torch.zeros(1, 3, dtype=torch.bool), 9, 8, seeded())


@settings(deadline=None, max_examples=60)
@given(seeds, st.integers(4, 16), st.integers(4, 16), st.floats(0.1, 0.9), st.integers(1, 16))
def test_blocks_hide_exactly_what_is_wanted(seed, rows, columns, share, smallest):
    hidden = max(1, int(rows * columns * share))
    mask = block_mask(rows, columns, hidden, seeded(seed), smallest)
    assert int(mask.sum()) == hidden
    assert torch.equal(mask, block_mask(rows, columns, hidden, seeded(seed), smallest))


def test_a_block_is_never_smaller_than_promised():
    """If only one block is masked, it is a rectangle of at least sixteen patches."""
    for seed in range(200):
        mask = block_mask(14, 14, 16, seeded(seed))
        rows, columns = mask.any(1).sum(), mask.any(0).sum()
        assert rows * columns >= 16
        # One block, cut at its end: full rows except for the last.
        assert (mask[mask.any(1)][:-1].sum(1) == columns).all()


def test_neighbouring_patches_are_hidden_together():
    masks = torch.stack([block_mask(14, 14, 118, seeded(seed)) for seed in range(50)])
    together = (masks[:, 1:] == masks[:, :-1]).float().mean()
    assert together > 0.8, "independent patches would agree in 52 % of cases"


@pytest.mark.parametrize("hidden", [0, 196])
def test_masking_nothing_or_everything_is_an_error(hidden):
    with pytest.raises(ValueError, match="cannot mask"):
        block_mask(14, 14, hidden, seeded())
    with pytest.raises(ValueError, match="cannot mask"):
        inverse_block_mask(1, 14, 14, hidden / 196, seeded())


@settings(deadline=None, max_examples=60)
@given(seeds, st.integers(1, 5), st.integers(3, 16), st.integers(3, 16), st.floats(0.3, 0.85), st.integers(1, 4))
def test_every_sample_keeps_as_many_patches(seed, batch, rows, columns, hidden, block):
    mask = inverse_block_mask(batch, rows, columns, hidden, seeded(seed), block)
    kept = (~mask).flatten(1).sum(1)
    assert (kept == int(rows * columns * (1 - hidden) + 1e-9)).all()
    assert torch.equal(mask, inverse_block_mask(batch, rows, columns, hidden, seeded(seed), block))


def test_what_is_kept_comes_in_blocks():
    kept = ~inverse_block_mask(100, 14, 14, 0.8, seeded())
    neighbour = (kept[:, 1:] & kept[:, :-1]).sum() / kept[:, 1:].sum()
    assert neighbour > 0.4, "independent patches would have a kept neighbour above in 20 % of cases"


@settings(deadline=None, max_examples=60)
@given(
    seeds,
    st.lists(st.integers(2, 120), min_size=1, max_size=5),
    st.floats(0.05, 1.0),
    st.integers(1, 12),
    st.booleans(),
)
def test_spans_leave_something_and_hide_something(seed, lengths, rate, span, same):
    real = torch.tensor(lengths)
    mask = span_mask(real, 130, seeded(seed), rate, span, same)
    hidden = mask.sum(1)
    assert (hidden >= 1).all()
    assert (hidden < real).all()
    assert not mask[torch.arange(130) >= real[:, None]].any()
    if same:
        assert len(set(hidden.tolist())) == 1
    assert torch.equal(mask, span_mask(real, 130, seeded(seed), rate, span, same))


def test_the_papers_spans_hide_about_half():
    mask = span_mask(torch.full((200,), 500), 500, seeded())
    assert mask.float().mean() == pytest.approx(0.49, abs=0.03)
    starts = (mask[:, 1:] & ~mask[:, :-1]).sum() + mask[:, 0].sum()
    assert mask.sum() / starts >= 10


def test_a_recording_of_one_frame_is_an_error():
    with pytest.raises(ValueError, match="fewer than two frames"):
        span_mask(torch.tensor([1]), 5, seeded())
