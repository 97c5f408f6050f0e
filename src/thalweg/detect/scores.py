"""How strange a row is, by its energies at several noise levels and that of the Gaussian; and how much of what is disturbed is noticed.

    z_k = (U_k − c_k)/s_k,  c and s the median and the mean absolute deviation of U_k over rows that were left out
    strangeness = c̄ + s̄ log mean_k exp z_k,  s̄ = 1/mean(1/s),  c̄ = s̄ mean(c/s)

The soft maximum of how far each energy is above what is usual, brought back to nats: a row is as strange as the level that finds it
strangest. A mean would let networks outvote the Gaussian where there are no data, and where what they say is not to be trusted.
"""

import math
from collections.abc import Callable
from typing import NamedTuple

import torch
from torch import Tensor

from thalweg import random

ROWS = 2000  # of the fit that are disturbed


class Usual(NamedTuple):
    """`centre` and `spread` [K] of the energies of usual rows, nats."""

    centre: Tensor
    spread: Tensor


def usual(energies: Tensor) -> Usual:
    """What is usual, by energies [N, K] of rows that were left out."""
    centre = energies.median(0).values
    spread = (energies - centre).abs().mean(0)
    return Usual(centre, spread.clamp_min(1e-6 * spread.max().clamp_min(1e-6)))


def strangeness(energies: Tensor, known: Usual) -> Tensor:
    """Energies [N, K] -> [N], nats."""
    unit = 1 / (1 / known.spread).mean()
    apart = ((energies - known.centre) / known.spread).logsumexp(1) - math.log(len(known.centre))
    return unit * ((known.centre / known.spread).mean() + apart)


def disturbed(x: Tensor, seed: int = 0) -> tuple[Tensor, dict[str, Tensor]]:
    """Which rows [M] of the fit, x [N, D], are disturbed, and what they become, [M, D] for each of `DISTURBANCES`."""
    rows = random.rows(min(ROWS, len(x)), len(x), generator=random.seeded(seed, 41))
    return rows, {name: change(x, rows, random.seeded(seed, 42, i)) for i, (name, change) in enumerate(DISTURBANCES.items())}


# --- disturbances: (all rows x [N, D], which rows [M], generator) -> [M, D]


def _mixed(x: Tensor, rows: Tensor, g: torch.Generator) -> Tensor:
    """Half of the numbers are those of another row."""
    other = x[random.integers(len(rows), 0, len(x), generator=g)]
    return torch.where(random.uniform(len(rows), x.shape[1], generator=g) < 0.5, other, x[rows])


def _moved(x: Tensor, rows: Tensor, g: torch.Generator) -> Tensor:
    """One number is anywhere in a range 1.5 times that of its column."""
    column = random.integers(len(rows), 0, x.shape[1], generator=g)
    low, high = x.amin(0)[column], x.amax(0)[column]
    place = 1.5 * random.uniform(len(rows), generator=g) - 0.25
    return x[rows].scatter(1, column[:, None], (low + place * (high - low))[:, None])


def _blurred(x: Tensor, rows: Tensor, g: torch.Generator) -> Tensor:
    """Noise of 0.3 deviations in each number."""
    return x[rows] + 0.3 * x.std(0) * random.normal(len(rows), x.shape[1], generator=g)


def _stretched(x: Tensor, rows: Tensor, g: torch.Generator) -> Tensor:
    """Half as far again from the mean."""
    return x.mean(0) + 1.5 * (x[rows] - x.mean(0))


DISTURBANCES: dict[str, Callable[[Tensor, Tensor, torch.Generator], Tensor]] = {
    "half of it from another row": _mixed,
    "one value moved": _moved,
    "noise of 0.3 deviations": _blurred,
    "half as far again from the mean": _stretched,
}
