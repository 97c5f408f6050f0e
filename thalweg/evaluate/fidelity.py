"""How close samples are to real images in the features of a small classifier, and how often a label comes out as asked.

The distances here are Fréchet distances in the features of a classifier trained on the data itself. They rank models of
one data set; they are not FID, which needs the Inception network, and no number here compares with a published FID.
"""

from dataclasses import dataclass

import torch
from torch import Tensor, nn

from thalweg.errors import InputError, require
from thalweg.evaluate.accuracy import Accuracy, accuracy
from thalweg.evaluate.extractor import Extractor
from thalweg.random import seeded


@dataclass(frozen=True)
class FidelityReport:
    """A Fréchet distance in a classifier's features: `value` for the samples and `floor` for held-out real images.

    Both compare `n` images with the same `real` ones, so the floor is what a perfect model would score at that n; it is
    None without held-out images. The distance falls with n: compare values at equal n, real images and `name` only.
    """

    name: str
    value: float
    floor: float | None
    n: int
    real: int


def frechet_distance(
    real: Tensor, samples: Tensor, extractor: Extractor, *, held_out: Tensor | None = None, n: int | None = None, seed: int = 0
) -> FidelityReport:
    """Fréchet distance between the features of real training images and of samples, beside its floor.

    real [R, C, H, W], samples [N, C, H, W], held_out [M, C, H, W], in [−1, 1]: training images, the model's, and real images
    outside the training set. `n` images of each of the last two are compared with all of `real`: by default as many as both
    have; drawn without replacement by `seed`. Covariances need n > 64. Computed by torchmetrics in float64.
    """
    sets = {"samples": samples} if held_out is None else {"samples": samples, "held_out": held_out}
    most = min(len(images) for images in sets.values())
    n = most if n is None else n
    if n > most or min(n, len(real)) <= extractor.num_features:
        sizes = ", ".join(f"{len(images)} {name}" for name, images in {"real": real, **sets}.items())
        raise InputError(f"frechet_distance: n = {n} with {sizes}; need more than {extractor.num_features} and no more than there are")
    reference = extractor.features(real)
    scores = []
    for images in sets.values():
        chosen = torch.randperm(len(images), generator=seeded(seed))[:n]
        scores.append(frechet_from_features(reference, extractor.features(images[chosen.to(images.device)])))
    return FidelityReport(
        name=f"frechet[{extractor.name}]", value=scores[0], floor=scores[1] if len(scores) > 1 else None, n=n, real=len(real)
    )


class _Identity(nn.Identity):
    """Lets torchmetrics' metric take features for images: it then neither rescales nor rounds them."""

    def __init__(self, num_features: int):
        super().__init__()
        self.num_features = num_features


def frechet_from_features(real: Tensor, fake: Tensor) -> float:
    """|m₁ − m₂|² + tr(C₁ + C₂ − 2 (C₁C₂)^½) of two sets of features [N, D], N > D, with unbiased covariances, in float64."""
    if real.dim() != 2 or fake.dim() != 2 or real.shape[1] != fake.shape[1] or min(len(real), len(fake)) <= real.shape[1]:
        raise InputError(f"features: got shapes {list(real.shape)} and {list(fake.shape)}, need [N, D] and [M, D] with N, M > D")
    if not (real.isfinite().all() and fake.isfinite().all()):
        raise InputError("features: NaN or infinity, need finite features")
    metric = require("torchmetrics.image.fid", "metrics").FrechetInceptionDistance(feature=_Identity(real.shape[1]))
    metric.set_dtype(torch.float64)
    centre = real.double().mean(0)  # the metric sums squares: taking out a common mean keeps their digits
    metric.update(real.double() - centre, real=True)
    metric.update(fake.double() - centre, real=False)
    return max(0.0, float(metric.compute()))


def class_accuracy(samples: Tensor, labels: Tensor, extractor: Extractor) -> Accuracy:
    """Share of samples [N, C, H, W] in [−1, 1] to which the extractor gives the label [N] they were asked for, with interval.

    Read it beside `extractor.test_accuracy`, what real images would score.
    """
    return accuracy(extractor.logits, samples, labels)
