"""Denoising by a chain: where it starts, and the ball that it stays in."""

import math

import pytest
import torch

from thalweg import random
from thalweg.denoising import add_noise, within_reach

BOUND = 4.5  # standard errors


def test_starts_have_the_variance_of_the_noise_about_their_images():
    x = random.normal(2000, 1, 4, 4, generator=random.seeded(1))
    y = add_noise(x, 0.3, random.seeded(2))
    assert torch.equal(y, add_noise(x, 0.3, random.seeded(2)))
    assert abs(float((y - x).std()) - 0.3) < BOUND * 0.3 / math.sqrt(2 * x.numel())
    assert abs(float(((y - x) * x).mean())) < BOUND * 0.3 / math.sqrt(x.numel()), "unrelated to the image"


def test_the_draws_of_two_processes_are_those_of_one():
    x = torch.zeros(8, 1, 2, 2)
    whole = add_noise(x, 1.0, (random.seeded(1), random.seeded(2)))
    assert torch.equal(whole, torch.cat([add_noise(x[:4], 1.0, random.seeded(1)), add_noise(x[4:], 1.0, random.seeded(2))]))


@pytest.mark.parametrize("shape", [(3,), (1, 4, 4)])
def test_the_reach_is_a_ball_about_each_image(shape):
    y = random.normal(5, *shape, generator=random.seeded(3))
    project, radius = within_reach(y, 0.2), 0.2 * math.sqrt(math.prod(shape))
    direction = random.normal(5, *shape, generator=random.seeded(4))
    direction = direction / direction.flatten(1).norm(dim=1).view(-1, *[1] * len(shape))
    inside, outside = y + 0.9 * radius * direction, y + 7.0 * radius * direction
    torch.testing.assert_close(project(inside), inside)
    torch.testing.assert_close(project(outside), y + radius * direction)
    torch.testing.assert_close(project(project(outside)), project(outside))
    assert torch.equal(project(y), y), "no move has no direction"
