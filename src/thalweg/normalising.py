"""log Z of an energy at every noise level from the highest down, by thermodynamic integration with noised data in place of its own draws.

    log Z(τ_top) = log E₀ exp(U₀ − U),   d log Z/dτ = −E ∂U/∂τ = −E ∂(U − U₀)/∂τ − E ∂U₀/∂τ,   τ = log σ

U₀ is the exact energy of a Gaussian, whose part is known in closed form: 0 where it has the data's mean and covariance. Data stand in for
the model: what is found is off by about the divergence between them, and blind to mass that the model has where no data are.
"""

import math
from collections.abc import Callable

import torch
from torch import Tensor

from thalweg import random

PILOT = 0.1  # share of the draws that are spread evenly; the others go where they vary most


@torch.no_grad()
def log_z_by_level(
    correction: Callable[[Tensor, Tensor], Tensor], x: Tensor, low: float, high: float, *, intervals: int, draws: int, batch: int,
    known: Tensor, top: Tensor, generator: torch.Generator, note: Callable[[float], None] = lambda share: None,
) -> tuple[Tensor, float]:  # fmt: skip
    """log Z at `intervals` + 1 even places of log σ from `low` to `high`, [intervals + 1], and the standard error of the first.

    correction (y [B, ...], log σ [B]) -> [B] is U − U₀ in nats, `known` [intervals] the mean change of U₀ over each interval; x [N, ...]
    are examples, of which `draws` are taken, `batch` at a time; `top` are draws of the Gaussian U₀ at the highest level. `note` is told the
    share that is done.
    """
    device, h = x.device, (high - low) / intervals
    total, squares, count = (torch.zeros(intervals, dtype=torch.float64) for _ in range(3))
    share = torch.full((intervals,), 1.0 / intervals, dtype=torch.float64)
    rounds = max(2, math.ceil(draws / batch))
    pilot = max(1, round(PILOT * rounds))
    for i in range(rounds):
        if i == pilot:
            std = (squares / count.clamp_min(1) - (total / count.clamp_min(1)).square()).clamp_min(0).sqrt()
            share = 0.9 * std / std.sum().clamp_min(1e-12) + 0.1 / intervals
        place = (torch.arange(batch, dtype=torch.float64) + random.uniform(batch, generator=generator).double()) / batch
        edge = torch.cat([torch.zeros(1, dtype=torch.float64), share.cumsum(0) / share.sum()])
        interval = (torch.searchsorted(edge, place, right=True) - 1).clamp(0, intervals - 1)
        within = ((place - edge[interval]) / (edge[interval + 1] - edge[interval])).clamp(0, 1)
        below = (low + h * interval).float().to(device)
        here = _noised(x, batch, below + (h * within).float().to(device), generator)
        # the difference over an interval is the integral of the slope over it
        change = (correction(here, below + h) - correction(here, below)).double().cpu()
        total.index_add_(0, interval, change)
        squares.index_add_(0, interval, change.square())
        count.index_add_(0, interval, torch.ones_like(change))
        note((i + 1) / rounds)
    count = count.clamp_min(1)
    mean = total / count
    error = ((squares / count - mean.square()).clamp_min(0) / count).sum().sqrt()
    weights = torch.cat([-correction(y, torch.full((len(y),), high, device=device)).double().cpu() for y in top.split(batch)])
    at_top = torch.logsumexp(weights, 0) - math.log(len(weights))
    found = at_top + torch.cat([(mean + known).flip(0).cumsum(0).flip(0), torch.zeros(1, dtype=torch.float64)])
    return found.float(), float(error)


def _noised(x: Tensor, n: int, log_sigma: Tensor, generator: torch.Generator) -> Tensor:
    """`n` of the examples with noise of their levels [n]; each noise is also used with the opposite sign, by the row that follows."""
    chosen = x[random.integers(n, 0, len(x), generator=generator).to(x.device)]
    noise = random.normal((n + 1) // 2, *x.shape[1:], generator=generator).repeat_interleave(2, 0)[:n].to(x.device)
    sign = 1 - 2 * (torch.arange(n, device=x.device) % 2)
    rows = (-1, *[1] * (x.dim() - 1))
    return chosen + (log_sigma.exp() * sign).view(rows) * noise
