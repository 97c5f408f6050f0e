"""How close samples are to real images in the features of a network, and how often a label comes out as asked.

Each figure carries the name of its extractor: "frechet[digits-classifier]" ranks models of one data set and compares with
no published FID. Only the Inception weights of published figures give the bare names FID, KID and IS. The same figure for
held-out real images stands next to each: what a perfect model would score at that number of images.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from thalweg.errors import InputError, nearest
from thalweg.evaluate.accuracy import Accuracy, accuracy
from thalweg.evaluate.extractor import Extractor, FeatureExtractor
from thalweg.evaluate.features import Interval, frechet_interval, inception_score, kernel_distance, prdc
from thalweg.evaluate.features import frechet_from_features as frechet_from_features
from thalweg.evaluate.pretrained import Inception
from thalweg.evaluate.statistics import reference_statistics
from thalweg.given import Examples, Labels, takes
from thalweg.random import seeded

METRICS = ("frechet", "kid", "inception_score", "prdc")
MOST = 10_000  # images of each side in KID and PRDC, whose cost grows with its square
NUMBERS = 2**23  # in the images that are looked at at once


@dataclass(frozen=True)
class FidelityReport:
    """A Fréchet distance in an extractor's features: `value` for the samples and `floor` for held-out real images.

    Both compare `n` images with the same `real` ones, so the floor is what a perfect model would score at that n; it is
    None without held-out images. The distance falls with n: compare values at equal n, real images and `name` only.
    `low`, `high`: its 95 % interval over the drawing of the n samples (infinitesimal jackknife), at this n: the bias that
    value and floor share is not in it. `preprocessing`: what the extractor did to the images; `reference`: a fingerprint
    of the real images.
    """

    name: str
    value: float
    floor: float | None
    n: int
    real: int
    low: float | None = None
    high: float | None = None
    preprocessing: str = ""
    reference: str | None = None


@dataclass(frozen=True)
class Figure:
    """One figure: `value`, its 95 % interval where there is one, and `held_out`, the same of real images outside the training set."""

    name: str
    value: float
    low: float | None
    high: float | None
    held_out: float | None


@dataclass(frozen=True)
class Fidelity:
    """The fidelity of samples in one extractor's features, with all that it takes to repeat it; None for what was not asked for.

    `frechet` ≥ 0 (FID; lower is better) compares `n` samples with all `real` images. `kid` (kernel distance, MMD² with the
    kernel (xᵀy/D + 1)³; unbiased, so it may fall below 0; lower is better) is the mean over `subsets` subsets of
    `subset_size`. `inception_score` in [1, classes] (higher is better) is the mean over `splits` splits of the n samples.
    `precision`, `recall`, `coverage` in [0, 1] and `density` ≥ 0 (higher is better) count `k` nearest neighbours. KID and
    these compare `compared` samples with as many real images. Intervals hold the drawing of the samples, those of recall
    and coverage that of the real images, each given the other set; none holds the training of the model.
    """

    extractor: str
    preprocessing: str
    reference: str | None
    n: int
    real: int
    compared: int
    seed: int
    frechet: Figure | None = None
    kid: Figure | None = None
    inception_score: Figure | None = None
    precision: Figure | None = None
    recall: Figure | None = None
    density: Figure | None = None
    coverage: Figure | None = None
    subsets: int | None = None
    subset_size: int | None = None
    splits: int | None = None
    k: int | None = None


@takes
def fidelity(
    real: Examples,
    samples: Examples,
    extractor: FeatureExtractor,
    *,
    held_out: Examples | None = None,
    metrics: Sequence[str] | None = None,
    n: int | None = None,
    seed: int = 0,
    subsets: int = 100,
    subset_size: int | None = None,
    splits: int = 10,
    k: int = 5,
    cache: bool = True,
) -> Fidelity:
    """Fréchet and kernel distances, inception score, precision, recall, density and coverage of samples, with intervals.

    real [R, C, H, W], samples [N, C, H, W], held_out [M, C, H, W], in [−1, 1]: training images, the model's, and real
    images outside the training set. metrics: some of `METRICS`; all but an inception score without a classifier when None.
    `n` of the samples and of the held-out images are used, as many as both have when None, drawn by `seed`. subset_size:
    1000, or half of the images where these are fewer than 2000, when None. cache: keep the statistics of `real`.
    Sources: Heusel et al. 2017; Bińkowski et al. 2018; Salimans et al. 2016; Kynkäänniemi et al. 2019; Naeem et al. 2020;
    torchmetrics computes the first three. Raises InputError on too few images and images that do not fit the extractor.
    """
    metrics = _metrics(metrics, extractor)
    sets, n = _sets(real, samples, held_out, n)
    compared = min(n, len(real), MOST)
    subset_size = min(1000, compared // 2) if subset_size is None else subset_size
    needs = {
        "frechet": (extractor.num_features + 1, min(n, len(real)), f"more than its {extractor.num_features} features"),
        "kid": (max(4, subset_size), compared, "its subset_size and 4"),
        "inception_score": (2 * splits, n, f"2 for each of {splits} splits"),
        "prdc": (k + 1, compared, f"more than k = {k}"),
    }
    for metric in metrics:
        least, there, why = needs[metric]
        if there < least:
            raise InputError(f"{metric}: got {there} images, need {least} or more ({why}); use more images or leave it out of `metrics`")
    if subsets < 1 or subset_size < 2 or splits < 1 or k < 1:
        raise InputError(f"fidelity: subsets {subsets}, subset_size {subset_size}, splits {splits}, k {k}; need 1, 2, 1 and 1 or more")

    features = {name: _features(extractor, images, n, seed) for name, images in sets.items()}
    found: dict[str, Figure] = {}
    reference = None
    if "frechet" in metrics:
        statistics = reference_statistics(real, extractor, cache=cache)
        reference = statistics.data
        found |= _figures(extractor, features, lambda f: {"frechet": frechet_interval(statistics, f)})
    if "inception_score" in metrics:
        found |= _figures(extractor, features, lambda f: {"inception_score": inception_score(_logits(extractor, f), splits, seed)})
    if {"kid", "prdc"} & set(metrics):
        known = _features(extractor, real, compared, seed + 1)
        part = {name: f[:compared] for name, f in features.items()}
        if "kid" in metrics:
            found |= _figures(extractor, part, lambda f: {"kid": kernel_distance(known, f, subsets, subset_size, seed)})
        if "prdc" in metrics:
            found |= _figures(extractor, part, lambda f: prdc(known, f, k))
    used = {"subsets": subsets, "subset_size": subset_size} if "kid" in metrics else {}
    used |= {"splits": splits} if "inception_score" in metrics else {}
    used |= {"k": k} if "prdc" in metrics else {}
    return Fidelity(extractor.name, extractor.preprocessing, reference, n, len(real), compared, seed, **found, **used)


@takes
def frechet_distance(
    real: Examples,
    samples: Examples,
    extractor: FeatureExtractor,
    *,
    held_out: Examples | None = None,
    n: int | None = None,
    seed: int = 0,
    cache: bool = True,
) -> FidelityReport:
    """Fréchet distance between the features of real training images and of samples, with its floor.

    real [R, C, H, W], samples [N, C, H, W], held_out [M, C, H, W], in [−1, 1]: training images, the model's, and real images
    outside the training set. `n` images of each of the last two are compared with all of `real`: by default as many as both
    have; drawn without replacement by `seed`. Covariances need n > the number of features, 64 for `Extractor`. Computed by
    torchmetrics in float64; the statistics of `real` come from the cache after the first time, unless `cache` is False.
    """
    sets, n = _sets(real, samples, held_out, n, least=extractor.num_features + 1)
    statistics = reference_statistics(real, extractor, cache=cache)
    scores = [frechet_interval(statistics, _features(extractor, images, n, seed)) for images in sets.values()]
    value, low, high = scores[0]
    return FidelityReport(
        name=metric_name("frechet", extractor),
        value=value,
        floor=scores[1][0] if len(scores) > 1 else None,
        n=n,
        real=len(real),
        low=low,
        high=high,
        preprocessing=extractor.preprocessing,
        reference=statistics.data,
    )


def metric_name(metric: str, extractor: FeatureExtractor) -> str:
    """What to call a figure: "frechet[<extractor>]"; FID, KID, IS and bare names for the Inception of published figures only."""
    if isinstance(extractor, Inception) and extractor.name == "inception-v3":
        return {"frechet": "FID", "kid": "KID", "inception_score": "IS"}.get(metric, metric)
    return f"{metric}[{extractor.name}]"


@takes
def class_accuracy(samples: Examples, labels: Labels, extractor: Extractor) -> Accuracy:
    """Share of samples [N, C, H, W] in [−1, 1] to which the extractor gives the label [N] they were asked for, with interval.

    Read it together with `extractor.test_accuracy`, what real images would score.
    """
    return accuracy(extractor.logits, samples, labels)


def _metrics(metrics: Sequence[str] | None, extractor: FeatureExtractor) -> tuple[str, ...]:
    classifies = hasattr(extractor, "head")
    if metrics is None:
        return tuple(metric for metric in METRICS if classifies or metric != "inception_score")
    metrics = (metrics,) if isinstance(metrics, str) else tuple(metrics)
    for metric in metrics:
        if metric not in METRICS:
            raise InputError(f"fidelity: no metric '{metric}', there are {', '.join(METRICS)}{nearest(metric, METRICS)}")
    if "inception_score" in metrics and not classifies:
        raise InputError(f"inception_score: extractor '{extractor.name}' has no classes (no layer `head`); leave it out of `metrics`")
    return metrics


def _sets(real: Tensor, samples: Tensor, held_out: Tensor | None, n: int | None, least: int = 1) -> tuple[dict[str, Tensor], int]:
    sets = {"samples": samples} if held_out is None else {"samples": samples, "held_out": held_out}
    most = min(len(images) for images in sets.values())
    n = most if n is None else n
    if not least <= n <= most or len(real) < least:
        sizes = ", ".join(f"{len(images)} {name}" for name, images in {"real": real, **sets}.items())
        raise InputError(f"fidelity: n = {n} with {sizes}; need more than {least - 1} of each and no more than there are")
    return sets, n


def _features(extractor: FeatureExtractor, images: Tensor, n: int, seed: int) -> Tensor:
    """Features of `n` images that `seed` draws; few images at a time are taken from those, which may lie in a file."""
    rows = torch.randperm(len(images), generator=seeded(seed))[:n].to(images.device)
    features = torch.cat([extractor.features(images[part]) for part in rows.split(max(1, min(512, NUMBERS // images[0].numel())))])
    if features.shape != (n, extractor.num_features) or not features.isfinite().all():
        raise InputError(
            f"features of '{extractor.name}': shape {list(features.shape)}, NaN or infinity; need finite [{n}, {extractor.num_features}]"
        )
    return features


@torch.no_grad()
def _logits(extractor: FeatureExtractor, features: Tensor) -> Tensor:
    head = extractor.head
    return head(features.to(next(head.parameters()))).cpu()


def _figures(
    extractor: FeatureExtractor, features: dict[str, Tensor], compute: Callable[[Tensor], dict[str, Interval]]
) -> dict[str, Figure]:
    """Figures of the samples' features, each with the value that the held-out images' features get by the same computation."""
    found = compute(features["samples"])
    floor = compute(features["held_out"]) if "held_out" in features else {}
    return {
        metric: Figure(metric_name(metric, extractor), value, low, high, floor[metric][0] if floor else None)
        for metric, (value, low, high) in found.items()
    }
