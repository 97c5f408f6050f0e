"""Populations of weighted particles, and corrections by MALA: laws in closed form."""

import math

import pytest
import torch
from torch import Tensor

from thalweg import random
from thalweg.energy import gaussian
from thalweg.particles import Particles, corrected
from thalweg.sample import Trace, mala

BOUND = 4.5


def still(y: Tensor) -> Tensor:
    return y


def crowd(log_weight: Tensor) -> Particles:
    found = Particles(*log_weight.shape, tilt=lambda y, t: torch.zeros(len(y)))
    found.log_weight = log_weight
    return found


def test_the_effective_number_of_particles():
    """All of them where weights are equal, one where one has it all, and 1/Σ w² between."""
    found = crowd(torch.tensor([[0.0] * 4, [0.0, -math.inf, -math.inf, -math.inf], [0.0, 0.0, -math.inf, -math.inf]])).effective()
    assert found.tolist() == pytest.approx([4, 1, 2])


def test_particles_are_drawn_again_where_few_are_left():
    """⌊size·w⌋ or ⌈size·w⌉ times, of their own population; the others go on with their weights."""
    share = torch.tensor([0.91, 0.05, 0.03, 0.01] + [0.0] * 4)
    weights = torch.stack([share, torch.tensor([0.3, 0.2, 0.1, 0.1, 0.1, 0.1, 0.05, 0.05])]).log()
    found = crowd(weights)
    x = found.follow(torch.arange(16.0)[:, None], torch.zeros(16), still, random.seeded(1))
    counts = torch.bincount(x[:8, 0].long(), minlength=16)
    assert ((counts[:8] - 8 * share).abs() < 1).all() and counts[8:].sum() == 0
    assert x[8:, 0].tolist() == list(range(8, 16)), "the second population has enough of them"
    assert torch.equal(found.log_weight, torch.stack([torch.zeros(8), weights[1]]))


def test_one_is_chosen_by_weight():
    n, share = 4000, torch.tensor([0.6, 0.3, 0.1])
    x = crowd(share.log().expand(n, 3)).chosen(torch.arange(3.0).repeat(n), random.seeded(2))
    found = torch.bincount(x.long(), minlength=3) / n
    assert ((found - share).abs() < BOUND * (share * (1 - share) / n).sqrt()).all()


def test_weights_are_ratios_of_the_tilts_of_two_levels():
    """A NaN weighs nothing; of a population of one nothing is asked."""
    tilt = {1: torch.tensor([0.5, 1.0]), 0: torch.tensor([2.0, math.nan])}
    found = Particles(1, 2, lambda y, t: tilt[int(t[0])])
    for level, expected in ((1, [-0.5, -1.0]), (0, [-0.5 + 0.5 - 2.0, -math.inf])):
        found.follow(torch.zeros(2, 1), torch.full((2,), level), still, random.seeded(3))
        assert found.log_weight is not None and found.log_weight.tolist() == [expected]
    one = Particles(3, 1, None)
    x = torch.randn(3, 2, generator=random.seeded(4))
    assert torch.equal(one.follow(x, torch.zeros(3), lambda y: y + 1, None), x + 1) and one.chosen(x, None) is x


def test_a_step_that_adapts_comes_to_the_wanted_acceptance():
    """From a step ten times too short and one ten times too long; the law stays that of the energy."""
    for step in (0.05, 5.0):
        trace, x = Trace(), random.normal(2000, 8, generator=random.seeded(5))
        x = mala(gaussian, x, steps=40, step=step, target_acceptance=0.6, generator=random.seeded(6))
        late = mala(gaussian, x, steps=1, step=1.65 * 8 ** (-1 / 6), generator=random.seeded(7), trace=trace)
        assert 0.4 < float(trace.acceptance.mean()) < 0.8, "the optimum's acceptance is near the target in 8 dimensions"
        assert abs(float(late.square().mean()) - 1) < BOUND * math.sqrt(2 / late.numel())


def test_corrections_move_in_what_is_left_free():
    x = torch.full((4000, 2), 3.0)

    def onto(z: Tensor) -> Tensor:
        return torch.stack([torch.full((len(z),), 0.7), z[:, 1]], 1)

    found = corrected(lambda z: gaussian(z, 0.5), 60, 0.5, onto, random.seeded(8), x)
    assert (found[:, 0] == 0.7).all()
    assert abs(float(found[:, 1].mean())) < BOUND * 0.5 / math.sqrt(4000)
    assert abs(float(found[:, 1].square().mean()) - 0.25) < BOUND * 0.25 * math.sqrt(2 / 4000)
    assert corrected(gaussian, 0, 0.5, None, None, x) is x
