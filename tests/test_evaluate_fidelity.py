"""The extractor, the Fréchet distance and accuracies against closed forms and references."""

import math

import numpy as np
import pytest
import scipy.linalg
import torch
from torchmetrics.image.fid import FrechetInceptionDistance

from thalweg.data import load
from thalweg.errors import InputError
from thalweg.evaluate import (
    Extractor,
    ExtractorConfig,
    accuracy,
    class_accuracy,
    extractor,
    frechet_distance,
    frechet_from_features,
    outliers,
    train_extractor,
    wilson,
)
from thalweg.evaluate.extractor import shifted
from thalweg.random import normal, seeded, uniform

QUICK = ExtractorConfig(images=1024, width=8)


@pytest.fixture(scope="module")
def digits():
    return tuple(load("digits", "train").all()), tuple(load("digits", "test").all())


@pytest.fixture(scope="module")
def trained(digits, tmp_path_factory):
    """The extractor at its default settings, trained once for the module, and its cache folder."""
    folder = tmp_path_factory.mktemp("cache")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("THALWEG_CACHE", str(folder))
        return extractor("digits"), folder


def test_the_extractor_learns_digits(trained, digits):
    net, _ = trained
    assert net.test_accuracy >= 0.98
    assert net.name == "digits-classifier"
    x, label = digits[1]
    assert class_accuracy(x, label, net).value == net.test_accuracy
    assert class_accuracy(x, (label + 1) % 10, net).value < 0.02
    assert net.features(x).shape == (len(x), 64) and not net.features(x).requires_grad


def test_the_cache_gives_the_same_network_and_heals(trained, digits, monkeypatch):
    net, folder = trained
    monkeypatch.setenv("THALWEG_CACHE", str(folder))
    again = extractor("digits")
    assert again.test_accuracy == net.test_accuracy
    assert torch.equal(again.features(digits[1][0]), net.features(digits[1][0]))
    assert len(list(folder.iterdir())) == 1

    quick = extractor(digits, name="digits", config=QUICK)  # another configuration is another entry
    files = set(folder.iterdir())
    assert len(files) == 2
    (path,) = (file for file in files if file.stat().st_size < 100_000)
    path.write_bytes(path.read_bytes()[:500])
    assert torch.equal(extractor(digits, name="digits", config=QUICK).features(digits[1][0]), quick.features(digits[1][0]))
    assert set(folder.iterdir()) == files and path.stat().st_size > 500


def test_training_is_set_by_the_seed_and_leaves_the_global_generator_alone(digits):
    x, label = digits[0]
    state = torch.get_rng_state()
    first, second = (train_extractor(x, label, config=QUICK) for _ in range(2))
    assert torch.equal(state, torch.get_rng_state())
    assert torch.equal(first.features(x[:50]), second.features(x[:50]))
    other = train_extractor(x, label, config=ExtractorConfig(images=1024, width=8, seed=1))
    assert not torch.equal(first.features(x[:50]), other.features(x[:50]))


@pytest.mark.parametrize("shape", [(1, 8, 8), (1, 28, 28), (3, 32, 32), (2, 5, 9)])
def test_extractors_of_every_size(shape):
    x = uniform(20, *shape, low=-1, high=1, generator=seeded(0))
    net = train_extractor(x, torch.arange(20) % 4, config=ExtractorConfig(images=64, batch=16, width=8))
    assert net.features(x).shape == (20, 64) and net.logits(x).shape == (20, 4)


def test_shifts_move_each_image_and_repeat_the_border():
    x = torch.arange(16.0).view(1, 1, 4, 4).expand(200, 2, 4, 4)
    assert torch.equal(shifted(x, 0, seeded(0)), x)
    moved = shifted(x, 1, seeded(0))
    index = torch.arange(4)
    expected = {
        tuple(x[0, 0][(index - down).clamp(0, 3)][:, (index - right).clamp(0, 3)].flatten().tolist())
        for down in (-1, 0, 1)
        for right in (-1, 0, 1)
    }
    assert {tuple(image.flatten().tolist()) for image in moved[:, 0]} == expected
    assert torch.equal(moved[:, 0], moved[:, 1])


def with_moments(mean, covariance, n):
    """n rows whose sample mean and unbiased covariance are exactly those given."""
    z = normal(n, len(mean), generator=seeded(n)).double()
    z = z - z.mean(0)
    z = torch.linalg.solve_triangular(torch.linalg.cholesky(z.T @ z / (n - 1)), z.T, upper=False).T
    return z @ torch.linalg.cholesky(covariance).T + mean


def test_frechet_distance_of_exact_gaussians_matches_the_closed_form():
    g = seeded(4)
    mean = normal(2, 6, generator=g).double()
    a, b = (m @ m.T + 0.1 * torch.eye(6) for m in normal(2, 6, 6, generator=g).double())
    root = scipy.linalg.sqrtm(scipy.linalg.sqrtm(a.numpy()) @ b.numpy() @ scipy.linalg.sqrtm(a.numpy())).real
    expected = float((mean[0] - mean[1]).square().sum() + a.trace() + b.trace()) - 2 * np.trace(root)
    found = frechet_from_features(with_moments(mean[0], a, 50), with_moments(mean[1], b, 80))
    assert found == pytest.approx(expected, rel=1e-9)
    assert frechet_from_features(with_moments(mean[0], a, 50) + 1e4, with_moments(mean[1], b, 80) + 1e4) == pytest.approx(
        expected, rel=1e-6
    )
    one = with_moments(torch.zeros(1).double(), torch.eye(1).double(), 30)
    assert frechet_from_features(one, 3 * one + 2) == pytest.approx(2**2 + (3 - 1) ** 2)


def test_frechet_distance_is_that_of_torchmetrics_with_the_extractor_as_its_network(trained, digits):
    net, _ = trained
    real, samples = digits[0][0], outliers("interpolation", digits[0][0], 300)
    metric = FrechetInceptionDistance(feature=net)
    metric.update(real, real=True)
    metric.update(samples, real=False)
    assert frechet_distance(real, samples, net).value == pytest.approx(float(metric.compute()), rel=1e-4)


def test_the_floor_is_low_and_outliers_are_far_above_it(trained, digits):
    net, _ = trained
    real, held_out = digits[0][0], digits[1][0]
    report = frechet_distance(real, outliers("uniform", real, 1000), net, held_out=held_out)
    assert report.name == "frechet[digits-classifier]"
    assert (report.n, report.real) == (len(held_out), len(real))
    assert 0 < report.floor < 10 and report.value > 20 * report.floor
    assert frechet_distance(real, held_out, net, held_out=held_out).value == report.floor
    assert frechet_distance(real, held_out, net).floor is None
    assert frechet_distance(real, held_out, net, n=100).value > report.floor  # fewer images, a larger distance


def test_images_that_do_not_fit_are_refused(trained, digits):
    net, _ = trained
    real = digits[0][0]
    for bad, message in (
        (real[:100] * 2, "need \\[−1, 1\\]"),
        (real[:100] / 0 * 0, "NaN"),
        (real[:100].repeat(1, 3, 1, 1), "needs \\[N, 1, 8, 8\\]"),
        ((real[:100] * 127).byte(), "floating-point"),
        (real[:64], "need more than 64"),
    ):
        with pytest.raises(InputError, match=message):
            frechet_distance(real, bad, net)
    with pytest.raises(InputError, match="n = 500"):
        frechet_distance(real, real[:400], net, n=500)
    with pytest.raises(InputError, match="N, M > D"):
        frechet_from_features(torch.zeros(5, 8), torch.zeros(50, 8))


def test_training_data_that_do_not_fit_are_refused(digits):
    x, label = digits[0]
    for images, labels, message in (
        (x, label[:-1], "labels"),
        (x, None, "labels: got none"),
        (x, label.float(), "labels"),
        (x[:, 0], label, "N, C, H, W"),
        (x * 3, label, "−1, 1"),
    ):
        with pytest.raises(InputError, match=message):
            train_extractor(images, labels, config=QUICK)
    with pytest.raises(InputError, match="pair"):
        extractor(x)
    with pytest.raises(InputError, match="multiple of 8"):
        ExtractorConfig(width=12)
    with pytest.raises(InputError, match="batch is 0"):
        ExtractorConfig(batch=0)


def test_wilson_interval_solves_its_own_equation():
    for successes, n in ((7, 10), (0, 20), (20, 20), (9_990, 10_000)):
        found = wilson(successes, n)
        assert 0 <= found.low <= found.value <= found.high <= 1 and found.n == n
        for end in {found.low, found.high} - {0.0, 1.0}:  # |share − p| = z √(p (1 − p) / n) at both ends
            assert abs(found.value - end) == pytest.approx(1.959964 * math.sqrt(end * (1 - end) / n), rel=1e-5)
    assert wilson(0, 20).low == 0 and wilson(0, 20).high == pytest.approx(0.1611, abs=1e-4)
    with pytest.raises(InputError, match="3 of 2"):
        wilson(3, 2)


def test_accuracy_counts_in_batches():
    x, y = torch.eye(5).repeat(7, 1), torch.arange(5).repeat(7)
    y[:6] = (y[:6] + 1) % 5
    found = accuracy(lambda part: 3 * part, x, y, batch=4)
    assert found == wilson(29, 35)
    with pytest.raises(InputError, match="labels of shape"):
        accuracy(lambda part: part, x, y[:-1])
    with pytest.raises(InputError, match="NaN"):
        accuracy(lambda part: part * math.nan, x, y)


def test_an_untrained_extractor_has_no_accuracy():
    assert Extractor((1, 8, 8), 10).test_accuracy is None
