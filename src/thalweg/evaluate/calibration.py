"""Whether a classifier's probabilities mean what they say: accuracy, calibration error, log-loss and Brier score."""

import math
from collections.abc import Callable
from dataclasses import dataclass
from numbers import Integral

import torch
from torch import Tensor

from thalweg.errors import InputError, require
from thalweg.evaluate.accuracy import Accuracy, accuracy
from thalweg.given import Examples, Labels, Numbers, takes

Interval = tuple[float, float]


@dataclass(frozen=True)
class Calibration:
    """How right a classifier is and how well it knows, on `n` examples; intervals are of 95 %.

    `accuracy` and the mean `confidence` (probability of the predicted class) are in [0, 1]. `ece` in [0, 1] is the expected
    calibration error Σ_b n_b/n |accuracy_b − confidence_b| over bins of equal width (Guo et al. 2017, eq. 3; lower is better).
    It is never 0 on finite data: a perfectly calibrated classifier with the same confidences scores `ece_floor` on average
    and up to `ece_floor_high` in 95 % of the cases; below that nothing speaks against calibration. `nll` is the mean
    −log p(y | x) in nats (infinite where the truth got probability 0) and `brier` the mean Σ_k (p_k − [y = k])² in [0, 2]
    (lower is better). Of each bin: `counts`, mean `confidences` and `accuracies` (None where empty); `edges` has one more.
    """

    n: int
    accuracy: Accuracy
    confidence: float
    ece: float
    ece_interval: Interval
    ece_floor: float
    ece_floor_high: float
    nll: float
    nll_interval: Interval
    brier: float
    brier_interval: Interval
    edges: tuple[float, ...]
    counts: tuple[int, ...]
    confidences: tuple[float | None, ...]
    accuracies: tuple[float | None, ...]


@takes
@torch.no_grad()
def calibration(
    logits: Callable[[Tensor], Tensor], x: Examples, y: Labels, *, bins: int = 15, bootstrap: int = 1000, batch: int = 512, seed: int = 0
) -> Calibration:
    """Accuracy and calibration of a classifier on x [N, ...], finite (images [N, C, H, W] in [−1, 1]), and labels y [N] int64.

    logits: (x [B, ...]) -> [B, classes], also log-probabilities, as `method.classify` gives. The rest as in
    `calibration_from_probabilities`.
    """
    examples("calibration", x, y)
    values = []
    for part in x.split(batch):
        value = logits(part)
        if value.dim() != 2 or len(value) != len(part) or value.isnan().any():
            raise InputError(f"calibration: logits of shape {list(value.shape)} or NaN, need [{len(part)}, classes] without NaN")
        values.append(value.double().log_softmax(1).cpu())
    return _calibration(torch.cat(values), y.cpu(), bins, bootstrap, seed)


@takes
def calibration_from_probabilities(p: Numbers, y: Labels, *, bins: int = 15, bootstrap: int = 1000, seed: int = 0) -> Calibration:
    """Accuracy and calibration of probabilities p [N, classes], rows that sum to 1, for labels y [N] int64; N, classes ≥ 2.

    The calibration error is torchmetrics'. Its interval is a basic bootstrap (2·ece − the percentiles of `bootstrap`
    resamples, as these are biased upwards like the estimate itself) whose lower end is 0 where `ece` does not exceed
    `ece_floor_high`. The floor redraws whether each prediction is right with its own confidence, `bootstrap` times
    (consistency resampling, Bröcker and Smith 2007). In simulations of 10 classes the interval held the true value in 94 to
    96 % of the cases under perfect calibration and in 85 to 99 % otherwise, the least for 200 to 1000 examples and a small
    error. The same seed gives the same report. Raises InputError on mismatched shapes, labels that are not classes, or rows
    that are not probabilities.
    """
    if p.dim() != 2 or not p.is_floating_point() or not ((p >= 0) & (p <= 1 + 1e-4)).all() or not (p.sum(1) - 1).abs().le(1e-4).all():
        raise InputError(f"probabilities: got {p.dtype} {list(p.shape)}, need [N, classes] in [0, 1] whose rows sum to 1")
    return _calibration(p.detach().double().log().log_softmax(1).cpu(), y.cpu(), bins, bootstrap, seed)


def examples(what: str, x: Tensor, y: Tensor, bounds: tuple[float, float] | None = None) -> None:
    """Refuse examples x [N, ...] and labels y that do not match, are not finite or are out of bounds, for images [−1, 1] if None."""
    if y.shape != (len(x),) or y.is_floating_point() or len(x) < 2:
        raise InputError(f"{what}: got {len(x)} examples and {y.dtype} labels {list(y.shape)}, need whole [N] for N ≥ 2 examples")
    if not x.is_floating_point() or not x.isfinite().all():
        raise InputError(f"{what}: got {x.dtype} examples with {int((~x.isfinite()).sum())} values NaN or infinite, need finite floats")
    low, high = bounds or ((-1.0, 1.0) if x.dim() == 4 else (-math.inf, math.inf))
    if x.min() < low - 1e-6 or x.max() > high + 1e-6:
        raise InputError(f"{what}: examples range over [{float(x.min()):.3g}, {float(x.max()):.3g}], need [{low:g}, {high:g}]")


def _calibration(log_p: Tensor, y: Tensor, bins: int, bootstrap: int, seed: int) -> Calibration:
    functional = require("torchmetrics.functional.classification", "metrics")
    import numpy as np

    n, classes = log_p.shape
    if y.shape != (n,) or y.is_floating_point() or n < 2 or classes < 2 or not 0 <= int(y.min()) <= int(y.max()) < classes:
        raise InputError(
            f"labels: got {y.dtype} {list(y.shape)} for predictions {[n, classes]}, need [N] classes from 0, N and classes ≥ 2"
        )
    if not (isinstance(bins, Integral) and bins >= 1):
        raise InputError(f"bins: got {bins!r}, need a whole number, 1 or more")
    if bootstrap < 20:
        raise InputError(f"bootstrap: got {bootstrap}, need 20 resamples or more for an interval")
    y = y.long()
    # Just below 1, so that full confidence belongs to the last bin, as in the paper: torchmetrics would give it one of its own.
    p = log_p.exp().float().clamp_max(1 - 2**-24)
    ece = float(functional.multiclass_calibration_error(p, y, num_classes=classes, n_bins=bins))
    confidence, predicted = p.max(1)
    edges = torch.linspace(0, 1, bins + 1)
    where = (torch.bucketize(confidence, edges, right=True) - 1).numpy()
    sure, right = confidence.double().numpy(), (predicted == y).double().numpy()

    def error(where, excess) -> float:
        return float(np.abs(np.bincount(where, excess, bins)).sum() / n)

    random = np.random.default_rng(seed)
    floors = [error(where, (random.random(n) < sure) - sure) for _ in range(bootstrap)]
    excess, resamples = right - sure, []
    for _ in range(bootstrap):
        drawn = random.integers(n, size=n)
        resamples.append(error(where[drawn], excess[drawn]))
    low, high = (2 * ece - q for q in np.percentile(resamples, [97.5, 2.5]))
    floor_high = float(np.percentile(floors, 95))
    counts = np.bincount(where, minlength=bins)
    means = [
        tuple(float(total / count) if count else None for total, count in zip(np.bincount(where, v, bins), counts)) for v in (sure, right)
    ]
    brier = (log_p.exp() - torch.nn.functional.one_hot(y, classes)).square().sum(1)
    nll, nll_interval = _mean(-log_p.gather(1, y[:, None])[:, 0])
    brier, brier_interval = _mean(brier)
    return Calibration(
        n=n,
        accuracy=accuracy(lambda part: part, p, y),
        confidence=float(sure.mean()),
        ece=ece,
        ece_interval=(0.0 if ece <= floor_high else max(0.0, float(low)), max(0.0, float(high))),
        ece_floor=float(np.mean(floors)),
        ece_floor_high=floor_high,
        nll=nll,
        nll_interval=nll_interval,
        brier=brier,
        brier_interval=brier_interval,
        edges=tuple(b / bins for b in range(bins + 1)),
        counts=tuple(counts.tolist()),
        confidences=means[0],
        accuracies=means[1],
    )


def _mean(values: Tensor) -> tuple[float, Interval]:
    """The mean with mean ± 1.96 standard errors; an infinite mean has no interval but itself."""
    mean = float(values.mean())
    half = 1.959964 * float(values.std()) / math.sqrt(len(values)) if math.isfinite(mean) else 0.0
    return mean, (mean - half, mean + half)
