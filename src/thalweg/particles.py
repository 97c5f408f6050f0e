"""Sequential Monte Carlo: populations of weighted particles that follow a sequence of densities (Del Moral et al. 2006).

Energies E_t of the noise levels, which a model samples from level to level, are tilted, E_t + r_t: by labels, by concepts. The moves of the
model are those of E_t, and the tilt goes into weights: a particle that moves from x at level t + 1 to y at level t is multiplied by
exp(r_{t+1}(x) − r_t(y)). Draws of the tilted densities are then exact as populations grow, wherever the moves are those of E_t, whether or
not the tilted densities are those of one process of noise, as products of conditional densities are not.
"""

import math
from collections.abc import Callable

import torch
from torch import Tensor

from thalweg import random
from thalweg.energy import Energy
from thalweg.metropolis import mala


class Particles:
    """`size` particles for each of `n` samples, in rows next to each other, with log-weights [n, size].

    `tilt` (y, t) -> [n·size] is r_t, in nats; at the start it counts as 0, as pure noise knows of no tilt. A population of one is a walk
    without weights, and never asks for it.
    """

    def __init__(self, n: int, size: int, tilt: Callable[[Tensor, Tensor], Tensor]) -> None:
        self.n, self.size, self.tilt = n, size, tilt
        self.log_weight: Tensor | None = None
        self.above: Tensor | float = 0.0

    def follow(self, y: Tensor, t: Tensor, move: Callable[[Tensor], Tensor], generator: random.Generator) -> Tensor:
        """Particles y [n·size, ...] that have come to level t [n·size], weighed, drawn again where few are left, and moved.

        `move` leaves the tilted density of the level as it is.
        """
        if self.size == 1:
            return move(y)
        gain = (self.above - self.tilt(y, t)).view(self.n, self.size).nan_to_num(nan=-math.inf, neginf=-math.inf)
        self.log_weight = gain if self.log_weight is None else self.log_weight + gain
        y = move(y[self._drawn_again(generator)])
        self.above = self.tilt(y, t)
        return y

    def effective(self) -> Tensor:
        """The effective number of particles, (Σ w)²/Σ w², [n] from 1 to `size` (Kong et al. 1994)."""
        return 1 / self._weights().square().sum(1)

    def chosen(self, x: Tensor, generator: random.Generator) -> Tensor:
        """One particle of each population by weight: [n·size, ...] -> [n, ...]."""
        if self.size == 1:
            return x
        point = random.uniform(self.n, 1, generator=generator, device=x.device)
        return x[self._rows(self._at(point))[:, 0]]

    def _weights(self) -> Tensor:
        return torch.zeros(self.n, self.size).softmax(1) if self.log_weight is None else self.log_weight.softmax(1)

    def _at(self, points: Tensor) -> Tensor:
        """Which particles the `points` [n, K] in [0, 1) fall on, where each has an interval as long as its weight."""
        return torch.searchsorted(self._weights().cumsum(1), points).clamp(max=self.size - 1)

    def _rows(self, which: Tensor) -> Tensor:
        return which + self.size * torch.arange(self.n, device=which.device)[:, None]

    def _drawn_again(self, generator: random.Generator) -> Tensor:
        """Rows that go on: by systematic resampling where the effective number is below half the size, else each as it is."""
        assert self.log_weight is not None
        device, few = self.log_weight.device, (self.effective() < self.size / 2)[:, None]
        each = torch.arange(self.size, device=device).expand(self.n, self.size)
        drawn = self._at((each + random.uniform(self.n, 1, generator=generator, device=device)) / self.size)
        self.log_weight = torch.where(few, 0.0, self.log_weight)
        return self._rows(torch.where(few, drawn, each)).flatten()


def corrected(
    energy: Energy, steps: int, width: float, project: Callable[[Tensor], Tensor] | None, generator: random.Generator, x: Tensor
) -> Tensor:
    """x [B, ...] after `steps` of MALA on `energy`, whose step begins at the optimum of a Gaussian of the deviation `width`, and adapts.

    Chains move in what `project` leaves free, where there is one. Without steps x is returned as it is.
    """
    if not steps:
        return x
    onto = project or (lambda z: z)
    step = 1.65 * width * x[0].numel() ** (-1 / 6)  # Roberts and Rosenthal 1998
    return onto(mala(lambda z: energy(onto(z)), x, steps=steps, step=step, target_acceptance=0.6, generator=generator))
