"""Linear operators A that degrade images, each with its Moore–Penrose inverse A⁺: what `restore` takes off again.

    y = A x     known pixels, averages of blocks, grey, blurred, or any matrix

Of all images, x − A⁺(A x − y) is the nearest to x that A maps onto y (null-space projection; Wang et al. 2023, DDNM, eq. 7).
"""

import math
from abc import ABC, abstractmethod
from collections.abc import Callable
from dataclasses import dataclass, fields, replace
from numbers import Integral
from typing import Any, Self, final

import torch
from torch import Tensor
from torch.nn import functional as F

from thalweg import random
from thalweg.errors import InputError, nearest
from thalweg.given import Numbers, takes
from thalweg.tasks import masks

MOST_ENTRIES = 4096  # of an image whose operator is built as a matrix: 64 MiB in float32


class LinearOperator(ABC):
    """A linear map of images, row by row: `forward` A [B, C, H, W] -> [B, ...] and `pseudo_inverse` A⁺ back."""

    @abstractmethod
    def forward(self, x: Tensor) -> Tensor:
        """A x. Raises InputError for images that A does not fit."""

    @abstractmethod
    def pseudo_inverse(self, y: Tensor) -> Tensor:
        """A⁺ y, the shortest of all x for which A x is nearest to y."""

    def project(self, x: Tensor, y: Tensor) -> Tensor:
        """x − A⁺(A x − y): the image nearest to x for which A x = y, or is as near to y as A reaches."""
        return x - self.pseudo_inverse(self.forward(x) - y)

    def rows(self, index: Tensor) -> "LinearOperator":
        """The operator of images `index` [n], where each image has its own."""
        return self

    def to(self, device: torch.device | str) -> Self:
        """The same operator with its tensors on a device."""
        operator: Any = self  # every operator is a dataclass
        held = {f.name: getattr(self, f.name) for f in fields(operator)}
        return replace(operator, **{name: value.to(device) for name, value in held.items() if isinstance(value, Tensor)})


# --- known pixels


@final
@dataclass(frozen=True, eq=False)
class Mask(LinearOperator):
    """Keeps pixels where `known` [1 | B, 1 | C, H, W] is true and gives 0 elsewhere; A⁺ = A. Made by `mask`."""

    known: Tensor

    def forward(self, x: Tensor) -> Tensor:
        wanted = [1 if one == 1 else size for one, size in zip(self.known.shape, x.shape)]
        if x.dim() != 4 or wanted != list(self.known.shape):
            raise InputError(f"mask: got shape {list(self.known.shape)}, which does not fit images {list(x.shape)}")
        return torch.where(self.known, x, 0.0)

    def pseudo_inverse(self, y: Tensor) -> Tensor:
        return self.forward(y)

    def project(self, x: Tensor, y: Tensor) -> Tensor:
        return torch.where(self.known, y, x)  # by choice, not by sums: what is known stays equal to the last bit

    def rows(self, index: Tensor) -> "Mask":
        return self if len(self.known) == 1 else Mask(self.known[index])


@takes
def mask(known: Numbers) -> Mask:
    """The operator of known pixels: A x is x where `known` is 1 and 0 where it is 0, A⁺ = A.

    known: bool, or numbers 0 and 1: [H, W] or [1 | C, H, W] for all images, [B, 1 | C, H, W] for each its own. Raises InputError
    for other shapes and values.
    """
    if known.dim() not in (2, 3, 4) or not known.numel():
        raise InputError(f"mask: got shape {list(known.shape)}, need [H, W], [1 | C, H, W] or [B, 1 | C, H, W]")
    if known.dtype != torch.bool:
        if not ((known == 0) | (known == 1)).all():
            raise InputError("mask: values must be 1 (known) or 0 (missing), got others")
        known = known == 1
    return Mask(known[(None,) * (4 - known.dim())])


def check_partial(task: str, operator: Mask) -> None:
    """Raises InputError where a mask leaves nothing to fill in, or says nothing of an image."""
    known = operator.known.flatten(1)
    if known.all(1).any():
        raise InputError(f"{task}: nothing is missing from {int(known.all(1).sum())} of {len(known)} masks (1 is known, 0 missing)")
    if not known.any(1).all():
        raise InputError(
            f"{task}: nothing is known by {int((~known.any(1)).sum())} of {len(known)} masks (1 known, 0 missing): such images are samples"
        )


# --- averages


@final
@dataclass(frozen=True)
class AveragePool(LinearOperator):
    """Means of `factor` × `factor` blocks; A⁺ repeats each mean over its block. Made by `average_pool`."""

    factor: int

    def forward(self, x: Tensor) -> Tensor:
        if x.dim() != 4 or x.shape[2] % self.factor or x.shape[3] % self.factor:
            raise InputError(f"average_pool: sides of images {list(x.shape)} do not divide by {self.factor}")
        return F.avg_pool2d(x, self.factor)

    def pseudo_inverse(self, y: Tensor) -> Tensor:
        return F.interpolate(y, scale_factor=self.factor, mode="nearest")


def average_pool(factor: int) -> AveragePool:
    """The operator that averages blocks of `factor` × `factor` pixels: y [B, C, H/factor, W/factor]; factor ≥ 1 divides H and W."""
    if not isinstance(factor, Integral) or factor < 1:
        raise InputError(f"average_pool: the factor must be a whole number of 1 or more, got {factor!r}")
    return AveragePool(factor)


@final
@dataclass(frozen=True)
class Grey(LinearOperator):
    """The mean over channels; A⁺ repeats it. Made by `grey`."""

    channels: int

    def forward(self, x: Tensor) -> Tensor:
        if x.dim() != 4 or x.shape[1] != self.channels:
            raise InputError(f"grey: made for images of {self.channels} channels, got shape {list(x.shape)}")
        return x.mean(1, keepdim=True)

    def pseudo_inverse(self, y: Tensor) -> Tensor:
        return y.expand(-1, self.channels, -1, -1)


def grey(channels: int = 3) -> Grey:
    """The operator that takes the mean over `channels`, all of one weight: y [B, 1, H, W]."""
    if not isinstance(channels, Integral) or channels < 1:
        raise InputError(f"grey: channels must be a whole number of 1 or more, got {channels!r}")
    return Grey(channels)


# --- blur


@final
@dataclass(frozen=True, eq=False)
class Blur(LinearOperator):
    """Circular convolution with a Gaussian of `std` pixels or with `kernel` [h, w], by FFT. Made by `blur`."""

    std: float
    kernel: Tensor | None
    threshold: float

    def transfer(self, height: int, width: int, like: Tensor) -> Tensor:
        """The eigenvalues of A, [H, W/2 + 1] complex; their sizes are its singular values."""
        if self.kernel is None:
            # a Gaussian on a circle is the sum of its copies; a row and a column, as it factorises
            point = _gaussian(height, self.std)[:, None] * _gaussian(width, self.std)
        else:
            h, w = self.kernel.shape
            if h > height or w > width:
                raise InputError(f"blur: a kernel of {h} × {w} pixels is larger than images of {height} × {width}")
            point = F.pad(self.kernel, (0, width - w, 0, height - h)).roll((-(h // 2), -(w // 2)), (0, 1))
        return torch.fft.rfft2(point.to(like))

    def forward(self, x: Tensor) -> Tensor:
        if x.dim() != 4:
            raise InputError(f"blur: got shape {list(x.shape)}, need images [B, C, H, W]")
        return torch.fft.irfft2(torch.fft.rfft2(x) * self.transfer(x.shape[2], x.shape[3], x), s=x.shape[2:])

    def pseudo_inverse(self, y: Tensor) -> Tensor:
        transfer = self.transfer(y.shape[2], y.shape[3], y)
        size = transfer.abs()
        kept = size > self.threshold * size.max()
        inverse = torch.where(kept, transfer.conj() / size.square().where(kept, 1.0), 0.0)
        return torch.fft.irfft2(torch.fft.rfft2(y) * inverse, s=y.shape[2:])


def _gaussian(side: int, std: float) -> Tensor:
    turns = math.ceil(6 * std / side) + 1
    copies = torch.arange(side, dtype=torch.float64) + side * torch.arange(-turns, turns + 1)[:, None]
    weight = torch.exp(-copies.square() / (2 * std**2)).sum(0)
    return weight / weight.sum()


@takes
def blur(std: float | None = None, kernel: Numbers | None = None, *, threshold: float = 0.01) -> Blur:
    """The operator that blurs with a Gaussian of `std` pixels or with a `kernel` [h, w] of odd sides; edges wrap around.

    Singular values up to `threshold` in [0, 1) times the largest count as 0 in A⁺: what they carried is lost, and would come back
    as noise a hundred times as large. On what is left A and A⁺ are a Moore–Penrose pair. Raises InputError for std ≤ 0 and
    for kernels of another shape, not finite, or all 0.
    """
    if (std is None) == (kernel is None):
        raise InputError("blur: give either std or a kernel")
    if std is not None and not 0 < std < math.inf:
        raise InputError(f"blur: std must be above 0 and finite, got {std}")
    if not 0 <= threshold < 1:
        raise InputError(f"blur: the threshold must be in [0, 1), got {threshold}")
    if kernel is not None:
        if kernel.dim() != 2 or not all(side % 2 for side in kernel.shape):
            raise InputError(f"blur: got a kernel {list(kernel.shape)}, need [h, w] with odd sides")
        if not kernel.isfinite().all() or not kernel.any():
            raise InputError("blur: the kernel holds NaN or infinity, or nothing but 0")
        kernel = kernel.double()
    return Blur(0.0 if std is None else std, kernel, threshold)


# --- matrices


@final
@dataclass(frozen=True, eq=False)
class Matrix(LinearOperator):
    """y = A x for flattened images, with A⁺ from its singular values. Made by `matrix` and `from_function`."""

    a: Tensor
    inverse: Tensor
    shape: tuple[int, ...]
    measured: tuple[int, ...]

    def forward(self, x: Tensor) -> Tensor:
        if tuple(x.shape[1:]) != self.shape:
            raise InputError(f"matrix: made for images of shape {list(self.shape)}, got {list(x.shape[1:])}")
        return (x.flatten(1) @ self.a.to(x).T).view(-1, *self.measured)

    def pseudo_inverse(self, y: Tensor) -> Tensor:
        return (y.flatten(1) @ self.inverse.to(y).T).view(-1, *self.shape)


@takes
def matrix(a: Numbers, shape: tuple[int, ...], *, rtol: float = 1e-5) -> Matrix:
    """The operator of a matrix `a` [m, d] on images of `shape`, flattened to d entries: y [B, m].

    A⁺ is `torch.linalg.pinv` in float64; singular values up to `rtol` times the largest count as 0 (float32 images carry no
    more). Raises InputError where d is not the number of entries, or above 4096, and for values that are not finite.
    """
    shape = _checked_shape(shape)
    if a.dim() != 2 or a.shape[1] != math.prod(shape) or not len(a):
        raise InputError(f"matrix: got shape {list(a.shape)}, need [m, {math.prod(shape)}] for images of shape {list(shape)}")
    if not a.isfinite().all():
        raise InputError("matrix: it holds NaN or infinity")
    a = a.detach().double()
    return Matrix(a, torch.linalg.pinv(a, rtol=rtol), shape, (len(a),))


def from_function(forward: Callable[[Tensor], Tensor], shape: tuple[int, ...], *, rtol: float = 1e-5) -> Matrix:
    """The operator of one's own linear function of images of `shape`, [B, *shape] -> [B, ...]: its matrix, from the basis images.

    Raises InputError for a function that is not linear (tried on two random images), gives other than one finite float row an
    image, or takes images of more than 4096 entries; for the rest see `matrix`.
    """
    shape = _checked_shape(shape)
    size = math.prod(shape)
    generator = random.seeded(0, size)
    one, two = random.normal(1, *shape, generator=generator), random.normal(1, *shape, generator=generator)
    with torch.no_grad():
        images = torch.cat([one, two, 2 * one - 3 * two, torch.zeros_like(one)])
        found = forward(images)
        if not isinstance(found, Tensor) or not found.is_floating_point() or len(found) != 4 or not found.isfinite().all():
            raise InputError("from_function: the function must give one finite floating-point row for each image")
        error = (found[2] - 2 * found[0] + 3 * found[1]).abs().max() + found[3].abs().max()
        if not error <= 1e-4 * found.abs().max():
            raise InputError("from_function: the function is not linear: f(2a − 3b) is not 2 f(a) − 3 f(b), or f(0) is not 0")
        basis = torch.eye(size).view(size, *shape)
        a = torch.cat([forward(part).flatten(1) for part in basis.split(256)]).T
    return replace(matrix(a, shape, rtol=rtol), measured=tuple(found.shape[1:]))


def _checked_shape(shape: tuple[int, ...]) -> tuple[int, ...]:
    shape = tuple(shape)
    if not shape or any(not isinstance(side, Integral) or side < 1 for side in shape) or math.prod(shape) > MOST_ENTRIES:
        raise InputError(f"matrix: got images of shape {list(shape)}, need sides of 1 or more and at most {MOST_ENTRIES} entries in all")
    return shape


# --- by name


def named(text: str, shape: tuple[int, ...], *, seed: int = 0) -> LinearOperator:
    """The operator that `text` names, for images of `shape` [C, H, W]: pool:2, grey, blur:1.0 or mask:KIND (see `masks.named`)."""
    kind, _, value = text.partition(":")
    made: dict[str, Callable[[], Any]] = {
        "pool": lambda: average_pool(int(value)),
        "grey": lambda: grey(shape[0]),
        "blur": lambda: blur(float(value)),
        "mask": lambda: mask(masks.named(value, shape, seed=seed)),
    }
    if kind not in made or (kind == "grey" and value):
        raise InputError(f"unknown operator '{text}'{nearest(kind, made)}. Operators: pool:2, grey, blur:1.0, mask:centre:0.25")
    try:
        return made[kind]()
    except InputError:
        raise
    except ValueError:
        raise InputError(f"operator '{text}': {value!r} is not a number; for example pool:2, blur:1.0") from None
