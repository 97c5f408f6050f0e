"""Random views: drawn by the generator alone, within the range of images, and refused for what is no image."""

import pytest
import torch

from thalweg import random
from thalweg.augmentation import NoiseViews, RandomViews
from thalweg.errors import InputError


@pytest.mark.parametrize("shape", [(1, 8, 8), (3, 12, 12)])
def test_views_are_drawn_by_the_generator_and_stay_in_range(shape):
    views = RandomViews()
    x = random.uniform(16, *shape, low=-1.0, high=1.0, generator=random.seeded(4))
    before = torch.random.get_rng_state()
    a, b, c = (views(x, random.seeded(key)) for key in (5, 5, 6))
    assert torch.equal(torch.random.get_rng_state(), before), "the global generator is left alone"
    assert torch.equal(a, b) and not torch.equal(a, c) and a.shape == x.shape and a.abs().max() <= 1
    assert (a - x).flatten(1).norm(dim=1).min() > 0.1
    torch.testing.assert_close(RandomViews(crop=1.0, flip=0.0, jitter=0.0, grey=0.0)(x, random.seeded(5)), x)
    torch.testing.assert_close(RandomViews(crop=1.0, flip=1.0, jitter=0.0, grey=0.0)(x, random.seeded(5)), x.flip(3))


def test_views_of_shares_are_those_of_the_processes():
    x = random.uniform(8, 1, 8, 8, low=-1.0, high=1.0, generator=random.seeded(7))
    both = RandomViews()(x, (random.seeded(8), random.seeded(9)))
    assert torch.equal(both, torch.cat([RandomViews()(part, random.seeded(key)) for part, key in zip(x.chunk(2), (8, 9))]))


def test_views_by_noise_stay_within_a_grey_value():
    x = random.uniform(500, 2, low=-1.0, high=1.0, generator=random.seeded(22))
    moved = NoiseViews()(x, random.seeded(23))
    lowest = 255 / 256 * (x + 1) - 1
    assert (moved >= lowest - 1e-6).all() and (moved <= lowest + 2 / 256 + 1e-6).all() and (moved - lowest).max() > 1 / 256


def test_random_views_are_of_images():
    with pytest.raises(InputError, match="random views are of images"):
        RandomViews()(torch.zeros(2, 3))
