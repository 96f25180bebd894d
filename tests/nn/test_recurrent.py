"""Both directions of a recurrent network equal torch's own on packed sequences."""

import pytest
import torch
from torch import nn
from torch.nn.utils.rnn import pack_padded_sequence, pad_packed_sequence

from vislang.nn.recurrent import Bidirectional, at_last

LENGTHS = torch.tensor([5, 2, 1, 4])
PADDING = torch.arange(5) >= LENGTHS[:, None]


def twin(both: Bidirectional, kind) -> nn.Module:
    """Torch's bidirectional layer with the same weights."""
    made = kind(3, 4, batch_first=True, bidirectional=True)
    own = dict(both.ahead.named_parameters()) | {f"{n}_reverse": p for n, p in both.back.named_parameters()}
    with torch.no_grad():
        for name, parameter in made.named_parameters():
            parameter.copy_(own[name])
    return made


@pytest.mark.parametrize("kind", [nn.GRU, nn.LSTM])
def test_states_are_those_of_packed_sequences(kind):
    both, x = Bidirectional(kind, 3, 4), torch.randn(4, 5, 3)
    packed = pack_padded_sequence(x, LENGTHS, batch_first=True, enforce_sorted=False)
    expected, _ = pad_packed_sequence(twin(both, kind)(packed)[0], batch_first=True)
    found = both(x, PADDING)
    assert found.shape == (4, 5, 2, 4)
    torch.testing.assert_close(found.flatten(2)[~PADDING], expected[~PADDING])
    # Without padding, all positions are read.
    torch.testing.assert_close(both(x).flatten(2), twin(both, kind)(x)[0])


def test_padding_has_no_effect():
    both, x = Bidirectional(nn.GRU, 3, 4), torch.randn(4, 5, 3)
    changed = x.masked_fill(PADDING[..., None], 100.0)
    torch.testing.assert_close(both(changed, PADDING)[~PADDING], both(x, PADDING)[~PADDING])


def test_the_last_state_is_the_last_that_is_not_padding():
    states = torch.arange(20.0).view(4, 5, 1)
    assert at_last(states, PADDING)[:, 0].tolist() == [4, 6, 10, 18]
    assert at_last(states)[:, 0].tolist() == [4, 9, 14, 19]
