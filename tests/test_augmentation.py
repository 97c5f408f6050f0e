"""Random views: drawn by the generator alone, within the range of images, and refused for what is no image."""

import pytest
import torch

from thalweg import random
from thalweg.augmentation import Affine, NoiseViews, RandomViews, Shifts, augmented
from thalweg.data.augment import jitter_brightness
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


@pytest.mark.parametrize("views", [RandomViews(), Shifts(), Affine()], ids=lambda views: views.kind)
def test_views_of_shares_are_those_of_the_processes(views):
    x = random.uniform(8, 1, 8, 8, low=-1.0, high=1.0, generator=random.seeded(7))
    both = views(x, (random.seeded(8), random.seeded(9)))
    assert torch.equal(both, torch.cat([views(part, random.seeded(key)) for part, key in zip(x.chunk(2), (8, 9))]))
    assert torch.equal(both, augmented(x, views, (random.seeded(8), random.seeded(9)))) and augmented(x, None) is x


def test_views_by_noise_stay_within_a_grey_value():
    x = random.uniform(500, 2, low=-1.0, high=1.0, generator=random.seeded(22))
    moved = NoiseViews()(x, random.seeded(23))
    lowest = 255 / 256 * (x + 1) - 1
    assert (moved >= lowest - 1e-6).all() and (moved <= lowest + 2 / 256 + 1e-6).all() and (moved - lowest).max() > 1 / 256


@pytest.mark.parametrize("shape", [(2, 6, 9), (1, 9, 6)])
def test_shifts_move_whole_pixels_and_repeat_the_edge(shape):
    """Of an image that says where each pixel was: every shift and mirror image comes as often as the others."""
    _, height, width = shape
    x = (torch.arange(float(height))[:, None] * 100 + torch.arange(float(width))).expand(4000, *shape)
    a, b = (Shifts(flip=0.3, shift=2)(x, random.seeded(key)) for key in (5, 5))
    assert torch.equal(a, b) and a.shape == x.shape and torch.equal(a[:, 0], a[:, -1]), "channels move together"
    row, column = a[:, 0].div(100, rounding_mode="floor"), a[:, 0] % 100
    mirrored = column[:, 0, 0] > column[:, 0, -1]
    down, across = row[:, 3, 0] - 3, torch.where(mirrored, width - 1 - column[:, 0, 3], column[:, 0, 3]) - 3
    ends = (torch.arange(float(height)) + down[:, None]).clamp(0, height - 1)
    assert torch.equal(row[:, :, 0], ends)
    for share, p in [(mirrored.float().mean(), 0.3), *(((m == k).float().mean(), 0.2) for m in (down, across) for k in range(-2, 3))]:
        assert abs(float(share) - p) < 4.5 * (p * (1 - p) / 4000) ** 0.5
    assert torch.equal(Shifts(flip=0.0, shift=0)(x, random.seeded(1)), x) and torch.equal(Shifts(flip=1.0, shift=0)(x), x.flip(3))


def test_random_views_are_of_images():
    for views in (RandomViews(), Shifts(), Affine()):
        with pytest.raises(InputError, match="random views are of images"):
            views(torch.zeros(2, 3))
    with pytest.raises(InputError, match="shift must be less than the sides of the images, 4×2, got 2"):
        Shifts()(torch.zeros(1, 1, 4, 2))


def test_jitter_of_grey_images_by_hand():
    """Brightness times b, contrast m + c·(x − m) with each image's own mean, in either order, within [0, 1]."""
    x = torch.tensor([[0.0, 0.8], [0.4, 0.4]]).expand(4, 1, 2, 2)
    b, c = torch.tensor([1.5, 1.5, 1.0, 1.0]), torch.tensor([0.5, 0.5, 0.5, 2.0])
    found = jitter_brightness(x, b, c, torch.tensor([True, False, True, False]))[:, 0]
    # the first ends at 1 before its contrast is changed: means 0.55 and 0.4
    wanted = [[0.275, 0.775, 0.575, 0.575], [0.3, 0.9, 0.6, 0.6], [0.2, 0.6, 0.4, 0.4], [0.0, 1.0, 0.4, 0.4]]
    torch.testing.assert_close(found.flatten(1), torch.tensor(wanted))


def test_views_of_grey_images_keep_their_black():
    """Of bright squares on black with a mean of 0.2, six views in ten have exact black, and none is lifted by more than 0.112."""
    x = torch.full((4000, 1, 12, 12), -1.0)
    x[:, :, 3:9, 3:9] = 0.6
    views = RandomViews(crop=1.0, flip=0.0, jitter=0.4)
    darkest = 0.5 * (views(x, random.seeded(31)).amin((1, 2, 3)) + 1)
    # blended with the mean: 0.4 of it, and that made 1.4 times as bright
    assert 0.08 < float(darkest.max()) <= 0.4 * 0.2 * 1.4 + 1e-5
    # 0.2 of the images are left alone, and in half of the others contrast rises
    assert abs(float((darkest < 1e-6).float().mean()) - 0.6) < 4.5 * (0.6 * 0.4 / 4000) ** 0.5
    assert bool((views(torch.full_like(x, -1.0), random.seeded(32)) == -1).all()), "a black image stays black"
