import torch
from hypothesis import given
from hypothesis import strategies as st

from vislang.nn.attention import CrossAttention, look_at_media


def naive_latest(media_time: list[int], media_count: int, latents: int) -> list[list[bool]]:
    """The mask read off its definition: medium m, counted from 1, is open to a token after exactly m media."""
    return [[time == medium for medium in range(1, media_count + 1) for _ in range(latents)] for time in media_time]


@given(st.lists(st.integers(0, 4), min_size=1, max_size=8), st.integers(1, 4), st.integers(1, 3))
def test_each_token_sees_its_latest_medium_only(media_time, media_count, latents):
    mask = look_at_media(torch.tensor([media_time]), media_count, latents)
    assert mask[0].tolist() == naive_latest(media_time, media_count, latents)


def test_shown_weights_are_the_weights_that_are_used():
    attention = CrossAttention(12, 10, heads=2, head_width=4)
    queries, context = torch.randn(2, 5, 12), torch.randn(2, 6, 10)
    mask = torch.rand(2, 5, 6) > 0.4
    mask[0, 0] = False
    keys_values = attention.keys_values(context)
    weights = attention.weights(queries, keys_values, mask)
    by_hand = attention.to_output((weights @ keys_values.values).transpose(1, 2).flatten(2))
    torch.testing.assert_close(attention(queries, keys_values, mask), by_hand)
    open_rows = mask.any(-1)[:, None].expand(-1, 2, -1)
    torch.testing.assert_close(weights.sum(-1), open_rows.float())


def test_a_query_that_may_look_nowhere_gets_zeros_and_finite_gradients():
    attention = CrossAttention(12, 10, heads=2, head_width=4)
    queries = torch.randn(1, 3, 12, requires_grad=True)
    mask = torch.tensor([[[False] * 4, [True] * 4, [False] * 4]])
    attended = attention(queries, attention.keys_values(torch.randn(1, 4, 10)), mask)
    assert attended[0, 0].abs().max() == 0
    assert attended[0, 1].abs().max() > 0
    attended.sum().backward()
    assert queries.grad.isfinite().all()


def test_all_media_of_the_own_text_up_to_the_latest():
    mask = look_at_media(torch.tensor([[0, 1, 2, 3, 3]]), 3, 1, True, torch.tensor([[0, 0, 0, 1, 2]]))
    assert mask[0].int().tolist() == [[0, 0, 0], [1, 0, 0], [1, 1, 0], [0, 1, 1], [0, 0, 1]]
