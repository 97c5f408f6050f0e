"""Measures on features [N, D], whatever network they come from: each gives (value, low, high) with a 95 % interval."""

import math
import warnings
from collections.abc import Iterator
from contextlib import contextmanager

import torch
from torch import Tensor, nn

from thalweg.errors import InputError, require
from thalweg.evaluate.accuracy import wilson
from thalweg.evaluate.statistics import FeatureStatistics
from thalweg.given import Numbers, takes

Interval = tuple[float, float | None, float | None]
BLOCK = 64  # MiB of distances at a time
_Z = 1.959963984540054


@takes
def frechet_from_features(real: Numbers | FeatureStatistics, fake: Numbers | FeatureStatistics) -> float:
    """|m₁ − m₂|² + tr(C₁ + C₂ − 2 (C₁C₂)^½) of two sets of features [N, D], N > D, with unbiased covariances, in float64.

    Either set may be given as its `FeatureStatistics`. Raises InputError on shapes that do not match, too few features, NaN
    or infinity, and on statistics of two different extractors or preprocessings.
    """
    shapes = [[f.count, f.num_features] if isinstance(f, FeatureStatistics) else list(f.shape) for f in (real, fake)]
    if any(len(s) != 2 for s in shapes) or shapes[0][1] != shapes[1][1] or min(s[0] for s in shapes) <= shapes[0][1]:
        raise InputError(f"features: got shapes {shapes[0]} and {shapes[1]}, need [N, D] and [M, D] with N, M > D")
    first, second = (f if isinstance(f, FeatureStatistics) else FeatureStatistics(f.shape[1]).update(f) for f in (real, fake))
    for field in ("extractor", "preprocessing"):
        one, other = getattr(first, field), getattr(second, field)
        if one is not None and other is not None and one != other:
            raise InputError(f"features: {field} '{one}' and '{other}', need the same for both")
    metric = require("torchmetrics.image.fid", "metrics").FrechetInceptionDistance(feature=_Identity(first.num_features))
    metric.set_dtype(torch.float64)
    metric.orig_dtype = torch.float64
    centre = first.mean  # the metric takes sums of squares: taking out a common mean keeps their digits
    for name, given in (("real", first), ("fake", second)):
        mean = given.mean - centre
        setattr(metric, f"{name}_features_sum", given.count * mean)
        setattr(metric, f"{name}_features_cov_sum", (given.count - 1) * given.covariance + given.count * torch.outer(mean, mean))
        setattr(metric, f"{name}_features_num_samples", torch.tensor(given.count))
    with _quiet("The ``compute`` method of metric"):
        return max(0.0, float(metric.compute()))


def frechet_interval(real: FeatureStatistics, fake: Tensor) -> Interval:
    """`frechet_from_features` with a 95 % interval over the drawing of the features `fake` [N, D], N > D.

    The error is that of the infinitesimal jackknife (Efron 1982): the deviation over the rows of the distance's derivative in
    the direction of each row, by √N. It is first-order, so about half too wide where the two sets are alike.
    """
    value = frechet_from_features(real, fake)
    own = FeatureStatistics(fake.shape[1]).update(fake)
    mean, offset = own.mean, own.mean - real.mean
    values, vectors = torch.linalg.eigh(real.covariance)
    root = (vectors * values.clamp_min(0).sqrt()) @ vectors.T
    values, vectors = torch.linalg.eigh(root @ own.covariance @ root)
    inverse = torch.where(values > values[-1] * len(values) * torch.finfo(values.dtype).eps, values.clamp_min(1e-300).rsqrt(), 0.0)
    # d/dC₂ of the trace term is 1 − C₁^½ (C₁^½ C₂ C₁^½)^−½ C₁^½
    slope = torch.eye(len(values), dtype=values.dtype) - root @ (vectors * inverse) @ vectors.T @ root
    influence = []
    for part in fake.split(4096):
        z = part.double() - mean
        influence.append(2 * z @ offset + ((z @ slope) * z).sum(1))
    error = float(torch.cat(influence).std()) / math.sqrt(len(fake))
    return value, max(0.0, value - _Z * error), value + _Z * error


def kernel_distance(real: Tensor, fake: Tensor, subsets: int = 100, subset_size: int = 1000, seed: int = 0) -> Interval:
    """Unbiased squared maximum mean discrepancy with the kernel (xᵀy/D + 1)³, by torchmetrics in float64 (Bińkowski et al. 2018).

    The mean over `subsets` random subsets of `subset_size` m of each set of features [N, D]. Subsets overlap, so their
    deviation s is turned into an error as the delete-d jackknife does: s √(m/(N − m) + 1/subsets), with the smaller N; no
    interval for m = N or one subset. Raises InputError where a set has fewer than m rows.
    """
    n = min(len(real), len(fake))
    if real.dim() != 2 or fake.dim() != 2 or real.shape[1] != fake.shape[1] or not 2 <= subset_size <= n:
        raise InputError(f"features: got shapes {list(real.shape)} and {list(fake.shape)}, need [N, D] with N ≥ {subset_size} ≥ 2")
    with _quiet("Metric `.*` will save all extracted features"), _drawing(seed):
        metric = require("torchmetrics.image.kid", "metrics").KernelInceptionDistance(
            feature=_Identity(real.shape[1]), subsets=subsets, subset_size=subset_size
        )
        metric.update(real.double(), real=True)
        metric.update(fake.double(), real=False)
        value, deviation = map(float, metric.compute())
    if subset_size == n or subsets == 1:
        return value, None, None
    error = deviation * math.sqrt(subset_size / (n - subset_size) + 1 / subsets)
    return value, value - _Z * error, value + _Z * error


def inception_score(logits: Tensor, splits: int = 10, seed: int = 0) -> Interval:
    """exp of the mean KL(p(y|x) ‖ p(y)) of class logits [N, classes], by torchmetrics in float64 (Salimans et al. 2016).

    The mean over `splits` random parts of equal size, and its interval from their deviation; none for one part. It grows
    with the size of a part, so compare at equal N and splits. Raises InputError below 2 rows for each part.
    """
    if logits.dim() != 2 or len(logits) < 2 * splits:
        raise InputError(f"logits: got shape {list(logits.shape)}, need [N, classes] with N ≥ {2 * splits} for {splits} splits")
    with _quiet("Metric `.*` will save all extracted features", r"std\(\): degrees of freedom"), _drawing(seed):
        metric = require("torchmetrics.image.inception", "metrics").InceptionScore(feature=_Identity(logits.shape[1]), splits=splits)
        metric.update(logits.double())
        value, deviation = map(float, metric.compute())
    if splits == 1:
        return value, None, None
    error = deviation / math.sqrt(splits)
    return value, max(1.0, value - _Z * error), value + _Z * error


def prdc(real: Tensor, fake: Tensor, k: int = 5) -> dict[str, Interval]:
    """Precision and recall (Kynkäänniemi et al. 2019), density and coverage (Naeem et al. 2020) of features [N, D], N > k.

    A ball around each feature reaches to its k-th nearest neighbour in its own set. Precision: share of `fake` in a ball of
    `real`; recall: of `real` in a ball of `fake`; density: mean number of real balls that hold a fake feature, by k;
    coverage: share of real balls that hold one. Fresh draws of the same distribution, N of each, give density 1 and coverage
    1 − ∏ⱼ (N − j)/(2N − j), j = 1 … k (about 1 − 2^−k). Shares have Wilson intervals, given the other set. Distances come
    from scikit-learn a block of rows at a time: memory grows with N, not with N².
    """
    if real.dim() != 2 or fake.dim() != 2 or real.shape[1] != fake.shape[1] or min(len(real), len(fake)) <= k or k < 1:
        raise InputError(f"features: got shapes {list(real.shape)} and {list(fake.shape)}, need [N, D] and [M, D] with N, M > k = {k} ≥ 1")
    import numpy as np

    distances = require("sklearn.metrics", "metrics").pairwise_distances_chunked
    x, y = real.double().numpy(), fake.double().numpy()

    def radii(points):  # the nearest of all is the point itself
        return np.concatenate(
            list(distances(points, reduce_func=lambda block, start: np.partition(block, k, axis=1)[:, k], working_memory=BLOCK))
        )

    real_radius, fake_radius = radii(x), radii(y)
    balls, recalled, covered = np.zeros(len(y), dtype=np.int64), 0, 0
    start = 0
    for block in distances(x, y, working_memory=BLOCK):
        inside = block < real_radius[start : start + len(block), None]
        balls += inside.sum(0)
        covered += int(inside.any(1).sum())
        recalled += int((block < fake_radius).any(1).sum())
        start += len(block)
    shares = {"precision": (int((balls > 0).sum()), len(y)), "recall": (recalled, len(x)), "coverage": (covered, len(x))}
    found: dict[str, Interval] = {}
    for name, (hits, total) in shares.items():
        share = wilson(hits, total)
        found[name] = share.value, share.low, share.high
    density, error = float(balls.mean()) / k, float(balls.std(ddof=1)) / k / math.sqrt(len(y))
    return found | {"density": (density, max(0.0, density - _Z * error), density + _Z * error)}


class _Identity(nn.Identity):
    """Lets torchmetrics' metrics take features for images: they then neither rescale nor round them."""

    def __init__(self, num_features: int):
        super().__init__()
        self.num_features = num_features


@contextmanager
def _drawing(seed: int) -> Iterator[None]:
    """torchmetrics draws from the global generator: seed it for the block and leave it as it was."""
    with torch.random.fork_rng(devices=[]):
        torch.default_generator.manual_seed(seed)
        yield


@contextmanager
def _quiet(*messages: str) -> Iterator[None]:
    with warnings.catch_warnings():
        for message in messages:
            warnings.filterwarnings("ignore", message=message)
        yield
