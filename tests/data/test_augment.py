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


def test_images_that_are_no_square_are_turned_not_sheared():
    """In the middle, an image is moved as the square one that it is cut from, up to shifts, which are shares of a side."""
    x = random.uniform(40, 1, 33, 33, low=-1.0, high=1.0, generator=random.seeded(1))
    smooth = torch.nn.functional.avg_pool2d(x, 9, 1, 4)
    for part, wide in ((smooth[:, :, 8:25], (17, 33)), (smooth[:, :, :, 8:25], (33, 17))):
        moved = random_affine(part, 1.0, random.seeded(2))
        assert moved.shape[2:] == wide
    # a long bar through the centre keeps its angle: the slope of its two ends is that of the square image's
    bar = torch.full((200, 1, 17, 33), -1.0)
    bar[:, :, 8] = 1.0
    square = torch.full((200, 1, 33, 33), -1.0)
    square[:, :, 16] = 1.0
    slopes = []
    for image in (bar, square):
        moved = (random_affine(image, 1.0, random.seeded(3)) + 1).squeeze(1)
        line = torch.arange(float(moved.shape[1]))[None, :, None]
        height = (moved * line).sum(1) / moved.sum(1).clamp(min=1e-6)
        slopes.append((height[:, 24] - height[:, 8]) / 16)
    assert torch.allclose(*slopes, atol=0.02) and float(slopes[1].abs().max()) > 0.15
