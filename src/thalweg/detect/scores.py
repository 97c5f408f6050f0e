"""How strange a row is, by its energies at several noise levels; and how much of what is disturbed a detector notices.

    strangeness = Σ_σ w_σ U_σ,  w_σ ∝ 1/(mean absolute deviation of U_σ over rows that were left out),  Σ w = 1

The energy of the logarithmic pool of the densities at all levels (Genest and Zidek 1986), −log Π p_σ^w up to a constant: in nats. Each
level counts by how far a row is from what is usual at that level.
"""

from collections.abc import Callable

import torch
from torch import Tensor

from thalweg import random

ROWS = 2000  # of the fit that are disturbed


def pool(energies: Tensor) -> Tensor:
    """The weights [levels], by energies [N, levels] of rows that were left out."""
    spread = (energies - energies.median(0).values).abs().mean(0)
    weights = 1 / spread.clamp_min(1e-6 * spread.max().clamp_min(1e-6))
    return weights / weights.sum()


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
