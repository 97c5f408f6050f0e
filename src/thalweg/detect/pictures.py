"""Pictures as rows of numbers, of which a density is learned: what they show, how rough they are at several scales, how bright.

    coordinates along the directions in which pictures of the fit vary most, and the logarithm of what is left
    mean square of differences between neighbours, across and down, at each of three scales: logarithms
    mean, logarithm of the variance, and the square roots of the shares of pixels in eight parts of the range of brightness

The first alone call a black picture usual among pictures with dark backgrounds; the others know that none of these was black all over.
Of a frozen network: coordinates along the directions in which its features vary most, and the logarithm of what is left. Of energies, those
of a small model that was trained on pictures of the fit: see `detect.energies`.
"""

from collections.abc import Callable
from functools import lru_cache, partial
from typing import Any

import numpy
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from thalweg import random
from thalweg.detect.energies import PictureEnergies
from thalweg.detect.scale import compress
from thalweg.errors import InputError, nearest
from thalweg.evaluate.extractor import check_range

PIXELS, ENERGIES = "pixels", "energies"
NETWORKS = ("efficientnet-lite0",)
PARTS = (PIXELS, ENERGIES, *NETWORKS)
SIDE = 32  # to which larger pictures are brought for what they show
DIRECTIONS, EXPLAINED = 64, 0.9  # as many as hold this share of the variance, at most so many
SEEN, LEAST = 5000, 4  # pictures by which the others are described, at most; pictures of a fit, at least
SCALES, BINS = 3, 8
LEAST_DEVIATION = 1e-3
AT_ONCE = 256  # pictures


class Along(nn.Module):
    """Where rows lie along the directions in which those of a fit vary most, and the logarithm of what is left: [N, P] -> [N, K + 1]."""

    mean: Tensor
    basis: Tensor

    def __init__(self, mean: Tensor, basis: Tensor) -> None:
        super().__init__()
        self.register_buffer("mean", mean.double())
        self.register_buffer("basis", basis.double())

    @classmethod
    def fit(cls, rows: Tensor) -> "Along":
        rows = rows.double()
        mean = rows.mean(0)
        _, lengths, directions = torch.linalg.svd(rows - mean, full_matrices=False)
        shares = lengths.square().cumsum(0) / lengths.square().sum().clamp_min(1e-12)
        count = max(1, min(DIRECTIONS, len(rows) // 4, int((shares < EXPLAINED).sum()) + 1, len(directions)))
        return cls(mean, directions[:count].T.contiguous())

    @property
    def width(self) -> int:
        """How many numbers a row has."""
        return self.basis.shape[1] + 1

    def tensors(self) -> dict[str, Tensor]:
        return {"mean": self.mean, "basis": self.basis}

    def forward(self, rows: Tensor) -> Tensor:
        centred = rows.double() - self.mean
        along = centred @ self.basis
        left = (centred - along @ self.basis.T).square().mean(1, keepdim=True)
        return torch.cat([along, (left + 1e-5).log()], 1)


class Pixels(nn.Module):
    """What pixels say of pictures [N, C, H, W] of one shape: [N, D] float64, by operations that runtimes have for it."""

    def __init__(self, shape: tuple[int, ...], along: Along | None) -> None:
        super().__init__()
        self.along = along
        for name, side in (("down", shape[1]), ("across", shape[2])):
            mean_of = F.adaptive_avg_pool1d(torch.eye(side, dtype=torch.float64), SIDE) if side > SIDE else None
            self.register_buffer(name, mean_of)

    def small(self, x: Tensor) -> Tensor:
        """At most 32 × 32, by means over blocks, as rows."""
        down, across = self.get_buffer("down"), self.get_buffer("across")
        x = x.double() if across is None else x.double() @ across
        return (x if down is None else down.T @ x).flatten(1)

    def forward(self, x: Tensor) -> Tensor:
        assert self.along is not None
        return torch.cat([self.along(self.small(x)), textures(x.double())], 1)


class Pictures:
    """What pictures of a fit were: `Pictures.fit(x).encode(x)`.

    `shape` (C, H, W); `along`, by part (pixels, energies, a network), what makes numbers of it: for pixels and networks the directions of
    what they say; `centre`, `unit` [D] of the numbers before they are standardised, which are those of one part after the other.
    """

    def __init__(self, shape: tuple[int, ...], along: dict[str, Along | PictureEnergies], centre: Tensor, unit: Tensor) -> None:
        self.shape, self.along, self.centre, self.unit = shape, along, centre, unit

    @classmethod
    def fit(
        cls, x: Any, features: str = PIXELS, *, seconds: float = 60.0, note: Callable[[float], None] = lambda share: None
    ) -> "Pictures":
        """Learn from pictures x [N, C, H, W] in [−1, 1], N ≥ 2. Raises InputError for anything else.

        `seconds`: that energies may be trained for, about; `note` is told the share that is done of it.
        """
        pictures, parts = checked(x), parts_of(features)
        if len(pictures) < 2:
            raise InputError("pictures: 2 or more are needed to learn from")
        shape = tuple(pictures.shape[1:])
        along: dict[str, Along | PictureEnergies] = {}
        for part in parts:
            if part == ENERGIES:
                along[part] = PictureEnergies.fit(pictures, seconds, note)
                continue
            look = Pixels(shape, None).small if part == PIXELS else partial(features_of, part)
            along[part] = Along.fit(torch.cat([look(some) for some in pictures.split(AT_ONCE)]))
        found = cls(shape, along, torch.zeros(()), torch.ones(()))
        numbers = torch.cat([found._numbers(some) for some in pictures.split(AT_ONCE)])
        found.centre, found.unit = numbers.mean(0), numbers.std(0, correction=0).clamp_min(LEAST_DEVIATION)
        return found

    @property
    def features(self) -> str:
        return "+".join(self.along)

    @property
    def widths(self) -> list[int]:
        """How many numbers each part gives."""
        others = [along.width for part, along in self.along.items() if part != PIXELS]
        return [len(self.centre) - sum(others)] * (PIXELS in self.along) + others

    @property
    def apart(self) -> list[bool]:
        """Which parts say other things of the pictures that they were learned from than of new ones."""
        return [part == ENERGIES for part in self.along]

    def only(self, part: str) -> "Pictures":
        """One of the parts."""
        start = sum(self.widths[: list(self.along).index(part)])
        own = slice(start, start + self.widths[list(self.along).index(part)])
        return Pictures(self.shape, {part: self.along[part]}, self.centre[own], self.unit[own])

    def encode(self, x: Any, note: Callable[[float], None] = lambda share: None) -> numpy.ndarray:
        """Pictures [N, C, H, W] in [−1, 1] of the shape of fit -> [N, D] float64, standardised. Raises InputError for anything else.

        `note` is told the share that is done.
        """
        pictures = checked(x)
        if tuple(pictures.shape[1:]) != self.shape:
            raise InputError(f"pictures: got {_times(pictures.shape[1:])}, the detector was fitted to {_times(self.shape)}")
        found = []
        for part in pictures.split(AT_ONCE if self.features == PIXELS else 64):
            found.append(self._numbers(part))
            note(sum(map(len, found)) / len(pictures))
        return compress(((torch.cat(found) - self.centre) / self.unit).numpy())

    def _numbers(self, x: Tensor) -> Tensor:
        return torch.cat([self._numbers_of(part, along, x) for part, along in self.along.items()], 1)

    def _numbers_of(self, part: str, along: Along | PictureEnergies, x: Tensor) -> Tensor:
        if isinstance(along, PictureEnergies):
            return along(x)
        return Pixels(self.shape, along)(x) if part == PIXELS else along(features_of(part, x))

    def tensors(self) -> dict[str, Tensor]:
        """What `of_tensors` needs."""
        known = {f"{part}.{name}": value for part, along in self.along.items() for name, value in along.tensors().items()}
        return {"shape": torch.tensor(self.shape), "centre": self.centre, "unit": self.unit} | known

    @classmethod
    def of_tensors(cls, stored: dict[str, Tensor]) -> "Pictures":
        """What `tensors` gave."""
        along: dict[str, Along | PictureEnergies] = {}
        for part in PARTS:
            own = {key.removeprefix(f"{part}."): value for key, value in stored.items() if key.startswith(f"{part}.")}
            if own:
                along[part] = PictureEnergies.of_tensors(own) if part == ENERGIES else Along(own["mean"], own["basis"])
        return cls(tuple(stored["shape"].tolist()), along, stored["centre"].double(), stored["unit"].double())


def learned(
    x: Any, features: str, seconds: float, note: Callable[[float], None] = lambda share: None
) -> tuple[Pictures, Tensor, numpy.ndarray]:
    """`Pictures` of some of x [N, C, H, W], which these are, [M], and the numbers of all, [N, D]; see `Pictures.fit`, `encode`.

    Raises InputError for less than 4 pictures.
    """
    if len(x) < LEAST:
        raise InputError(f"pictures: {LEAST} or more are needed to learn from, got {len(x)}")
    rows, training = random.rows(described(len(x)), len(x), generator=random.seeded(36)), 0.8 * (ENERGIES in features)
    pictures = Pictures.fit(x[rows], features, seconds=seconds, note=lambda share: note(training * share))
    return pictures, rows, pictures.encode(x, lambda share: note(training + (1 - training) * share))


def parts_of(features: Any) -> tuple[str, ...]:
    """The parts of `features`, such as pixels+efficientnet-lite0, in their order. Raises InputError for others."""
    known = PARTS
    given = features.split("+") if isinstance(features, str) else [features]
    for name in given:
        if name not in known:
            hint = nearest(name, known) if isinstance(name, str) else ""
            raise InputError(f"features takes {', '.join(known)}, or several with + between, got {features!r}{hint}")
    return tuple(name for name in known if name in given)


@lru_cache(maxsize=1)
def network(name: str) -> Any:
    """The frozen network of a name."""
    from thalweg.evaluate.pretrained import extractor_by_name

    return extractor_by_name(name)


def features_of(name: str, x: Tensor) -> Tensor:
    """Features [N, F] of pictures [N, C, H, W] by a frozen network."""
    return network(name).features(x, batch=64)


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


def textures(x: Tensor) -> Tensor:
    """How rough and how bright pictures [N, C, H, W] float64 are: [N, D]."""
    found, scaled = [], x
    for _ in range(SCALES):
        parts = (scaled[..., 1:] - scaled[..., :-1], scaled[..., 1:, :] - scaled[..., :-1, :])
        found += [(part.square().mean((2, 3)) + 1e-4).log() for part in parts if 0 not in part.shape]
        high, wide = (side // 2 for side in scaled.shape[2:])
        if min(scaled.shape[2:]) < 4:
            break
        scaled = scaled[..., : 2 * high, : 2 * wide].unflatten(3, (wide, 2)).unflatten(2, (high, 2)).mean((3, 5))
    mean = x.mean((2, 3), keepdim=True)
    found += [mean[..., 0, 0], ((x - mean).square().mean((2, 3)) + 1e-4).log()]
    place = ((x + 1) * (BINS / 2)).floor().clamp(0, BINS - 1)
    shares = torch.stack([(place == i).double().mean((2, 3)) for i in range(BINS)], 2)
    return torch.cat([*found, shares.sqrt().flatten(1)], 1)
