"""The grey values that images are of, and their bins: what a likelihood in bits is quoted with."""

from typing import NamedTuple

from torch import Tensor

from thalweg import random
from thalweg.errors import InputError
from thalweg.given import Examples, takes

MOST = 2**16  # grey values, beyond which values count as continuous


class Bins(NamedTuple):
    """`grey_values` even steps of `width` from the least value to the greatest."""

    width: float
    grey_values: int


@takes
def grey_bins(x: Examples) -> Bins | None:
    """The bins of values that all lie on a grid of even steps, as those of 17 grey values or of 8 bits do; None for continuous values.

    x: floating-point, finite, of any shape, for example all training images. The step is the largest of which all differences are
    multiples, to a hundredth of a step; a set whose values are nearly all different is continuous.
    """
    if not x.is_floating_point() or not x.numel() or not x.isfinite().all():
        raise InputError(f"grey_bins: needs finite floating-point values, got {x.dtype} {list(x.shape)}")
    values = x.double().unique()
    if len(values) < 2 or len(values) > min(MOST, max(2, x.numel() // 4)):
        return None
    gaps = values.diff()
    gaps = gaps[gaps > 1e-6]  # what rounding to float32 has split
    step = float(gaps.min())
    for gap in gaps.unique().tolist():  # Euclid's algorithm, to the precision of float32
        a, b = gap, step
        while b > 1e-5:
            rest = abs(a - round(a / b) * b)
            a, b = b, rest if rest > 0.01 * step else 0.0
        step = a
    span = float(values[-1] - values[0])
    count = round(span / step) + 1
    off = ((values - values[0]) / step).frac().sub(0.5).abs().sub(0.5).abs()
    return Bins(span / (count - 1), count) if 2 <= count <= MOST and float(off.max()) < 0.02 else None


@takes
def dequantise(x: Examples, bins: Bins, generator: random.Generator = None) -> Tensor:
    """x + width·(u − ½) with u ~ U[0, 1): values spread over their bins, whose density bounds the discrete one (Theis et al. 2016)."""
    return x + bins.width * (random.uniform(*x.shape, generator=generator, device=x.device) - 0.5)
