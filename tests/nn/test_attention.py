import torch

from vislang.nn.attention import CrossAttention


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


def test_a_query_without_keys_gets_zeros_and_finite_gradients():
    attention = CrossAttention(12, 10, heads=2, head_width=4)
    queries = torch.randn(1, 3, 12, requires_grad=True)
    mask = torch.tensor([[[False] * 4, [True] * 4, [False] * 4]])
    attended = attention(queries, attention.keys_values(torch.randn(1, 4, 10)), mask)
    assert attended[0, 0].abs().max() == 0
    assert attended[0, 1].abs().max() > 0
    attended.sum().backward()
    assert queries.grad.isfinite().all()
