"""Probes of latents against independent solvers and NumPy, their layout in the plane, and its picture."""

import math

import matplotlib.image
import numpy as np
import pytest
import torch
from sklearn.linear_model import LogisticRegression
from sklearn.manifold import TSNE, trustworthiness

from thalweg import plot
from thalweg.errors import InputError
from thalweg.evaluate.accuracy import wilson
from thalweg.evaluate.latents import knn, linear_probe, tsne
from thalweg.plot import style
from thalweg.random import integers, normal, seeded


def clusters(n, seed=0, classes=4, spread=2.5, dimensions=6):
    """Latents around one centre a class, in units that differ a thousandfold between dimensions."""
    centres = 2 * normal(classes, dimensions, generator=seeded(99))
    labels = integers(n, 0, classes, generator=seeded(seed))
    unit = 10.0 ** torch.linspace(-1.5, 1.5, dimensions)
    return (centres[labels] + spread * normal(n, dimensions, generator=seeded(seed, 1))) * unit + 3, labels


TRAIN, TEST = clusters(300), clusters(500, seed=1)


def softmax_regression(x, y, test, inverse_penalty):
    """Labels by the minimum of inverse_penalty Σ cross-entropy + ‖W‖²/2 on standardised latents, by Newton-like steps of PyTorch."""
    mean, std = x.double().mean(0), x.double().std(0, correction=0)
    x, test = (x.double() - mean) / std, (test.double() - mean) / std
    weight = torch.zeros(int(y.max()) + 1, x.shape[1], dtype=torch.float64, requires_grad=True)
    bias = torch.zeros(int(y.max()) + 1, dtype=torch.float64, requires_grad=True)
    solver = torch.optim.LBFGS([weight, bias], max_iter=2000, tolerance_grad=1e-10, tolerance_change=1e-14, line_search_fn="strong_wolfe")

    def loss():
        solver.zero_grad()
        value = torch.nn.functional.cross_entropy(x @ weight.T + bias, y, reduction="sum") * inverse_penalty + weight.square().sum() / 2
        value.backward()
        return value

    solver.step(loss)
    return [(part @ weight.T + bias).argmax(1) for part in (test, x)]


@pytest.mark.parametrize("inverse_penalty", [1.0, 0.001])
def test_the_linear_probe_is_softmax_regression(inverse_penalty):
    found = linear_probe(*TRAIN, *TEST, inverse_penalty=inverse_penalty)
    test, train = softmax_regression(*TRAIN, TEST[0], inverse_penalty)
    assert found.accuracy == wilson(int((test == TEST[1]).sum()), 500)
    assert found.train_accuracy == pytest.approx(float((train == TRAIN[1]).double().mean()))
    assert 0.5 < found.accuracy.value < 0.99 and found.converged
    assert (found.classes, found.dimensions, found.train, found.inverse_penalty) == (4, 6, 300, inverse_penalty)
    commonest = int(torch.bincount(TRAIN[1]).argmax())
    assert found.chance == pytest.approx(float((TEST[1] == commonest).double().mean()))


def test_the_linear_probe_is_that_of_scikit_learn():
    mean, std = TRAIN[0].double().mean(0), TRAIN[0].double().std(0, correction=0)
    x, test = ((z.double() - mean) / std for z in (TRAIN[0], TEST[0]))
    model = LogisticRegression(max_iter=2000).fit(x.numpy(), TRAIN[1].numpy())
    assert linear_probe(*TRAIN, *TEST).accuracy.value == pytest.approx(model.score(test.numpy(), TEST[1].numpy()), rel=1e-12)


def test_a_ring_is_beyond_a_linear_probe_and_not_beyond_neighbours():
    z = normal(600, 2, generator=seeded(4))
    y = (z.norm(dim=1) > 1.1774).long()  # the median radius
    parts = z[:300], y[:300], z[300:], y[300:]
    assert linear_probe(*parts).accuracy.high < 0.7
    assert knn(*parts).accuracy.low > 0.85


def test_a_probe_that_has_no_time_says_so(monkeypatch):
    monkeypatch.setattr("thalweg.evaluate.latents.ITERATIONS", 2)
    assert not linear_probe(*TRAIN, *TEST).converged


@pytest.mark.parametrize(
    "k, metric, standardise", [(1, "euclidean", False), (5, "euclidean", True), (20, "cosine", False), (300, "cosine", True)]
)
def test_neighbours_are_those_of_numpy(k, metric, standardise):
    (x, y), (test, truth) = ((z.double().numpy(), labels.numpy()) for z, labels in (TRAIN, TEST))
    if standardise:
        test, x = (test - x.mean(0)) / x.std(0), (x - x.mean(0)) / x.std(0)
    if metric == "cosine":
        x, test = (part / np.linalg.norm(part, axis=1, keepdims=True) for part in (x, test))
    distance = np.linalg.norm(test[:, None] - x[None], axis=2)
    votes = y[np.argsort(distance, axis=1)[:, :k]]
    elected = np.array([np.bincount(row).argmax() for row in votes])
    found = knn(*TRAIN, *TEST, k=k, metric=metric, standardise=standardise)
    assert found.accuracy == wilson(int((elected == truth).sum()), 500)
    assert (found.k, found.metric, found.classes, found.dimensions, found.train) == (k, metric, 4, 6, 300)


def test_frozen_numbers():
    t = torch.arange(200.0)
    z = torch.stack([(0.7 * t).sin(), (1.3 * t).cos()], 1)
    y = (z[:, 0] + z[:, 1].square() + 0.3 * (5.1 * t).sin() > 0.4).long()
    probe, nearest = linear_probe(z[:80], y[:80], z[80:], y[80:]), knn(z[:80], y[:80], z[80:], y[80:], k=3)
    assert probe.accuracy.value * 120 == pytest.approx(104) and nearest.accuracy.value * 120 == pytest.approx(110)


def test_labels_need_not_be_counted_from_0_and_latents_may_be_feature_maps():
    z = TRAIN[0].view(300, 2, 3, 1)
    for probe in (linear_probe, knn):
        assert probe(z, TRAIN[1] * 5 + 2, TEST[0], TEST[1] * 5 + 2) == probe(*TRAIN, *TEST)


Z, Y = torch.arange(12.0).view(6, 2), torch.tensor([0, 1, 0, 1, 0, 1])


@pytest.mark.parametrize(
    "values, message",
    [
        ((Z, Y[:5], Z, Y), r"train_y: got torch.int64 \[5\], need whole numbers \[6\]"),
        ((Z, Y, Z[:4], Y), r"test_y: got torch.int64 \[6\], need whole numbers \[4\]"),
        ((Z, Y.float(), Z, Y), "train_y: got torch.float32"),
        ((Z * math.nan, Y, Z, Y), "train_z: 6 of 6 latents hold NaN"),
        ((Z, Y, Z / 0, Y), "test_z: 6 of 6 latents hold NaN or infinity"),
        ((Z, Y * 0 + 3, Z, Y), "train_y: all 6 labels are 3, need two classes"),
        ((Z, Y, Z, Y + 1), r"test_y: the labels \[2\] are not in train_y"),
        ((Z, Y, Z[:, :1], Y), "test_z: 1 values a latent, but train_z has 2"),
        ((Z[:, 0], Y, Z, Y), r"train_z: got torch.float32 \[6\], need floating-point latents \[N, D\]"),
        ((Z.long(), Y, Z, Y), "train_z: got torch.int64"),
        ((Z, Y, Z[:0], Y[:0]), "test_z: got .* N ≥ 1"),
    ],
)
@pytest.mark.parametrize("probe", [linear_probe, knn])
def test_latents_that_cannot_be_probed_are_refused(probe, values, message):
    with pytest.raises(InputError, match=message):
        probe(*values)


def test_options_out_of_range_are_refused():
    for k in (0, 7, 2.0):
        with pytest.raises(InputError, match="from 1 to 6"):
            knn(Z, Y, Z, Y, k=k)
    with pytest.raises(InputError, match="need euclidean or cosine"):
        knn(Z, Y, Z, Y, metric="hamming")
    for value in (0.0, math.nan):
        with pytest.raises(InputError, match="inverse_penalty"):
            linear_probe(Z, Y, Z, Y, inverse_penalty=value)


# t-SNE and its picture


@pytest.fixture(scope="module")
def layout():
    z, labels = clusters(200, seed=3, spread=0.3)
    z = z / z.std(0)
    return z, labels, tsne(z, seed=5)


def test_the_layout_is_that_of_scikit_learn_and_keeps_neighbours(layout):
    z, labels, points = layout
    expected = TSNE(2, perplexity=30.0, init="pca", random_state=5).fit_transform(z.double().numpy())
    assert points.shape == (200, 2) and points.dtype == torch.float32
    assert np.abs(points.numpy() - expected).max() < 1e-4 * np.abs(expected).max()
    assert trustworthiness(z.numpy(), points.numpy(), n_neighbors=10) > 0.9
    assert knn(points[:100], labels[:100], points[100:], labels[100:]).accuracy.value > 0.98


def test_the_seed_sets_the_layout_and_the_global_generators_stay():
    z = normal(40, 1, generator=seeded(0))  # one dimension starts from random points
    torch_state, numpy_state = torch.get_rng_state(), np.random.get_state()[1].copy()
    first, again, other = (tsne(z, perplexity=5, seed=seed) for seed in (1, 1, 2))
    assert torch.equal(first, again) and not torch.equal(first, other)
    assert torch.equal(torch_state, torch.get_rng_state()) and (numpy_state == np.random.get_state()[1]).all()


@pytest.mark.parametrize(
    "z, options, message",
    [
        (Z, {"perplexity": 30}, "perplexity: got 30 for 6 latents"),
        (Z, {"perplexity": 0.5}, "at least 1"),
        (Z * 0, {"perplexity": 2}, "all latents are equal"),
        (Z * math.nan, {"perplexity": 2}, "z: 6 of 6 latents hold NaN"),
        (Z[:1], {"perplexity": 2}, "N ≥ 2"),
    ],
)
def test_what_cannot_be_laid_out_is_refused(z, options, message):
    with pytest.raises(InputError, match=message):
        tsne(z, **options)


def shown(path):
    return (matplotlib.image.imread(path)[:, :, :3] * 255).round().astype(int)


def test_the_picture_has_a_colour_for_each_class(tmp_path):
    points = torch.tensor([[0.0, 0.0], [1.0, 0.0], [0.0, 1.0], [1.0, 1.0]]).repeat(50, 1) + 0.05 * normal(200, 2, generator=seeded(0))
    labels = torch.tensor([0, 1, 2, 9]).repeat(50)
    page = shown(plot.embedding(points, tmp_path / "deep" / "a.png", labels=labels, classes=[f"class {k}" for k in range(10)], title="t"))
    assert page.shape == (round(5.2 * style.DPI), round(6.4 * style.DPI), 3) and not list((tmp_path / "deep").glob(".*"))
    for kind, colour in enumerate(style.MANY_COLOURS):
        exact = (page == [int(colour[i : i + 2], 16) for i in (1, 3, 5)]).all(-1).sum()  # at least the legend's dots are opaque
        assert (exact > 10) == (kind in (0, 1, 2, 9)), colour
    plain = shown(plot.embedding(points, tmp_path / "b.png"))
    reddish = (plain[:, :, 0] > plain[:, :, 2] + 60).sum()
    assert reddish == 0 and (plain[:, :, 2] > plain[:, :, 0] + 60).sum() > 500
    many = shown(plot.embedding(points, tmp_path / "c.png", labels=torch.arange(200)))
    assert len(np.unique(many.reshape(-1, 3), axis=0)) > 150  # dots and a bar of many colours


@pytest.mark.parametrize(
    "points, options, message",
    [
        (torch.zeros(4, 3), {}, r"need \[N, 2\]"),
        (torch.full((4, 2), math.nan), {}, "points: NaN or infinity"),
        (torch.zeros(4, 2), {"labels": torch.zeros(3, dtype=torch.int64)}, r"labels: got torch.int64 \[3\]"),
        (torch.zeros(4, 2), {"labels": torch.zeros(4)}, "labels: got torch.float32"),
        (torch.zeros(4, 2), {"labels": torch.tensor([0, 1, -1, 2])}, "whole numbers from 0"),
        (torch.zeros(4, 2), {"labels": torch.tensor([0, 1, 1, 2]), "classes": ["a", "b"]}, "classes: got 2 names, need 3"),
    ],
)
def test_what_cannot_be_drawn_is_refused(tmp_path, points, options, message):
    with pytest.raises(InputError, match=message):
        plot.embedding(points, tmp_path / "a.png", **options)
    assert not list(tmp_path.iterdir())


def test_a_map_of_few_latents():
    assert tsne(torch.randn(7, 4, generator=torch.Generator().manual_seed(0))).shape == (7, 2)
