"""Positions and biases against their definitions."""

import math

import pytest
import torch

from vislang.nn.averaging import annealed_decay, average_into
from vislang.nn.embed import (
    Alibi,
    RelativePositionBias,
    SpeechConvolutions,
    TokenEmbedding,
    alibi_slopes,
    grid_sinusoids,
    mel_filters,
)


def test_alibi_slopes_are_powers_of_two_and_others_interleave():
    assert alibi_slopes(8) == [2.0**-n for n in range(1, 9)]
    assert alibi_slopes(12) == alibi_slopes(8) + alibi_slopes(16)[0:8:2]


@pytest.mark.parametrize(("distance", "expected"), [("steps", 7.0), ("manhattan", 2 + 1), ("euclidean", math.sqrt(5))])
def test_alibi_falls_with_distance(distance, expected):
    # Tokens 1 and 8: seven steps apart; on a grid of three by three, two rows down and one column to the right.
    bias = Alibi(4, distance=distance)(9)
    assert bias.shape == (1, 1, 4, 9, 9)
    assert bias[0, 0, 0, 1, 8].item() == pytest.approx(-expected * alibi_slopes(4)[0], rel=1e-5)
    assert torch.equal(bias, bias.transpose(-1, -2))


def test_positions_of_a_grid_tell_columns_and_rows_apart():
    table = grid_sinusoids(3, 4, 16).unflatten(0, (3, 4))
    assert torch.equal(table[0, :, :8], table[2, :, :8])
    assert torch.equal(table[:, 0, 8:], table[:, 3, 8:])
    assert len(table.flatten(0, 1).unique(dim=0)) == 12


def test_relative_bias_is_one_number_for_each_offset():
    bias = RelativePositionBias(3, 4, heads=2)
    with torch.no_grad():
        bias.tables.copy_(torch.randn_like(bias.tables))
    (values,) = bias(13)[0]
    assert values.shape == (2, 13, 13)
    patches = values[:, 1:, 1:].unflatten(1, (3, 4)).unflatten(3, (3, 4))
    # From any patch to its lower right neighbour.
    assert torch.equal(patches[:, 0, 0, 1, 1], patches[:, 1, 2, 2, 3])
    assert not torch.equal(patches[:, 0, 0, 1, 1], patches[:, 1, 1, 0, 0])
    assert len({values[0, 0, 5].item(), values[0, 5, 0].item(), values[0, 0, 0].item()}) == 3


@pytest.mark.parametrize("positions", ["learned", "sinusoidal", "none"])
def test_padding_on_the_left_does_not_shift_positions(positions):
    embedding = TokenEmbedding(20, 8, 10, positions=positions)
    tokens = torch.tensor([[5, 6, 7]])
    padded = torch.tensor([[1, 1, 5, 6, 7]])
    assert torch.allclose(embedding(padded)[:, 2:], embedding(tokens), atol=1e-6)
    assert embedding(padded)[:, :2].abs().sum() == 0


def test_frames_are_counted_as_they_come_out():
    convolutions = SpeechConvolutions([(4, 10, 5), (4, 3, 2), (4, 2, 2)])
    for samples in (200, 201, 333, 400):
        assert convolutions(torch.randn(1, samples)).shape[1] == convolutions.frames(torch.tensor(samples))


def test_the_average_copies_what_does_not_train():
    student, teacher = torch.nn.Linear(2, 2), torch.nn.Linear(2, 2)
    student.bias.requires_grad_(False)
    expected = 0.75 * teacher.weight + 0.25 * student.weight
    average_into(teacher, student, 0.75)
    assert torch.allclose(teacher.weight, expected)
    assert torch.equal(teacher.bias, student.bias)


def test_the_decay_rises_in_a_straight_line_and_stays():
    assert [annealed_decay(0.8, 1.0, n, 4) for n in (0, 2, 4, 9)] == pytest.approx([0.8, 0.9, 1.0, 1.0])


def test_mel_filters_pass_their_own_band():
    rate, length = 16_000, 400
    filters = mel_filters(80, length, rate)
    spectrum = torch.fft.rfft(filters, 4096).abs()
    peaks = spectrum.argmax(dim=1) * rate / 4096
    cosines, sines = peaks[::2], peaks[1::2]
    assert (cosines.diff() > 0).all()
    # The lowest bands are as wide as they are high, so their sines and cosines lean apart.
    assert (cosines - sines)[5:].abs().max() < 20
    # Evenly spaced on the mel scale: the steps in hertz grow with the frequency.
    assert peaks[0] < 120
    assert 7000 < peaks[-1] < 8000
    steps = cosines.diff()
    assert steps[-5:].mean() > 4 * steps[:5].mean()
    torch.testing.assert_close(filters.norm(dim=1), torch.ones(80))
    # A cosine and a sine of one band hear a tone whatever its phase.
    tone = torch.sin(2 * math.pi * cosines[20] * torch.arange(length) / rate + torch.arange(8)[:, None])
    heard = (tone @ filters[40:42].T).norm(dim=1)
    assert heard.std() / heard.mean() < 0.05


def test_a_front_end_may_start_from_mel_filters():
    drawn, mel = SpeechConvolutions([(8, 40, 10)]), SpeechConvolutions([(8, 40, 10)], mel_rate=16_000)
    assert torch.equal(mel.convolutions[0].weight[:, 0], mel_filters(8, 40, 16_000))
    assert not torch.equal(drawn.convolutions[0].weight, mel.convolutions[0].weight)
    mel(torch.randn(1, 100)).sum().backward()
    assert mel.convolutions[0].weight.grad is not None
