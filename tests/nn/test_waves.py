"""Waves of x as inputs: faded as the level's noise fades them."""

import math

import pytest
import torch

from thalweg import noise, random
from thalweg.levels import LevelTable
from thalweg.nn.mlp import MLP
from thalweg.nn.waves import Waves

STD, DIM = 0.7, 2


def test_waves_fade_as_the_noise_fades_them():
    """E over x_t of a wave of x, by Monte Carlo: the mean of cos(ω(a + σε)) is exp(−ω²σ²/2) cos(ωa)."""
    schedule = noise.cosine_log_snr()
    table = LevelTable(schedule, step_coefficient=0.054, data_std=STD, weight_power=1.0)
    waves = Waves(MLP(DIM * 7, width=8, levels=True), 3, table.noise_share)
    a, epsilon = torch.tensor(0.3), random.normal(200_000, generator=random.seeded(17))
    for t in (0, 1, 3):
        width = math.sqrt(schedule.signal[t] ** 2 * STD**2 + schedule.noise[t] ** 2)
        found = waves.inputs(torch.full((1, DIM), a), torch.tensor([t]))[0]
        assert found.shape == (DIM * 7,) and torch.equal(found[:DIM], torch.full((DIM,), a))
        cosines = found[DIM + 3 * DIM :].view(DIM, 3)[0]
        for i, frequency in enumerate((2.0, 4.0, 8.0)):
            mean = (frequency * (a + schedule.noise[t] / width * epsilon)).cos().mean()
            assert float(cosines[i]) == pytest.approx(2 / frequency * float(mean), abs=0.01)


def test_the_network_sees_them():
    net = MLP(DIM * 5, width=8, levels=True, classes=3)
    waves = Waves(net, 2, torch.tensor([0.1, 0.5]))
    x, t, label = torch.randn(4, DIM, generator=random.seeded(1)), torch.tensor([0, 1, 1, 0]), torch.tensor([0, -1, 2, 1])
    assert torch.equal(waves(x, t, label), net(waves.inputs(x, t), t, label))
    assert torch.equal(waves(x, t), net(waves.inputs(x, t), t))
