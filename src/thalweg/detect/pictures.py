"""Pictures as rows of numbers, of which a density is learned: what they show, how rough they are at several scales, how bright.

    coordinates along the directions in which pictures of the fit vary most, and the logarithm of what is left
    mean square of differences between neighbours, across and down, at each of three scales: logarithms
    mean, logarithm of the variance, and the square roots of the shares of pixels in eight parts of the range of brightness

The first alone call a black picture usual among pictures with dark backgrounds; the others know that none of these was black all over.
"""

from typing import Any

import numpy
import torch
from torch import Tensor
from torch.nn import functional as F

from thalweg.detect.scale import compress
from thalweg.errors import InputError
from thalweg.evaluate.extractor import check_range

SIDE = 32  # to which larger pictures are brought for what they show
DIRECTIONS, EXPLAINED = 64, 0.9  # as many as hold this share of the variance, at most so many
SEEN, LEAST = 5000, 4  # pictures by which the others are described, at most; pictures of a fit, at least
SCALES, BINS = 3, 8
LEAST_DEVIATION = 1e-3


class Pictures:
    """What pictures of a fit were: `Pictures.fit(x).encode(x)`.

    `shape` (C, H, W); `mean` [P], `basis` [P, K] of the directions, P pixels of pictures at most 32 × 32 in size; `centre`, `unit` [D] of
    the numbers before they are standardised.
    """

    def __init__(self, shape: tuple[int, ...], mean: Tensor, basis: Tensor, centre: Tensor, unit: Tensor) -> None:
        self.shape, self.mean, self.basis, self.centre, self.unit = shape, mean, basis, centre, unit

    @classmethod
    def fit(cls, x: Any) -> "Pictures":
        """Learn from pictures x [N, C, H, W] in [−1, 1], N ≥ 2. Raises InputError for anything else."""
        pictures = checked(x)
        if len(pictures) < 2:
            raise InputError("pictures: 2 or more are needed to learn from")
        shape = tuple(pictures.shape[1:])
        flat = _small(pictures).flatten(1).double()
        mean = flat.mean(0)
        _, lengths, directions = torch.linalg.svd(flat - mean, full_matrices=False)
        shares = lengths.square().cumsum(0) / lengths.square().sum().clamp_min(1e-12)
        count = max(1, min(DIRECTIONS, len(flat) // 4, int((shares < EXPLAINED).sum()) + 1, len(directions)))
        basis = directions[:count].T.contiguous()
        found = cls(shape, mean, basis, torch.zeros(()), torch.ones(()))
        numbers = found._numbers(pictures)
        found.centre, found.unit = numbers.mean(0), numbers.std(0, correction=0).clamp_min(LEAST_DEVIATION)
        return found

    def encode(self, x: Any) -> numpy.ndarray:
        """Pictures [N, C, H, W] in [−1, 1] of the shape of fit -> [N, D] float64, standardised. Raises InputError for anything else."""
        pictures = checked(x)
        if tuple(pictures.shape[1:]) != self.shape:
            raise InputError(f"pictures: got {_times(pictures.shape[1:])}, the detector was fitted to {_times(self.shape)}")
        parts = [self._numbers(part) for part in pictures.split(1024)]
        return compress(((torch.cat(parts) - self.centre) / self.unit).numpy())

    def _numbers(self, x: Tensor) -> Tensor:
        centred = _small(x).flatten(1).double() - self.mean
        along = centred @ self.basis
        left = (centred - along @ self.basis.T).square().mean(1, keepdim=True)
        return torch.cat([along, (left + 1e-5).log(), _textures(x).double()], 1)

    def tensors(self) -> dict[str, Tensor]:
        """What `of_tensors` needs."""
        return {"shape": torch.tensor(self.shape), "mean": self.mean, "basis": self.basis, "centre": self.centre, "unit": self.unit}

    @classmethod
    def of_tensors(cls, stored: dict[str, Tensor]) -> "Pictures":
        """What `tensors` gave."""
        return cls(tuple(stored["shape"].tolist()), *(stored[name].double() for name in ("mean", "basis", "centre", "unit")))


def described(count: int) -> int:
    """By how many of `count` ≥ 4 pictures the others are described; those cannot be held out."""
    return min(SEEN, max(2, count // 3))


def checked(x: Any) -> Tensor:
    """Pictures as float32 [N, C, H, W]; InputError for another shape, for values that are not finite or outside [−1, 1]."""
    pictures = torch.as_tensor(numpy.asarray(x) if not isinstance(x, Tensor) else x).detach().cpu()
    if pictures.dim() != 4 or 0 in pictures.shape or not pictures.is_floating_point():
        raise InputError(f"pictures: got {pictures.dtype} {list(pictures.shape)}, need floating-point [N, C, H, W] in [−1, 1]")
    check_range(pictures)
    return pictures.float()


def _times(shape: Any) -> str:
    return " × ".join(map(str, shape))


def _small(x: Tensor) -> Tensor:
    """At most 32 × 32, by means over blocks."""
    height, width = (min(SIDE, side) for side in x.shape[2:])
    return x if (height, width) == tuple(x.shape[2:]) else F.adaptive_avg_pool2d(x, (height, width))


def _textures(x: Tensor) -> Tensor:
    found, scaled = [], x
    for _ in range(SCALES):
        across, down = scaled.diff(dim=3), scaled.diff(dim=2)
        found += [(part.square().mean((2, 3)) + 1e-4).log() for part in (across, down) if part.numel()]
        if min(scaled.shape[2:]) < 4:
            break
        scaled = F.avg_pool2d(scaled, 2)
    found += [x.mean((2, 3)), (x.var((2, 3), correction=0) + 1e-4).log()]
    place = ((x + 1) * (BINS / 2)).floor().clamp(0, BINS - 1)
    shares = torch.stack([(place == i).float().mean((2, 3)) for i in range(BINS)], 2)
    return torch.cat([*found, shares.sqrt().flatten(1)], 1)
