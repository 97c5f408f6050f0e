"""How close restored images are to the originals: PSNR, SSIM, squared error and a distance of deep features.

LPIPS is not here: it needs networks trained on ImageNet. `perceptual` is a distance in the features of whatever extractor is
given, and its number carries that extractor's name; it compares with no published LPIPS.
"""

import math
import warnings
from dataclasses import dataclass
from numbers import Integral
from typing import Protocol

import torch
from torch import Tensor

from thalweg.errors import InputError, require
from thalweg.given import Examples, Numbers, takes

WINDOW, SIGMA = 11, 1.5  # SSIM's Gaussian window and its deviation, in pixels (Wang et al. 2004)
BEST = 100.0  # dB: what an image restored to the last digit counts, since its PSNR has no bound


class Features(Protocol):
    """What a perceptual distance asks of a network: `Extractor` has it."""

    name: str

    def features(self, images: Tensor) -> Tensor: ...


@dataclass(frozen=True)
class Average:
    """A mean over images with its 95 % interval (Student's t over images)."""

    value: float
    low: float
    high: float


@dataclass(frozen=True)
class Quality:
    """Means over images of measures of each image against its original.

    `psnr` in dB, 10 log₁₀(4/mse) for images in [−1, 1], at most 100 an image (higher is better); `ssim` in [−1, 1], 1 is
    equal (higher is better); `mse` per value, in the unit of [−1, 1] squared (lower is better); `perceptual`: a distance of
    features (lower is better), None without a network.
    """

    psnr: Average
    ssim: Average
    mse: Average
    perceptual: Average | None


@dataclass(frozen=True)
class Restoration:
    """Quality of `restored` images, and of the `observed` ones they were made from (None if not given), over the same `n`.

    `gain`: mean PSNR of restored less observed, in dB, with the interval of the paired differences. `ssim_window`: side of
    SSIM's Gaussian window in pixels: 11, or the largest odd number that fits into smaller images, with a deviation of 1.5
    pixels × window/11; compare SSIM at equal windows only. `perceptual_name`: "cosine[network]" or "euclidean[network]".
    """

    restored: Quality
    observed: Quality | None
    gain: Average | None
    ssim_window: int
    perceptual_name: str | None
    n: int


@takes
def restoration(
    original: Examples,
    restored: Examples,
    *,
    observed: Examples | None = None,
    perceptual: Features | None = None,
    distance: str = "cosine",
) -> Restoration:
    """Compare restored images, and the degraded ones they were restored from, with the originals, image by image.

    All [N, C, H, W] in [−1, 1] of one shape, N ≥ 2, H and W ≥ 3; an observation of fewer pixels must be brought to size
    first. perceptual: a network with `name` and `features`; distance: "cosine", 1 − cos of two images' features, in [0, 2],
    or "euclidean". PSNR and SSIM come from torchmetrics in float64; SSIM is taken on (x + 1)/2 in [0, 1], the range it is
    meant for, and averaged over the positions where the whole window lies inside the image, as Wang et al. 2004 do.
    """
    if distance not in ("cosine", "euclidean"):
        raise InputError(f"distance: got {distance!r}, need cosine or euclidean")
    sets = {"restored": restored} if observed is None else {"restored": restored, "observed": observed}
    _check("original", original)
    for name, images in sets.items():
        _check(name, images)
        if images.shape != original.shape:
            raise InputError(f"{name}: got shape {list(images.shape)}, need that of the originals, {list(original.shape)}")

    window, limits = ssim_window(tuple(original.shape)), (-1.0, 1.0)
    reference = None if perceptual is None else _features(perceptual, original)
    scores = {}
    for name, images in sets.items():
        x, y = images.detach().cpu().double(), original.detach().cpu().double()
        scores[name] = {
            "psnr": psnr(y, x, range=limits),
            "ssim": ssim(y, x, window, range=limits),
            "mse": (x - y).square().flatten(1).mean(1),
        }
        if perceptual is not None:
            scores[name]["perceptual"] = _distance(reference, _features(perceptual, images), distance)
    quality = {name: Quality(**({"perceptual": None} | {k: _average(v) for k, v in of.items()})) for name, of in scores.items()}
    return Restoration(
        restored=quality["restored"],
        observed=quality.get("observed"),
        gain=None if observed is None else _average(scores["restored"]["psnr"] - scores["observed"]["psnr"]),
        ssim_window=window,
        perceptual_name=None if perceptual is None else f"{distance}[{perceptual.name}]",
        n=len(original),
    )


Range = tuple[float, float]


@takes
def psnr(original: Numbers, restored: Numbers, *, range: Range | None = None) -> Tensor:
    """Peak signal-to-noise ratio [N] in dB of images [N, C, H, W] of one shape, at most 100.

    `range`: the least and the greatest value that images may have, [−1, 1] unless given: (0, 1) or (0, 255) for others. InputError for
    other shapes and values outside it; a warning where images look as if they were in [0, 1] and `range` is not given.
    """
    x, y = _in_range("psnr", restored, original, range)
    metric = require("torchmetrics.functional.image", "metrics").peak_signal_noise_ratio
    return metric(x, y, data_range=2.0, reduction="none", dim=(1, 2, 3)).clamp_max(BEST)


@takes
def ssim(original: Numbers, restored: Numbers, window: int | None = None, *, range: Range | None = None) -> Tensor:
    """Structural similarity [N] of images [N, C, H, W] of one shape, of 3 pixels or more a side; `range` and errors as of `psnr`.

    `window`: odd side of the Gaussian window, which must fit; by default 11, or the largest that fits (`ssim_window`), as in `restoration`.
    """
    x, y = _in_range("ssim", restored, original, range)
    if min(x.shape[2:]) < 3:
        raise InputError(f"ssim: needs images of 3 pixels or more a side, got {list(x.shape)}")
    window = ssim_window(tuple(x.shape)) if window is None else window
    if not isinstance(window, Integral) or window < 3 or window % 2 == 0 or window > min(x.shape[2:]):
        raise InputError(f"ssim: window must be odd, 3 or more, and fit into {x.shape[2]} × {x.shape[3]} pixels, got {window!r}")
    metric = require("torchmetrics.functional.image", "metrics").structural_similarity_index_measure
    rim = window // 2
    values = []
    for a, b in zip(x.split(256), y.split(256)):
        # torchmetrics takes the window's side from the deviation: round(3.5 σ) pixels on either side
        options = {"sigma": SIGMA * window / WINDOW, "data_range": 1.0, "return_full_image": True, "reduction": "none"}
        full = metric((a + 1) / 2, (b + 1) / 2, **options)[1]
        height, width = full.shape[2:]  # the rim rests on mirrored pixels
        values.append(full[:, :, rim : height - rim, rim : width - rim].flatten(1).mean(1))
    return torch.cat(values)


def ssim_window(shape: tuple[int, ...]) -> int:
    """The side of SSIM's window for images [..., H, W]: 11, or the largest odd number that fits into smaller ones."""
    side = min(WINDOW, *shape[-2:])
    return side - 1 + side % 2


def _in_range(what: str, restored: Tensor, original: Tensor, limits: Range | None) -> tuple[Tensor, Tensor]:
    """Both sets in [−1, 1]; InputError for other shapes, types and values."""
    low, high = limits if limits is not None else (-1.0, 1.0)
    if not (math.isfinite(low) and math.isfinite(high) and low < high):
        raise InputError(f"{what}: range must be the least and the greatest value, got {limits!r}")
    if not all(isinstance(x, Tensor) and x.dim() == 4 and x.numel() for x in (original, restored)) or original.shape != restored.shape:
        given = " and ".join(str(list(x.shape)) if isinstance(x, Tensor) else type(x).__name__ for x in (original, restored))
        raise InputError(f"{what}: needs two sets of images [N, C, H, W] of one shape, got {given}")
    for x in (original, restored):
        if not (x.is_floating_point() or (limits is not None and not x.is_complex())):
            raise InputError(f"{what}: needs floating-point images, got {x.dtype}; of grey values 0 … 255 say range=(0, 255)")
        least, most, room = float(x.min()), float(x.max()), 0.05 * (high - low)  # restored images may stray a little
        if not (least >= low - room and most <= high + room):
            hint = "; for images of another range say so: range=(0, 1) or range=(0, 255)" if limits is None else ""
            raise InputError(f"{what}: values from {least:.4g} to {most:.4g}, need [{low:g}, {high:g}]{hint}")
    if limits is None and float(torch.minimum(original.min(), restored.min())) >= 0 and len(original.unique()) > 2:
        warnings.warn(
            f"{what}: no value is below 0, and images are taken to be in [−1, 1]; say range=(0, 1) if they are not, else range=(-1, 1)",
            stacklevel=4,
        )
    if (low, high) == (-1.0, 1.0):
        return restored, original
    return tuple((x.to(torch.promote_types(x.dtype, torch.float32)) - low) * (2 / (high - low)) - 1 for x in (restored, original))


def _features(network: Features, images: Tensor) -> Tensor:
    features = network.features(images)
    if features.dim() != 2 or len(features) != len(images) or not features.isfinite().all():
        raise InputError(f"perceptual: {network.name} gave features {list(features.shape)} or not finite, need [{len(images)}, D] finite")
    return features.double().cpu()


def _distance(x: Tensor, y: Tensor, kind: str) -> Tensor:
    if kind == "euclidean":
        return (x - y).norm(dim=1)
    # half the squared distance of the unit vectors: 1 − cos without its cancellation between near images
    return (torch.nn.functional.normalize(x, dim=1) - torch.nn.functional.normalize(y, dim=1)).square().sum(1) / 2


def _average(values: Tensor) -> Average:
    quantile = require("scipy.stats", "metrics").t.ppf(0.975, len(values) - 1)
    mean, half = float(values.mean()), float(quantile) * float(values.std()) / math.sqrt(len(values))
    return Average(value=mean, low=mean - half, high=mean + half)


def _check(name: str, images: Tensor) -> None:
    if images.dim() != 4 or len(images) < 2 or images.shape[1] < 1 or min(images.shape[2:]) < 3 or not images.is_floating_point():
        raise InputError(
            f"{name}: got {images.dtype} {list(images.shape)}, need floating-point [N, C, H, W] with N ≥ 2 and 3 pixels or more a side"
        )
    if not images.isfinite().all():
        raise InputError(f"{name}: {int((~images.isfinite()).flatten(1).any(1).sum())} of {len(images)} images hold NaN or infinity")
    low, high = float(images.min()), float(images.max())
    if low < -1.0001 or high > 1.0001:
        raise InputError(f"{name}: values from {low:.4g} to {high:.4g}, need [−1, 1]; clamp what strays")
