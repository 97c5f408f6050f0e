"""The extractor, the measures of fidelity and accuracies against closed forms and references."""

import math

import numpy as np
import pytest
import scipy.linalg
import scipy.special
import scipy.stats
import torch
from prdc import compute_prdc
from sklearn.metrics.pairwise import polynomial_kernel
from torch import nn
from torchmetrics.image.fid import FrechetInceptionDistance

from thalweg.data import Batch, load
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
from thalweg.evaluate import features as measures
from thalweg.evaluate.extractor import shifted
from thalweg.evaluate.features import frechet_interval, inception_score, kernel_distance, prdc
from thalweg.evaluate.fidelity import fidelity
from thalweg.evaluate.statistics import FeatureStatistics, reference_statistics
from thalweg.random import normal, seeded, uniform

QUICK = ExtractorConfig(images=1024, width=8)
FROZEN_FRECHET, FROZEN_KID, FROZEN_IS = 0.86288434, 3.3035551, 2.9968407
FROZEN_PRDC = {"precision": 0.835, "recall": 0.9933333333333333, "coverage": 0.7366666666666667, "density": 0.6519999999999999}


@pytest.fixture(autouse=True)
def cache(tmp_path, monkeypatch):
    monkeypatch.setenv("THALWEG_CACHE", str(tmp_path / "cache"))
    return tmp_path / "cache"


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
        ((real[:100] * 127).short(), "floating-point"),
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


class Pixels(nn.Module):
    """An extractor without classes whose features are the pixels; counts the images that pass through it."""

    name, num_features, preprocessing = "pixels", 4, "none"

    def __init__(self, scale=1.0):
        super().__init__()
        self.scale, self.seen, self.largest = nn.Parameter(torch.tensor(scale)), 0, 0

    def features(self, images, *, batch=512):
        self.seen, self.largest = self.seen + len(images), max(self.largest, len(images))
        return self.scale.detach() * images.flatten(1)


def test_streaming_gives_what_all_at_once_gives():
    x = uniform(1000, 1, 2, 2, low=-1, high=1, generator=seeded(1))
    whole = FeatureStatistics.of(x, Pixels())
    points = x.flatten(1).double().numpy()
    np.testing.assert_allclose(whole.mean, points.mean(0), rtol=0, atol=1e-12)
    np.testing.assert_allclose(whole.covariance, np.cov(points.T), rtol=1e-10)
    net = Pixels()
    streamed = FeatureStatistics.of((Batch(part) for part in x.split(37)), net, batch=16)
    assert (streamed.count, streamed.data, net.seen, net.largest) == (1000, whole.data, 1000, 37)
    assert frechet_from_features(whole, streamed) < 1e-10
    other = uniform(500, 1, 2, 2, low=-1, high=0.5, generator=seeded(2)).flatten(1)
    assert frechet_from_features(streamed, other) == pytest.approx(frechet_from_features(x.flatten(1), other), rel=1e-9)
    far = FeatureStatistics(4)
    for part in (x.flatten(1).double() + 1e6).split(100):
        far.update(part)
    np.testing.assert_allclose(far.covariance, whole.covariance, rtol=0, atol=1e-9)


def test_statistics_come_back_from_their_file_and_damage_is_noticed(tmp_path):
    x = uniform(50, 1, 2, 2, low=-1, high=1, generator=seeded(1))
    path = tmp_path / "folder" / "a.safetensors"
    kept = FeatureStatistics.of(x, Pixels())
    kept.save(path)
    back = FeatureStatistics.load(path)
    assert (back.count, back.extractor, back.preprocessing, back.data) == (50, "pixels", "none", kept.data)
    assert torch.equal(back.mean, kept.mean) and torch.equal(back.covariance, kept.covariance)
    content = path.read_bytes()
    for damaged in (content[:-20], content[:-5] + bytes([content[-5] ^ 1]) + content[-4:], content.replace(b'"50"', b'"51"'), b"", b"text"):
        path.write_bytes(damaged)
        with pytest.raises(InputError, match="damaged"):
            FeatureStatistics.load(path)
    with pytest.raises(InputError, match="no file"):
        FeatureStatistics.load(tmp_path / "b.safetensors")


def test_reference_statistics_are_computed_once_for_the_same_images_and_weights(cache, monkeypatch, capsys):
    x = uniform(50, 1, 2, 2, low=-1, high=1, generator=seeded(1))

    def seen(images, scale=1.0, **options):
        net = Pixels(scale)
        assert reference_statistics(images, net, **options).count == 50
        return net.seen

    assert [seen(x), seen(x), seen(x, cache=False)] == [50, 0, 50]
    assert [seen(x.flip(0)), seen(x, scale=2.0), seen(x, scale=2.0)] == [50, 50, 0]  # other data, other weights
    assert [seen(x.split(7)), seen(x.split(7))] == [50, 50]  # a stream cannot be looked up before it is read
    assert [seen(x.split(7), key="a"), seen(x.split(9), key="a"), seen(x.split(9), key="b")] == [50, 0, 50]
    for file in cache.iterdir():
        file.write_bytes(file.read_bytes()[:300])
    assert [seen(x), seen(x)] == [50, 0]
    monkeypatch.setenv("THALWEG_CACHE", str(next(cache.iterdir())))  # a file
    assert [seen(x), seen(x)] == [50, 50]  # a by-product that cannot be kept costs no figures
    said = capsys.readouterr().err
    assert "cannot write" in said and "set THALWEG_CACHE to a folder that can be written; going on without a cache" in said


def test_the_interval_of_the_frechet_distance_is_as_wide_as_the_spread_of_fresh_samples():
    truth = FeatureStatistics(6).update(normal(20_000, 6, generator=seeded(0)))
    found = [frechet_interval(truth, 1.2 * normal(150, 6, generator=seeded(1, i)) + 0.3) for i in range(120)]
    values, low, high = torch.tensor(found).T
    width = float((high - low).mean()) / (2 * 1.959964)
    assert width == pytest.approx(float(values.std()), rel=0.2)  # the deviation of 120 values is known to 6.5 %
    assert frechet_interval(truth, 1.2 * normal(150, 6, generator=seeded(1, 0)) + 0.3)[0] == pytest.approx(FROZEN_FRECHET, rel=1e-4)


def test_kernel_distance_is_that_of_scikit_learns_kernel():
    real, fake = normal(90, 5, generator=seeded(3)).double(), 1.5 * normal(90, 5, generator=seeded(4)).double() + 0.5
    xx, yy, xy = (polynomial_kernel(a, b, degree=3, gamma=1 / 5, coef0=1) for a, b in ((real, real), (fake, fake), (real, fake)))
    expected = sum(k.sum() - np.trace(k) for k in (xx, yy)) / (90 * 89) - 2 * xy.mean()
    assert kernel_distance(real, fake, subsets=1, subset_size=90) == (pytest.approx(expected, rel=1e-9), None, None)
    state = torch.get_rng_state()
    value, low, high = kernel_distance(real.float(), fake.float(), subsets=50, subset_size=45, seed=1)
    assert torch.equal(state, torch.get_rng_state())
    assert value == pytest.approx(FROZEN_KID, rel=1e-4) and low < expected < high
    assert kernel_distance(real, fake, 50, 45, seed=2)[0] != pytest.approx(value, rel=1e-6)


def test_the_interval_of_the_kernel_distance_is_as_wide_as_the_spread_of_fresh_samples():
    draws = [(normal(100, 4, generator=seeded(5, i)), normal(100, 4, generator=seeded(6, i)) + 1) for i in range(120)]
    values, low, high = torch.tensor([kernel_distance(real, fake, 40, 50) for real, fake in draws]).T
    assert float((high - low).mean()) / (2 * 1.959964) == pytest.approx(float(values.std()), rel=0.2)


def test_inception_score_is_the_exponential_of_the_mean_divergence():
    logits = 3 * normal(300, 7, generator=seeded(8)).double()
    p = scipy.special.softmax(logits.numpy(), axis=1)
    expected = math.exp(np.mean([scipy.stats.entropy(row, p.mean(0)) for row in p]))
    assert inception_score(logits, splits=1) == (pytest.approx(expected, rel=1e-9), None, None)
    value, low, high = inception_score(logits.float(), splits=10)
    assert value == pytest.approx(FROZEN_IS, rel=1e-4) and low < value < high
    assert inception_score(torch.zeros(40, 5), splits=2) == pytest.approx((1, 1, 1))
    assert inception_score(100 * torch.eye(5).repeat(30, 1), splits=1)[0] == pytest.approx(5)


@pytest.mark.parametrize("block", [64, 0.05])
def test_precision_recall_density_and_coverage_are_those_of_their_authors(block, monkeypatch, capsys):
    monkeypatch.setattr(measures, "BLOCK", block)  # MiB: many blocks of rows must give what one gives
    real, fake = normal(300, 4, generator=seeded(9)), 1.3 * normal(200, 4, generator=seeded(10)) + 0.5
    expected = compute_prdc(real.double().numpy(), fake.double().numpy(), 5)
    found = prdc(real, fake, 5)
    assert {name: value for name, (value, _, _) in found.items()} == pytest.approx(expected, rel=1e-9)
    assert {name: value for name, (value, _, _) in found.items()} == pytest.approx(FROZEN_PRDC, rel=1e-4)
    assert all(low < value < high for value, low, high in found.values())
    assert capsys.readouterr().out.count("Num real") == 1  # that of the reference; ours prints nothing


def test_density_and_coverage_of_fresh_draws_have_the_values_that_theory_gives():
    pairs = [(normal(100, 3, generator=seeded(11, i)), normal(100, 3, generator=seeded(12, i))) for i in range(40)]
    found = [prdc(real, fake, 5) for real, fake in pairs]
    coverage = 1 - math.prod((100 - j) / (200 - j) for j in range(1, 6))
    for name, expected in (("density", 1.0), ("coverage", coverage)):
        values = torch.tensor([f[name][0] for f in found])
        assert float(values.mean()) == pytest.approx(expected, abs=4 * float(values.std()) / 40**0.5)


@pytest.fixture(scope="module")
def thirds(digits):
    """Three random sets of 400 training digits, alike but for chance."""
    x = digits[0][0]
    return x[torch.randperm(len(x), generator=seeded(2))[:1200]].chunk(3)


def test_the_report_of_alike_images_shows_no_difference(trained, thirds):
    net, _ = trained
    state = torch.get_rng_state()
    found = fidelity(thirds[0], thirds[1], net, held_out=thirds[2])
    assert torch.equal(state, torch.get_rng_state())
    assert found == fidelity(thirds[0], thirds[1], net, held_out=thirds[2])
    assert (found.n, found.real, found.compared, found.subset_size, found.splits, found.k) == (400, 400, 400, 200, 10, 5)
    assert (found.extractor, found.preprocessing) == ("digits-classifier", net.preprocessing)
    assert found.preprocessing == "as they are: 8×8 pixels, 1 channel, in [−1, 1]"
    assert found.frechet.name == "frechet[digits-classifier]" and found.kid.name == "kid[digits-classifier]"
    for name in ("frechet", "kid", "inception_score", "precision", "recall", "density", "coverage"):
        figure = getattr(found, name)
        assert figure.low <= figure.value <= figure.high
        error = (figure.high - figure.low) / (2 * 1.96)
        assert abs(figure.value - figure.held_out) < 4 * 2**0.5 * error, name
    assert abs(found.kid.value) < 4 * (found.kid.high - found.kid.low) / (2 * 1.96)
    assert abs(found.coverage.value - 0.97) < 4 * (found.coverage.high - found.coverage.low) / (2 * 1.96)
    report = frechet_distance(thirds[0], thirds[1], net, held_out=thirds[2])
    assert (report.value, report.floor, report.low) == (found.frechet.value, found.frechet.held_out, found.frechet.low)
    assert (report.reference, report.preprocessing) == (found.reference, found.preprocessing) and len(report.reference) == 16


def test_training_images_against_themselves(trained, digits):
    x = digits[0][0]
    found = fidelity(x, x, trained[0], metrics=("frechet", "prdc"))
    assert found.frechet.value < 1e-6 and found.kid is None and found.subsets is None
    assert found.precision.value == found.recall.value == found.coverage.value == 1
    assert found.density.value == pytest.approx(1, abs=0.01)


def test_noise_makes_every_figure_worse(trained, digits):
    net, (x, _), (held_out, _) = trained[0], *digits
    noise = normal(*held_out.shape, generator=seeded(1))
    found = [fidelity(x, (held_out + level * noise).clamp(-1, 1), net, subsets=20) for level in (0, 0.2, 0.4, 0.6, 0.8)]
    for name, sign in (("frechet", 1), ("kid", 1), ("precision", -1), ("density", -1), ("coverage", -1), ("inception_score", -1)):
        values = [sign * getattr(f, name).value for f in found]
        assert values == sorted(values) and values[-1] > values[0], name
    assert found[-1].frechet.low > found[0].frechet.high and found[-1].coverage.high < found[0].coverage.low


def test_too_few_images_and_wrong_requests_for_a_report_are_refused(trained, digits):
    net, x = trained[0], digits[0][0]
    few = uniform(30, 1, 2, 2, low=-1, high=1, generator=seeded(0))
    for arguments, options, message in (
        ((x, x[:64], net), {}, "frechet: got 64 images, need 65 or more \\(more than its 64 features\\); use more images or leave"),
        ((x[:64], x, net), {}, "frechet: got 64 images"),
        ((x, x[:100], net), {"subset_size": 101}, "kid: got 100 images, need 101"),
        ((x, x[:100], net), {"splits": 51}, "inception_score: got 100 images, need 102"),
        ((x, x[:100], net), {"k": 100}, "prdc: got 100 images, need 101"),
        ((x, x[:100], net), {"k": 0}, "k 0; need"),
        ((x, x[:100], net), {"n": 101}, "n = 101 with"),
        ((x, x[:100], net), {"metrics": ["fretchet"]}, "did you mean 'frechet'"),
        ((few, few, Pixels()), {"metrics": "inception_score"}, "'pixels' has no classes"),
        ((x, x[:100] * 2, net), {}, "need \\[−1, 1\\]"),
        ((x, x[:100] / 0 * 0, net), {}, "NaN"),
        ((x, x[:100].expand(-1, 3, -1, -1), net), {}, "needs \\[N, 1, 8, 8\\]"),
        ((few, few, Pixels(math.nan)), {}, "features of 'pixels': shape \\[30, 4\\], NaN"),
    ):
        with pytest.raises(InputError, match=message):
            fidelity(*arguments, **options)
    assert fidelity(few, few, Pixels(), cache=False).inception_score is None


def test_features_that_cannot_be_compared_are_refused(monkeypatch):
    good = normal(20, 3, generator=seeded(0))
    for call, message in (
        (lambda: frechet_from_features(good, normal(20, 4)), "N, M > D"),
        (lambda: frechet_from_features(good, good * math.inf), "NaN or infinity"),
        (lambda: FeatureStatistics(3).mean, "no features yet"),
        (lambda: FeatureStatistics(3).update(good[:1]).covariance, "1 features, need 2"),
        (lambda: FeatureStatistics(4).update(good), "need \\[N, 4\\]"),
        (lambda: FeatureStatistics.of([], Pixels()), "no images"),
        (lambda: kernel_distance(good, good, subset_size=21), "N ≥ 21"),
        (lambda: inception_score(good, splits=11), "N ≥ 22"),
        (lambda: prdc(good, good[:5], k=5), "N, M > k = 5"),
    ):
        with pytest.raises(InputError, match=message):
            call()
    named = [FeatureStatistics(3, extractor=name).update(good) for name in ("a", "b")]
    with pytest.raises(InputError, match="extractor 'a' and 'b'"):
        frechet_from_features(*named)
    monkeypatch.setitem(__import__("sys").modules, "torchmetrics.image.fid", None)
    with pytest.raises(InputError, match="thalweg\\[metrics\\]"):
        frechet_from_features(good, good)


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
