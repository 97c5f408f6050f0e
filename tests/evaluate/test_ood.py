"""Detection figures against scikit-learn and values by hand; the synthetic outliers."""

import math

import numpy as np
import pytest
import torch
from sklearn.metrics import average_precision_score, roc_auc_score

from thalweg.errors import InputError
from thalweg.evaluate import ood, outliers
from thalweg.evaluate.ood import OUTLIERS, _from_counts
from thalweg.random import normal, seeded, uniform


def test_figures_by_hand():
    # Of the 4 × 3 pairs the outlier 2 wins one and ties one, the outliers 5 and 6 win all four each.
    report = ood(torch.tensor([1.0, 2.0, 3.0, 4.0]), torch.tensor([2.0, 5.0, 6.0]), bootstrap=20)
    assert report.auroc == pytest.approx((1.5 + 4 + 4) / 12)
    assert report.aupr == pytest.approx((1 + 1 + 3 / 6) / 3)  # precision at 6, at 5, and at 2 where 3 of 6 are outliers
    assert report.fpr95 == pytest.approx(1 / 3)  # all four inliers are needed for 95 %: threshold 4, one outlier below
    assert (report.inliers, report.outliers) == (4, 3)


def test_the_threshold_accepts_95_percent_and_no_more_than_needed():
    inlier = torch.arange(20.0)  # 19 of 20 lie at or below 18
    assert ood(inlier, torch.tensor([18.0, 18.5, 19.0, 30.0]), bootstrap=20).fpr95 == 0.25


def test_perfect_and_useless_scores():
    low, high = torch.arange(50.0), torch.arange(50.0) + 100
    perfect = ood(low, high, bootstrap=50)
    assert (perfect.auroc, perfect.aupr, perfect.fpr95) == (1.0, 1.0, 0.0)
    assert perfect.auroc_interval == (1.0, 1.0)
    wrong = ood(high, low, bootstrap=50)
    assert (wrong.auroc, wrong.fpr95) == (0.0, 1.0)
    equal = ood(torch.zeros(50), torch.zeros(150), bootstrap=50)
    assert (equal.auroc, equal.aupr, equal.fpr95) == (0.5, 0.75, 1.0)


@pytest.mark.parametrize("decimals", [0, 1, 6])
def test_counts_give_what_scikit_learn_gives_also_with_ties_and_weights(decimals):
    random = np.random.default_rng(0)
    scores = np.concatenate([random.normal(0, 1, 300), random.normal(1, 2, 200)]).round(decimals)
    positive = np.repeat([0, 1], [300, 200])
    weights = random.integers(0, 4, 500)  # a resample: how often each score was drawn
    values, ranks = np.unique(scores, return_inverse=True)
    counts = [np.bincount(ranks[positive == k], weights[positive == k], len(values)).astype(int) for k in (0, 1)]
    auroc, aupr, _ = _from_counts(*counts)
    assert auroc == pytest.approx(roc_auc_score(positive, scores, sample_weight=weights), abs=1e-12)
    assert aupr == pytest.approx(average_precision_score(positive, scores, sample_weight=weights), abs=1e-12)


def test_perfect_detection_is_exactly_1():
    # the sums of scikit-learn come to 0.9999999999999999 for some of these
    for seed in range(100):
        report = ood(normal(359, generator=seeded(seed)), 12 + normal(359, generator=seeded(seed, 1)), bootstrap=20)
        assert (report.auroc, report.auroc_interval) == (1.0, (1.0, 1.0))


def test_intervals_cover_the_true_value():
    expected = 0.5 * (1 + math.erf(1 / 2))  # AUROC of N(0, 1) against N(1, 1): Φ(1/√2)
    fpr95 = 0.5 * (1 + math.erf((1.6448536 - 1) / math.sqrt(2)))
    covered = [0, 0]
    for seed in range(60):
        g = seeded(7, seed)
        report = ood(normal(200, generator=g), 1 + normal(200, generator=g), bootstrap=200, seed=seed)
        covered[0] += report.auroc_interval[0] <= expected <= report.auroc_interval[1]
        covered[1] += report.fpr95_interval[0] <= fpr95 <= report.fpr95_interval[1]
        assert report.auroc_interval[0] <= report.auroc <= report.auroc_interval[1]
    assert covered[0] >= 50 and covered[1] >= 48


def test_the_same_seed_gives_the_same_interval():
    g = seeded(1)
    inlier, outlier = normal(100, generator=g), 1 + normal(80, generator=g)
    assert ood(inlier, outlier, bootstrap=100, seed=3) == ood(inlier, outlier, bootstrap=100, seed=3)
    assert ood(inlier, outlier, bootstrap=100, seed=3) != ood(inlier, outlier, bootstrap=100, seed=4)


def test_scores_that_cannot_be_ranked_are_refused():
    good = torch.arange(5.0)
    for bad, message in (
        (torch.tensor([1.0, math.nan]), "NaN"),
        (torch.tensor([1.0, math.inf]), "infinite"),
        (good[:, None], "need \\[N\\]"),
    ):
        with pytest.raises(InputError, match=message):
            ood(good, bad)
        with pytest.raises(InputError, match=message):
            ood(bad, good)
    with pytest.raises(InputError, match="bootstrap"):
        ood(good, good, bootstrap=1)


@pytest.mark.parametrize("kind", sorted(OUTLIERS))
@pytest.mark.parametrize("shape", [(40, 1, 8, 8), (40, 3, 12, 10)])
def test_outliers_keep_shape_range_and_seed(kind, shape):
    like = uniform(*shape, low=-1, high=1, generator=seeded(0))
    made = outliers(kind, like, 30, seed=1)
    assert made.shape == (30, *shape[1:]) and made.dtype == like.dtype
    assert float(made.min()) >= -1 and float(made.max()) <= 1
    assert torch.equal(made, outliers(kind, like, 30, seed=1))
    assert not torch.equal(made, outliers(kind, like, 30, seed=2))


def test_each_kind_of_outlier_is_what_it_says():
    like = uniform(40, 3, 6, 6, low=-1, high=1, generator=seeded(0))
    constant = outliers("constant", like, 10)
    assert torch.equal(constant, constant[:, :, :1, :1].expand_as(constant))
    assert len(constant[:, 0, 0, 0].unique()) == 10
    means = (like[:, None] + like[None]) / 2
    for image in outliers("interpolation", like, 10):
        first, second = ((means - image).abs().amax((2, 3, 4)) == 0).nonzero()[0].tolist()
        assert first != second
    for image in outliers("shuffled", like, 10):
        pixels = sorted(map(tuple, image.flatten(1).T.tolist()))  # whole pixels move: their colours stay together
        assert any(pixels == sorted(map(tuple, other.flatten(1).T.tolist())) for other in like)
    noise = outliers("noise", like * 0.2 + 0.3, 500)
    assert float(noise.mean()) == pytest.approx(float((like * 0.2 + 0.3).mean()), abs=0.01)
    assert float(outliers("uniform", like, 500).var()) == pytest.approx(1 / 3, rel=0.05)


def test_wrong_requests_for_outliers_are_refused():
    like = torch.zeros(4, 1, 8, 8)
    with pytest.raises(InputError, match="did you mean 'uniform'"):
        outliers("unifrom", like, 3)
    with pytest.raises(InputError, match="N, C, H, W"):
        outliers("uniform", like[0], 3)
    with pytest.raises(InputError, match="n: got 0"):
        outliers("uniform", like, 0)
