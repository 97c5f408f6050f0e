"""By which parts of what is known of pictures to judge them, chosen without outliers: those that best tell disturbed ones from others."""

from collections.abc import Callable
from itertools import combinations

import numpy
import torch
from torch import Tensor

from thalweg import random
from thalweg.detect import scores

MOST = 200  # pictures that are disturbed


def auroc(usual: numpy.ndarray, strange: numpy.ndarray) -> float:
    """The share of pairs in which the second is stranger, ties counted half."""
    ordered = numpy.sort(usual)
    below = numpy.searchsorted(ordered, strange, "left") + numpy.searchsorted(ordered, strange, "right")
    return float(below.mean() / (2 * len(usual)))


def choose(
    x: Tensor, fold: Tensor, energies: Tensor, energies_of: Callable[[Tensor, Tensor], Tensor], parts: tuple[str, ...], seed: int
) -> tuple[tuple[int, ...], dict[str, float]]:
    """Which `parts`, by number, and the mean AUROC of each choice, "a", "b", "a+b".

    x [N, C, H, W] with the member `fold` [N] that left each out, −1 for none; `energies` [N, parts · K], those of one part after the
    other; `energies_of` other pictures [M, C, H, W], by the members that [M] names.
    """
    held_out = (fold >= 0).nonzero()[:, 0]
    rows = held_out[random.rows(min(MOST, len(held_out)), len(held_out), generator=random.seeded(seed, 43))]
    by_kind = [
        energies_of(change(x, rows, random.seeded(seed, 44, i)).clamp(-1, 1), fold[rows]) for i, change in enumerate(DISTURBANCES.values())
    ]
    own = torch.arange(energies.shape[1]).view(len(parts), -1)
    found: dict[tuple[int, ...], float] = {}
    for count in range(1, len(parts) + 1):
        for some in combinations(range(len(parts)), count):
            columns = own[list(some)].flatten()
            usual = scores.usual(energies[held_out][:, columns])
            plain = scores.strangeness(energies[rows][:, columns], usual).numpy()
            areas = [auroc(plain, scores.strangeness(other[:, columns], usual).numpy()) for other in by_kind]
            found[some] = sum(areas) / len(areas)
    best = max(found, key=found.__getitem__)
    return best, {"+".join(parts[i] for i in some): value for some, value in found.items()}


# --- disturbances: (all pictures [N, C, H, W], which [M], generator) -> [M, C, H, W]


def _halves(x: Tensor, rows: Tensor, g: torch.Generator) -> Tensor:
    """The right half is that of another picture."""
    other, wide = x[random.integers(len(rows), 0, len(x), generator=g)], x.shape[3]
    return torch.cat([x[rows][..., : wide // 2], other[..., wide // 2 :]], 3)


def _means(x: Tensor, rows: Tensor, g: torch.Generator) -> Tensor:
    """The mean of two pictures."""
    return 0.5 * (x[rows] + x[random.integers(len(rows), 0, len(x), generator=g)])


def _noise(x: Tensor, rows: Tensor, g: torch.Generator) -> Tensor:
    """Noise of a tenth of the range in each pixel."""
    return x[rows] + 0.2 * random.normal(*x[rows].shape, generator=g)


def _turned(x: Tensor, rows: Tensor, g: torch.Generator) -> Tensor:
    """Upside down."""
    return x[rows].flip(2)


def _patch(x: Tensor, rows: Tensor, g: torch.Generator) -> Tensor:
    """A quarter of the area, anywhere, is grey."""
    high, wide = x.shape[2:]
    top, left = (random.integers(len(rows), 0, max(1, side - side // 2 + 1), generator=g)[:, None, None] for side in (high, wide))
    down, across = torch.arange(high)[:, None] - top, torch.arange(wide) - left
    inside = (down >= 0) & (down < max(1, high // 2)) & (across >= 0) & (across < max(1, wide // 2))
    return torch.where(inside[:, None], torch.zeros(()), x[rows])


DISTURBANCES: dict[str, Callable[[Tensor, Tensor, torch.Generator], Tensor]] = {
    "half of another picture": _halves,
    "means of two": _means,
    "noise": _noise,
    "upside down": _turned,
    "a grey patch": _patch,
}
