"""Nearest neighbours against brute force; memorisation of copies, of fresh images, and of mixtures of the two."""

import numpy as np
import pytest
import torch
from matplotlib.image import imread

from thalweg import plot
from thalweg.data import load
from thalweg.errors import InputError
from thalweg.evaluate.neighbours import memorisation, nearest_neighbours
from thalweg.random import integers, normal, rows, seeded, uniform

FROZEN_DISTANCE = 0.63208318


def blobs(n, *key):
    """Images 1×4×4 around eight centres: fresh draws of one distribution."""
    centres = uniform(8, 1, 4, 4, low=-0.7, high=0.7, generator=seeded(0))
    g = seeded(1, *key)
    return (centres[integers(n, 0, 8, generator=g)] + 0.1 * normal(n, 1, 4, 4, generator=g)).clamp(-1, 1)


def spread(expected, n, held_out):
    return (expected * (1 - expected) * (1 / n + 1 / held_out)) ** 0.5


def test_neighbours_are_those_of_brute_force():
    x, train = uniform(300, 3, 5, 4, low=-1, high=1, generator=seeded(0)), uniform(70, 3, 5, 4, low=-1, high=1, generator=seeded(1))
    found = nearest_neighbours(x, train, k=3)
    distances = np.sqrt(((x[:, None] - train[None]).double().numpy() ** 2).mean((2, 3, 4)))
    assert found.indices.shape == (300, 3) and np.array_equal(found.indices, np.argsort(distances)[:, :3])
    np.testing.assert_allclose(found.distances, np.sort(distances)[:, :3], rtol=1e-5)
    assert float(found.distances[0, 0]) == pytest.approx(FROZEN_DISTANCE, rel=1e-4)


def test_a_copy_is_at_distance_zero_of_itself():
    train = uniform(50, 1, 8, 8, low=-1, high=1, generator=seeded(0))
    found = nearest_neighbours(train[20:30], train, k=2)
    assert found.indices[:, 0].tolist() == list(range(20, 30)) and float(found.distances[:, 0].abs().max()) == 0
    assert float(found.distances[:, 1].min()) > 0.3
    opposite = nearest_neighbours(torch.ones(1, 1, 8, 8), -torch.ones(3, 1, 8, 8))
    assert float(opposite.distances) == 2  # the unit: root mean square difference of pixels


def test_neighbours_in_the_features_of_an_extractor():
    class Sums:
        name = "sums"

        def features(self, images, *, batch=512):
            return images.sum((2, 3))

    train = torch.tensor([[0.9, -0.9], [0.2, 0.1], [0.5, 0.6]]).view(3, 1, 1, 2)  # sums 0, 0.3, 1.1
    x = torch.tensor([[0.45, 0.55], [0.0, 0.1]]).view(2, 1, 1, 2)  # sums 1, 0.1
    assert nearest_neighbours(x, train, extractor=Sums()).indices.tolist() == [[2], [0]]
    assert nearest_neighbours(x, train).indices.tolist() == [[2], [1]]
    assert nearest_neighbours(x, train, extractor=Sums()).distances[:, 0].tolist() == pytest.approx([0.1, 0.1])


def test_fresh_images_are_closer_as_often_as_expected():
    train = blobs(500, 0)
    found = [memorisation(blobs(200, 1, i), train, blobs(199, 2, i)) for i in range(40)]
    assert {(f.expected, f.space, f.n, f.train, f.held_out) for f in found} == {(0.05, "pixels", 200, 500, 199)}
    shares, ratios = torch.tensor([f.closer for f in found]), torch.tensor([f.median_ratio for f in found])
    assert float(shares.mean()) == pytest.approx(0.05, abs=4 * spread(0.05, 200, 199) / 40**0.5)
    assert float(shares.std()) == pytest.approx(spread(0.05, 200, 199), rel=0.5)  # known to 11 %; the shares are skewed
    assert float(ratios.mean()) == pytest.approx(1, abs=4 * float(ratios.std()) / 40**0.5)
    assert all(f.copies == 0 and f.low <= f.closer <= f.high for f in found)


def test_digits_kept_apart_do_not_look_memorised():
    x = load("digits", "train").all().x
    train, samples, held_out = x[rows(1200, len(x), generator=seeded(3))].split([600, 300, 300])
    found = memorisation(samples, train, held_out)
    assert found.expected == 15 / 301 and abs(found.closer - found.expected) < 4 * spread(0.05, 300, 300)
    assert abs(found.median_ratio - 1) < 0.1 and found.copies == 0
    copied = memorisation(train[:300], train, held_out)
    assert (copied.closer, copied.median_ratio, copied.copies) == (1, 0, 300)


def test_copies_are_found_also_with_noise_and_among_others():
    train, held_out = blobs(500, 0), blobs(300, 2)
    noisy = memorisation((train[:200] + 0.01 * normal(200, 1, 4, 4, generator=seeded(3))).clamp(-1, 1), train, held_out)
    assert noisy.closer == 1 and 0.05 < noisy.median_ratio < 0.2
    mixed = memorisation(torch.cat([train[:60], blobs(140, 4)]), train, held_out)
    assert mixed.copies == 60 and mixed.low > 2 * mixed.expected
    assert mixed.closer == pytest.approx(0.3 + 0.7 * mixed.expected, abs=0.7 * 4 * spread(0.05, 140, 300))
    assert memorisation(train[:60], train, held_out, copy=1e-9).copies == 60
    far = memorisation(-torch.ones(30, 1, 4, 4), train, held_out)
    assert far.closer == 0 and far.median_ratio > 3


def test_images_that_cannot_be_compared_are_refused():
    x, train, held_out = blobs(20, 0), blobs(30, 1), blobs(25, 2)
    for call, message in (
        (lambda: nearest_neighbours(x, train[:, :, :3]), "need \\[N, C, H, W\\] and \\[M, C, H, W\\]"),
        (lambda: nearest_neighbours(x[:0], train), "N, M ≥ 1"),
        (lambda: nearest_neighbours(x, train / 0 * 0), "NaN"),
        (lambda: nearest_neighbours(x * 3, train), "need \\[−1, 1\\]"),
        (lambda: nearest_neighbours(x, train, k=31), "k is 31, need 1 … 30"),
        (lambda: nearest_neighbours(x, train, k=0), "k is 0"),
        (lambda: memorisation(x, train, held_out[:18]), "got 18 held-out images, a quantile of 0.05 needs 19"),
        (lambda: memorisation(x, train, held_out, quantile=1.0), "quantile 1.0"),
        (lambda: memorisation(x, train, train), "held-out images are training images"),
        (lambda: memorisation(x, train, held_out * 3), "need \\[−1, 1\\]"),
    ):
        with pytest.raises(InputError, match=message):
            call()
    assert memorisation(x, train, held_out[:19]).expected == 0.05


def test_the_picture_has_a_row_a_sample_with_its_neighbours(tmp_path):
    train = torch.linspace(-1, 0.9, 20).view(20, 1, 1, 1).expand(20, 1, 32, 32).contiguous()
    x = train[[3, 12]]
    path = plot.neighbours(x, train, nearest_neighbours(x, train, k=2).indices, tmp_path / "a.png")
    pixels = (imread(path)[..., :3] * 255).round()
    assert pixels.shape[:2] == (2 + 2 * 34, 2 + 4 * 34)
    grey = ((train[:, 0, 0, 0] + 1) * 127.5).round()
    centres = pixels[18::34, 18::34, 0]
    assert centres[:, 0].tolist() == centres[:, 2].tolist() == grey[[3, 12]].tolist()
    assert (centres[:, 1] == 255).all() and centres[0, 3] in (grey[2], grey[4]) and centres[1, 3] in (grey[11], grey[13])
    for samples, indices, message in (
        (x[:, :, :4], torch.zeros(2, 1).long(), "got shapes"),
        (x, torch.zeros(3, 1).long(), "need \\[2, k\\]"),
        (x, torch.full((2, 1), 20), "of 20 training images"),
    ):
        with pytest.raises(InputError, match=message):
            plot.neighbours(samples, train, indices, tmp_path / "b.png")
