"""Regions of images that are known."""

import torch

from thalweg import random
from thalweg.data.regions import random_regions


def test_all_but_a_rectangle_is_known_of_a_share_of_images():
    x = torch.zeros(4000, 1, 8, 12)
    known = random_regions(x, 0.3, random.seeded(1))
    assert known.shape == (4000, 1, 8, 12) and known.dtype is torch.bool
    some = known.flatten(1).any(1)
    # a rectangle that is the whole image hides all of it: seldom
    assert abs(float(some.float().mean()) - 0.3) < 4.5 * (0.3 * 0.7 / 4000) ** 0.5 + 0.01
    hidden = ~known[some, 0]
    rows, columns = hidden.any(2), hidden.any(1)
    assert torch.equal(hidden, rows[:, :, None] & columns[:, None, :]), "a rectangle"
    for line, side in ((rows, 8), (columns, 12)):
        assert (line.int().diff(dim=1).abs().sum(1) <= 2).all(), "in one piece"
        sizes = line.sum(1)
        assert int(sizes.min()) == side // 4 and int(sizes.max()) == side
        assert line.float().mean(0).min() > 0.2, "anywhere"


def test_the_same_generator_gives_the_same():
    x = torch.zeros(6, 3, 4, 4)
    assert torch.equal(random_regions(x, 1.0, random.seeded(2)), random_regions(x, 1.0, random.seeded(2)))
    assert not random_regions(x, 0.0, random.seeded(2)).any()
