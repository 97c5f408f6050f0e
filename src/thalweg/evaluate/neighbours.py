"""The training images nearest to samples, and whether samples lie nearer to them than real images outside the training set."""

import math
from dataclasses import dataclass
from numbers import Integral
from typing import NamedTuple

import torch
from torch import Tensor

from thalweg.errors import InputError, require
from thalweg.evaluate.accuracy import wilson
from thalweg.evaluate.extractor import FeatureExtractor, check_range
from thalweg.given import Examples, takes


class Neighbours(NamedTuple):
    """For each sample its k nearest training images: `distances` [N, k] float32, rising, and `indices` [N, k] int64."""

    distances: Tensor
    indices: Tensor


@dataclass(frozen=True)
class Memorisation:
    """Whether samples lie nearer to the training images than real images outside the training set do.

    `closer`: the share of samples in [0, 1] whose nearest training image is nearer than `threshold`, a low quantile of the
    same distances of the held-out images, with its 95 % Wilson interval `low`, `high`. `expected`: that share for fresh
    images of the data's distribution, exact on average over held-out sets; with `held_out` M and `n` images it spreads by
    √(expected (1 − expected) (1/n + 1/M)). Near 1: copies; well above `expected`: memorisation. `median_ratio`: median
    distance of the samples by that of the held-out images; 1 for fresh images, 0 for copies, far above 1 where samples are
    far from all data. `copies`: samples nearer than `copy_distance`. Distances are root mean square differences of pixels
    in [−1, 1], or of the features in `space`.
    """

    space: str
    closer: float
    low: float
    high: float
    expected: float
    threshold: float
    median_ratio: float
    copies: int
    copy_distance: float
    n: int
    train: int
    held_out: int


@takes
def nearest_neighbours(samples: Examples, train: Examples, *, k: int = 1, extractor: FeatureExtractor | None = None) -> Neighbours:
    """The `k` nearest of the training images [M, C, H, W] to each sample [N, C, H, W], in [−1, 1], by scikit-learn.

    Distances are Euclidean by √D, the root mean square difference: of pixels, in [0, 2], or of an extractor's features.
    Raises InputError on mismatched images, NaN, values outside [−1, 1] and k outside 1 … M.
    """
    points, known = _points(samples, train, extractor)
    return _nearest(points, known, k)


@takes
def memorisation(
    samples: Examples,
    train: Examples,
    held_out: Examples,
    *,
    extractor: FeatureExtractor | None = None,
    quantile: float = 0.05,
    copy: float = 0.1,
) -> Memorisation:
    """Compare the distance from each sample to its nearest training image with that of real held-out images to theirs.

    samples [N, C, H, W], train [M, C, H, W], held_out [H, C, H, W], in [−1, 1]; in pixels, or an extractor's features. The
    threshold is the order statistic of the held-out distances at `quantile`, in (0, 1), which needs 1/quantile − 1 images
    or more; `copy`: the share of the median held-out distance below which a sample counts as a copy. Raises InputError on
    images that do not fit and too few held-out images.
    """
    if not (0 < quantile < 1 and copy > 0):
        raise InputError(f"memorisation: quantile {quantile}, copy {copy}; need a quantile in (0, 1) and a copy above 0")
    rank = math.floor(quantile * (len(held_out) + 1) + 1e-9)
    if rank < 1:
        raise InputError(f"memorisation: got {len(held_out)} held-out images, a quantile of {quantile} needs {math.ceil(1 / quantile) - 1}")
    points, known = _points(samples, train, extractor)
    unseen, _ = _points(held_out, train[:1], extractor)
    near, usual = (_nearest(x, known, 1).distances[:, 0] for x in (points, unseen))
    threshold, median = float(usual.sort().values[rank - 1]), float(usual.median())
    if threshold == 0:
        raise InputError(f"memorisation: {rank} or more held-out images are training images, need images outside the training set")
    share = wilson(int((near < threshold).sum()), len(near))
    return Memorisation(
        space="pixels" if extractor is None else extractor.name,
        closer=share.value,
        low=share.low,
        high=share.high,
        expected=rank / (len(held_out) + 1),
        threshold=threshold,
        median_ratio=float(near.median()) / median,
        copies=int((near < copy * median).sum()),
        copy_distance=copy * median,
        n=len(near),
        train=len(train),
        held_out=len(held_out),
    )


def _points(images: Tensor, train: Tensor, extractor: FeatureExtractor | None) -> tuple[Tensor, Tensor]:
    """Images and training images as points [N, D] and [M, D] float32 on the CPU."""
    if images.dim() != 4 or images.shape[1:] != train.shape[1:] or not len(images) or not len(train):
        raise InputError(f"images: got shapes {list(images.shape)} and {list(train.shape)}, need [N, C, H, W] and [M, C, H, W], N, M ≥ 1")
    if extractor is not None:
        return extractor.features(images), extractor.features(train)
    for part in (images, train):
        check_range(part)
    return images.detach().flatten(1).float().cpu(), train.detach().flatten(1).float().cpu()


def _nearest(points: Tensor, known: Tensor, k: int) -> Neighbours:
    if not isinstance(k, Integral) or not 1 <= k <= len(known):
        raise InputError(f"nearest_neighbours: k is {k!r}, need 1 … {len(known)}, the number of training images")
    search = require("sklearn.neighbors", "metrics").NearestNeighbors(n_neighbors=k, algorithm="brute").fit(known.numpy())
    rows, found = [], []
    for part in points.split(256):
        index = torch.from_numpy(search.kneighbors(part.numpy(), return_distance=False)).long()
        # The search expands |x − y|², which leaves a copy at a small distance above 0: take the difference itself.
        exact = (part[:, None] - known[index]).square().mean(2).sqrt()
        order = exact.argsort(dim=1, stable=True)
        rows.append(exact.gather(1, order))
        found.append(index.gather(1, order))
    return Neighbours(torch.cat(rows), torch.cat(found))
