"""How many modes of stacked images a model covers, and how evenly, counted by a classifier of the single images."""

import math
from dataclasses import dataclass

import torch
from torch import Tensor

from thalweg.errors import InputError, require
from thalweg.evaluate.extractor import Extractor
from thalweg.given import Examples, Labelled, Numbers, takes


@dataclass(frozen=True)
class ModeCount:
    """How `n` labels spread over `possible` modes.

    `modes`: hit at least once. `kl`: KL(q ‖ p) in nats, q the labels' relative frequencies and p the target, the "reverse
    KL" of the papers; it is biased upwards by about (possible − 1)/(2n). `kl_corrected`: without that bias to first order,
    kl − (modes − 1)/(2n) (Miller 1955), slightly below 0 at times; `low` and `high` its 95 % jackknife interval, which is too
    wide, by up to √2, where q is near p. Once n is no longer several times `possible`, some of the bias remains.
    """

    modes: int
    possible: int
    kl: float
    kl_corrected: float
    low: float
    high: float
    n: int


@dataclass(frozen=True)
class StackedModes:
    """Modes of `samples`, and what real stacks and a perfect sampler score at the same n, so that the KL's bias is visible.

    `held_out`: the same count of real stacks, None without them; it holds the classifier's errors too. `perfect_modes` and
    `perfect_kl` (nats): what exact draws from the target give on average with a classifier that never errs.
    `classifier_accuracy`: share in [0, 1] of single test images that the classifier gets right, None if it was never tested;
    `stack_accuracy`: share of the held-out stacks with all three right, None without their labels. `target`: "uniform" or
    "shares". Compare values at equal n, target and `name` only; an error of the classifier can hide a missing mode.
    """

    name: str
    target: str
    samples: ModeCount
    held_out: ModeCount | None
    perfect_modes: float
    perfect_kl: float
    classifier_accuracy: float | None
    stack_accuracy: float | None


@takes
def stacked_modes(
    samples: Examples,
    extractor: Extractor,
    *,
    held_out: Labelled | None = None,
    share: Numbers | None = None,
    n: int | None = None,
) -> StackedModes:
    """Count the modes of stacked images [N, 3, H, W] in [−1, 1] with a classifier of grey images that labels each channel.

    extractor: trained on the single images, K classes, so K³ modes. held_out: real stacks ([M, 3, H, W], labels [M] or None)
    such as `load("stacked-digits", "test").batch(0, n, 0)`. share [K]: how common the classes are in the data, uniform when
    None; the target is their product. The first `n` of both are compared, by default as many as both have; the papers use
    26,000. Raises InputError on other shapes or ranges, and on fewer than n images.
    """
    stacks, labels = held_out if held_out is not None else (None, None)
    sets = {"samples": samples} if stacks is None else {"samples": samples, "held_out": stacks}
    for name, images in sets.items():
        if images.dim() != 4 or images.shape[1] != 3 or extractor.shape[0] != 1:
            needs = f"[N, 3, H, W] and a classifier of 1 channel, {extractor.name} has {extractor.shape[0]}"
            raise InputError(f"{name}: got shape {list(images.shape)}, need {needs}")
    most = min(len(images) for images in sets.values())
    n = most if n is None else n
    if not 2 <= n <= most:
        sizes = ", ".join(f"{len(images)} {name}" for name, images in sets.items())
        raise InputError(f"stacked_modes: n = {n} with {sizes}; need 2 or more and no more than there are")
    if labels is not None and labels.shape != (len(stacks),):
        raise InputError(f"held_out: got labels of shape {list(labels.shape)} for {len(stacks)} stacks, need [{len(stacks)}]")

    found, classes = {}, 0
    for name, images in sets.items():
        found[name], classes = _stack_labels(images[:n], extractor)
    target = _target(classes, share)
    counts = {name: count_modes(label, target) for name, label in found.items()}
    perfect_modes, perfect_kl = perfect_sampler(target, n)
    return StackedModes(
        name=f"stacked[{extractor.name}]",
        target="uniform" if share is None else "shares",
        samples=counts["samples"],
        held_out=counts.get("held_out"),
        perfect_modes=perfect_modes,
        perfect_kl=perfect_kl,
        classifier_accuracy=extractor.test_accuracy,
        stack_accuracy=None if labels is None else float((found["held_out"] == labels[:n].cpu()).double().mean()),
    )


def _stack_labels(images: Tensor, extractor: Extractor) -> tuple[Tensor, int]:
    """Labels (a K + b) K + c [N] of stacks [N, 3, H, W], and K."""
    logits = extractor.logits(images.flatten(0, 1).unsqueeze(1))
    a, b, c = logits.argmax(1).view(-1, 3).unbind(1)
    classes = logits.shape[1]
    return (a * classes + b) * classes + c, classes


def _target(classes: int, share: Tensor | None) -> Tensor:
    share = torch.ones(classes) if share is None else torch.as_tensor(share)
    if share.shape != (classes,) or not share.isfinite().all() or not (share > 0).all():
        raise InputError(f"share: got shape {list(share.shape)}, need [{classes}] positive shares of the classes")
    share = share.double().cpu() / share.double().sum().cpu()
    return torch.einsum("a,b,c->abc", share, share, share).flatten()


@takes
def count_modes(labels: Numbers, target: Numbers) -> ModeCount:
    """Modes among labels [N] in {0, …, M−1}, and KL(labels' frequencies ‖ target) for a target [M] that sums to 1."""
    target = torch.as_tensor(target).double().cpu()
    if target.dim() != 1 or not (target > 0).all() or abs(float(target.sum()) - 1) > 1e-6:
        raise InputError(f"target: got shape {list(target.shape)} of sum {float(target.sum()):.6g}, need [M] positive shares of sum 1")
    if labels.dim() != 1 or len(labels) < 2 or labels.is_floating_point():
        raise InputError(f"labels: got {labels.dtype} {list(labels.shape)}, need [N] whole numbers with N ≥ 2")
    if int(labels.min()) < 0 or int(labels.max()) >= len(target):
        raise InputError(f"labels: values from {int(labels.min())} to {int(labels.max())}, need 0 … {len(target) - 1}")
    counts = torch.bincount(labels.cpu(), minlength=len(target)).double()
    hit, n = counts > 0, len(labels)
    c, p = counts[hit], target[hit]
    kl, corrected = _kl(torch.special.xlogy(c, c / p).sum(), len(c), n)

    # Leaving one label out changes one count: as many distinct values as there are modes, each `c` times.
    without = torch.special.xlogy(c, c / p).sum() - torch.special.xlogy(c, c / p) + torch.special.xlogy(c - 1, (c - 1) / p)
    left_out = _kl(without, len(c) - (c == 1).double(), n - 1)[1]
    mean = (c * left_out).sum() / n
    error = math.sqrt((n - 1) / n * float((c * (left_out - mean).square()).sum()))
    return ModeCount(
        modes=len(c),
        possible=len(target),
        kl=max(0.0, float(kl)),
        kl_corrected=float(corrected),
        low=float(corrected) - 1.96 * error,
        high=float(corrected) + 1.96 * error,
        n=n,
    )


def _kl(weighted, modes, n: int):
    """KL from Σ c log(c/p), and less its first-order bias."""
    kl = weighted / n - math.log(n)
    return kl, kl - (modes - 1) / (2 * n)


@takes
def perfect_sampler(target: Numbers, n: int) -> tuple[float, float]:
    """The expected number of modes hit and the expected KL(q ‖ target), in nats, of n exact draws from target [M].

    Σ 1 − (1 − p)ⁿ and Σ E[(c/n) log(c/(n p))] with c ~ Binomial(n, p), exact but for tails below 1e-15.
    """
    binomial = require("scipy.stats", "metrics").binom
    import numpy as np

    if n < 1:
        raise InputError(f"n: got {n!r}, need 1 draw or more")
    modes = kl = 0.0
    for p, times in zip(*np.unique(target.double().cpu().numpy(), return_counts=True)):  # shares often repeat
        c = np.arange(max(1, int(binomial.ppf(1e-15, n, p))), min(n, int(binomial.isf(1e-15, n, p)) + 1) + 1)
        modes -= times * math.expm1(n * math.log1p(-p)) if p < 1 else -times
        kl += times * float(np.sum(binomial.pmf(c, n, p) * c / n * np.log(c / (n * p))))
    return float(modes), max(0.0, float(kl))
