"""How well a score tells outliers from inliers, with intervals; and simple outliers to try it on."""

from dataclasses import dataclass
from numbers import Integral

import torch
from torch import Tensor

from thalweg.errors import InputError, nearest
from thalweg.given import Examples, Numbers, takes
from thalweg.random import integers, normal, seeded, uniform

Interval = tuple[float, float]


@dataclass(frozen=True)
class OODReport:
    """Detection of outliers by a score, higher meaning more outlying; each number in [0, 1] with its 95 % bootstrap interval.

    `auroc`: the chance that a random outlier scores higher than a random inlier, ties counting half (higher is better, 0.5
    is chance). `aupr`: average precision with outliers as the positives (higher is better; chance is their share of all).
    `fpr95`: the share of outliers accepted at the lowest threshold that accepts at least 95 % of the inliers (lower is
    better, 0.95 is chance).
    """

    auroc: float
    aupr: float
    fpr95: float
    auroc_interval: Interval
    aupr_interval: Interval
    fpr95_interval: Interval
    inliers: int
    outliers: int


@takes
def ood(inlier_scores: Numbers, outlier_scores: Numbers, *, bootstrap: int = 1000, seed: int = 0) -> OODReport:
    """Area under the ROC and precision-recall curves and the false-positive rate at 95 % acceptance, with intervals.

    inlier_scores [N], outlier_scores [M]: higher is more outlying, as energies are. Areas are those of scikit-learn, here from
    counts, which are exact: its sums may add up to just below 1 where all is told apart, and so below their own interval. Intervals
    are percentiles over `bootstrap` resamples of both sets, so they hold the spread of the test sets but not that of training.
    Raises InputError on scores that are not finite vectors of at least 2.
    """
    import numpy as np

    if bootstrap < 20:
        raise InputError(f"bootstrap: got {bootstrap}, need 20 resamples or more for an interval")
    inlier, outlier = _scores("inlier_scores", inlier_scores), _scores("outlier_scores", outlier_scores)
    scores = np.concatenate([inlier, outlier])

    # Each score becomes the rank of its value, so that a resample is a count per rank and needs no sorting.
    values, ranks = np.unique(scores, return_inverse=True)
    inlier_ranks, outlier_ranks = ranks[: len(inlier)], ranks[len(inlier) :]
    random = np.random.default_rng(seed)
    resamples = []
    for _ in range(bootstrap):
        counts = [np.bincount(r[random.integers(len(r), size=len(r))], minlength=len(values)) for r in (inlier_ranks, outlier_ranks)]
        resamples.append(_from_counts(*counts))
    low, high = np.percentile(np.array(resamples), [2.5, 97.5], axis=0)
    auroc, aupr, fpr95 = _from_counts(*(np.bincount(r, minlength=len(values)) for r in (inlier_ranks, outlier_ranks)))
    return OODReport(
        auroc=auroc,
        aupr=aupr,
        fpr95=fpr95,
        auroc_interval=(float(low[0]), float(high[0])),
        aupr_interval=(float(low[1]), float(high[1])),
        fpr95_interval=(float(low[2]), float(high[2])),
        inliers=len(inlier),
        outliers=len(outlier),
    )


def _from_counts(inlier, outlier) -> tuple[float, float, float]:
    """AUROC, average precision and FPR@95 from the number of inliers and of outliers at each distinct score, in rising order."""
    import numpy as np

    accepted_in, accepted_out = np.cumsum(inlier), np.cumsum(outlier)  # scores ≤ each threshold
    total_in, total_out = int(accepted_in[-1]), int(accepted_out[-1])
    auroc = float(outlier @ (accepted_in - inlier / 2)) / (total_in * total_out)
    rejected_in, rejected_out = total_in - accepted_in + inlier, total_out - accepted_out + outlier  # scores ≥ each threshold
    precision = rejected_out / np.maximum(rejected_in + rejected_out, 1)
    aupr = float(outlier @ precision) / total_out
    threshold = int(np.argmax(100 * accepted_in >= 95 * total_in))  # the first; in whole numbers, so that 19 of 20 is 95 %
    return auroc, aupr, float(accepted_out[threshold] / total_out)


def _scores(name: str, scores: Tensor):
    scores = torch.as_tensor(scores).detach().cpu()
    if scores.dim() != 1 or len(scores) < 2:
        raise InputError(f"{name}: got shape {list(scores.shape)}, need [N] with N ≥ 2")
    if not scores.isfinite().all():
        raise InputError(f"{name}: {int((~scores.isfinite()).sum())} of {len(scores)} are NaN or infinite, need finite scores")
    return scores.double().numpy()


@takes
def outliers(kind: str, like: Examples, n: int, seed: int = 0) -> Tensor:
    """`n` synthetic outliers [n, C, H, W] in [−1, 1], in the shape and type of the inlier images `like` [N, C, H, W].

    kind: "uniform", independent uniform noise; "noise", normal noise with the mean and deviation of the inliers, clipped
    to [−1, 1]; "constant", one random colour an image; "interpolation", the mean of two different random inliers;
    "shuffled", a random inlier with its pixels in random order. The same seed gives the same images.
    """
    if kind not in OUTLIERS:
        raise InputError(f"outliers: no kind '{kind}', there are {', '.join(OUTLIERS)}{nearest(kind, OUTLIERS)}")
    if like.dim() != 4 or not like.is_floating_point() or len(like) < 2:
        raise InputError(f"like: got {like.dtype} {list(like.shape)}, need floating-point images [N, C, H, W] with N ≥ 2")
    if not isinstance(n, Integral) or n < 1:
        raise InputError(f"n: got {n!r}, need a whole number of images, 1 or more")
    return OUTLIERS[kind](like.cpu(), n, seeded(seed)).to(like)


def _uniform(like: Tensor, n: int, g: torch.Generator) -> Tensor:
    return uniform(n, *like.shape[1:], low=-1.0, high=1.0, generator=g)


def _noise(like: Tensor, n: int, g: torch.Generator) -> Tensor:
    return (like.mean() + like.std() * normal(n, *like.shape[1:], generator=g)).clamp(-1, 1)


def _constant(like: Tensor, n: int, g: torch.Generator) -> Tensor:
    return uniform(n, like.shape[1], 1, 1, low=-1.0, high=1.0, generator=g).expand(n, *like.shape[1:]).contiguous()


def _interpolation(like: Tensor, n: int, g: torch.Generator) -> Tensor:
    first = integers(n, 0, len(like), generator=g)
    second = (first + integers(n, 1, len(like), generator=g)) % len(like)
    return (like[first] + like[second]) / 2


def _shuffled(like: Tensor, n: int, g: torch.Generator) -> Tensor:
    order = uniform(n, 1, like.shape[2] * like.shape[3], generator=g).argsort(-1)
    chosen = like[integers(n, 0, len(like), generator=g)].flatten(2)
    return chosen.gather(2, order.expand_as(chosen)).view(n, *like.shape[1:])


OUTLIERS = {"uniform": _uniform, "noise": _noise, "constant": _constant, "interpolation": _interpolation, "shuffled": _shuffled}
