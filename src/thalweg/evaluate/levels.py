"""Bounds of log Z of an energy of continuous noise levels, by annealed importance sampling along the levels.

    down: y_T ~ base, y_s ~ N(x̂ + (s/t)² (y_t − x̂), s²(t² − s²)/t²)        the reverse diffusion that the energy's gradients make
    up:   y_t ~ N(y_s, (t² − s²) I)                                        noise
    log w = −U(y_0, σ_min) − log base(y_T) + Σ [log N(y_t | y_s) − log N(y_s | y_t)]

E[w] over walks down is Z, so that E[log w] ≤ log Z; over walks up from exact draws of the density E[log w] ≥ log Z (Neal 2001; Grosse et
al. 2015). The kernels down are the reverses of those up but for the steps' length and the energy's errors (Doucet et al. 2022,
arXiv:2208.07698), which tempering a density of hundreds of dimensions never comes near.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from thalweg import random
from thalweg.diffusion import noise_of
from thalweg.energy import Energy
from thalweg.errors import InputError
from thalweg.evaluate.bases import Base
from thalweg.evaluate.likelihood import Bound, _log_mean_exp, _mean, effective_share
from thalweg.given import Examples, takes


@dataclass(frozen=True)
class LevelBounds:
    """log Z in nats at the lowest level, between means of log w over walks down (`lower`) and up (`upper`), with 95 % intervals.

    `upper` is a bound as far as the examples were draws of the density; None without examples. `estimate`: the log of the mean weight of
    walks down. `gap`: upper − lower. `ess`: the effective share of the weights of walks down. `steps` between levels, `walks` each way.
    """

    lower: Bound
    upper: Bound | None
    estimate: Bound
    gap: float | None
    ess: float
    steps: int
    walks: int


@takes
def level_bounds(
    energy: Energy,
    base: Base,
    levels: Sequence[float],
    *,
    x: Examples | None = None,
    walks: int = 128,
    batch: int = 128,
    seed: int = 0,
    device: str | torch.device = "cpu",
) -> LevelBounds:
    """log Z of energy(y, sigma=σ) at levels[-1], from `base`, the law at levels[0], and examples x [N, ...] of the density at levels[-1].

    `levels` fall; n of them bring the bounds together as 1/n, and sooner if they are even in log σ. `walks` each way, `batch` at a time.
    Raises InputError for levels that do not fall, fewer than 2 walks or examples, and where weights are not finite.
    """
    if len(levels) < 2 or any(not low > 0 or not high > low for high, low in zip(levels, levels[1:])):
        raise InputError("level_bounds: levels must fall from one to the next and stay above 0")
    if walks < 2 or (x is not None and len(x) < 2):
        raise InputError("level_bounds: needs 2 walks and 2 examples or more")
    down, up = [], []
    for i, size in enumerate(min(batch, walks - done) for done in range(0, walks, batch)):
        generator = random.seeded(seed, 21, i, device=device)
        down.append(_down(energy, base, levels, size, generator, device))
        if x is not None:
            chosen = x[random.integers(size, 0, len(x), generator=random.seeded(seed, 22, i))].to(device)
            up.append(_up(energy, base, levels, chosen, generator))
    log_w = torch.cat(down)
    if not log_w.isfinite().all():
        raise InputError("level_bounds: weights that are not finite; the energy is, or its gradient, at some level")
    lower, upper = _mean(log_w), _mean(torch.cat(up)) if up else None
    gap = None if upper is None else upper.value - lower.value
    return LevelBounds(lower, upper, _log_mean_exp(log_w, seed), gap, effective_share(log_w), len(levels) - 1, walks)


def _down(energy: Energy, base: Base, levels: Sequence[float], n: int, generator: torch.Generator, device: str | torch.device) -> Tensor:
    y = base.sample(n, generator=generator).to(device)
    log_w = -base.log_prob(y).double()
    for t, s in zip(levels, levels[1:]):
        mean, std = _reverse(energy, y, t, s)
        below = mean + std * random.normal_like(y, generator)
        log_w += _log_normal(y - below, math.sqrt(t**2 - s**2)) - _log_normal(below - mean, std)
        y = below
    return (log_w - _value(energy, y, levels[-1])).cpu()


def _up(energy: Energy, base: Base, levels: Sequence[float], x: Tensor, generator: torch.Generator) -> Tensor:
    log_w, y = -_value(energy, x, levels[-1]), x
    for s, t in zip(levels[::-1], levels[-2::-1]):
        above = y + math.sqrt(t**2 - s**2) * random.normal_like(y, generator)
        mean, std = _reverse(energy, above, t, s)
        log_w += _log_normal(above - y, math.sqrt(t**2 - s**2)) - _log_normal(y - mean, std)
        y = above
    return (log_w - base.log_prob(y).double()).cpu()


def _reverse(energy: Energy, y: Tensor, t: float, s: float) -> tuple[Tensor, float]:
    """Mean and deviation of y_s given y_t as if x were x̂ exactly."""
    x0 = y - t * noise_of(energy)(y, t)
    return x0 + (s / t) ** 2 * (y - x0), s * math.sqrt(t**2 - s**2) / t


@torch.no_grad()
def _value(energy: Energy, y: Tensor, sigma: float) -> Tensor:
    return energy(y, sigma=sigma).double()


def _log_normal(offset: Tensor, std: float) -> Tensor:
    flat = offset.flatten(1).double()
    return -0.5 * (flat / std).square().sum(1) - flat.shape[1] * (math.log(std) + 0.5 * math.log(2 * math.pi))
