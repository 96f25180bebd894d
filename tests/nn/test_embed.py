"""Positions and biases against their definitions."""

import math

import pytest
import torch

from vislang.nn.averaging import annealed_decay, average_into
from vislang.nn.embed import (
    Alibi,
    MelEnergies,
    RelativePositionBias,
    SpeechConvolutions,
    TokenEmbedding,
    alibi_slopes,
    grid_sinusoids,
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


def test_positions_of_a_grid_differ_by_column_and_row():
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


def test_mel_bands_respond_to_their_tones_at_any_phase():
    rate, length, stride = 16_000, 400, 160
    mel = MelEnergies(40, length, stride, rate)
    spectrum = torch.fft.rfft(mel.filters[::2, 0], 4096).abs()
    centres = spectrum.argmax(dim=1) * rate / 4096
    steps = centres.diff()
    # Evenly spaced on the mel scale: the steps in hertz grow with the frequency.
    assert steps[-5:].mean() > 4 * steps[:5].mean() > 0
    assert centres[0] < 150
    assert 7000 < centres[-1] < 8000
    for band in (5, 20, 35):
        tones = torch.sin(2 * math.pi * centres[band] * torch.arange(length) / rate + torch.arange(8)[:, None])
        heard = mel(tones[:, None])[..., 0]
        assert heard.argmax(dim=1).tolist() == [band] * 8
        assert heard[:, band].std() < 0.02
    silence = mel(torch.zeros(1, 1, length))
    torch.testing.assert_close(silence, torch.full_like(silence, math.log(1e-4) / 4))


def test_a_front_end_of_mel_energies():
    front = SpeechConvolutions([(8, 40, 10), (6, 3, 2)], mel_rate=16_000)
    wave = torch.randn(2, 200)
    assert front(wave).shape == (2, int(front.frames(torch.tensor(200))), 6)
    assert {tuple(p.shape) for p in front.parameters()} == {(6, 8, 3), (6,)}
    front(wave).sum().backward()
