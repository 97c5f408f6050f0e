"""Small random turns, scalings and shifts of images."""

import torch

from thalweg import random
from thalweg.data.augment import random_affine


def test_without_strength_images_stay_as_they_are():
    x = random.uniform(5, 3, 8, 8, low=-1.0, high=1.0, generator=random.seeded(1))
    torch.testing.assert_close(random_affine(x, 0.0, random.seeded(2)), x)


def test_each_image_is_moved_by_itself_and_its_background_stays_dark():
    x = torch.full((200, 1, 17, 17), -1.0)
    x[:, :, 8, 8] = 1.0
    moved = random_affine(x, 1.0, random.seeded(3))
    assert moved.shape == x.shape and float(moved.min()) >= -1 - 1e-6 and float(moved.max()) <= 1 + 1e-6
    assert torch.equal(moved, random_affine(x, 1.0, random.seeded(3))) and not torch.equal(moved, random_affine(x, 1.0, random.seeded(4)))
    mass = (moved + 1).squeeze(1)
    line = torch.arange(17.0) - 8
    column, row = ((mass * at).sum((1, 2)) / mass.sum((1, 2)) for at in (line, line[:, None]))
    # a point at the centre is moved by the shift alone, turned and scaled: at most 0.075 of the side times √2 · 1.1/0.9
    distance = (column.square() + row.square()).sqrt()
    assert 0.5 < float(distance.mean()) < 0.075 * 17 and float(distance.max()) < 0.075 * 17 * 2**0.5 * 1.25
    assert abs(float(column.mean())) < 0.2 and abs(float(row.mean())) < 0.2


def test_shifts_grow_with_the_strength():
    x = random.uniform(50, 1, 16, 16, low=-1.0, high=1.0, generator=random.seeded(5))
    near, far = ((random_affine(x, strength, random.seeded(6)) - x).square().mean() for strength in (0.05, 1.0))
    assert 0 < float(near) < 0.2 * float(far)
