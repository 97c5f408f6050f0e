"""What energies of continuous noise levels know besides: how noisy an example is, and in how many directions the data extend there."""

import math
from typing import Any

import torch
from torch import Tensor

from thalweg.errors import InputError
from thalweg.given import Examples, takes
from thalweg.methods.base import needs
from thalweg.nn.layers import frozen

SEARCHED = 24  # levels that are tried before the best is refined


@takes
@torch.no_grad()
def estimate_noise(method: Any, y: Examples, *, low: float | None = None, high: float | None = None) -> Tensor:
    """The standard deviation σ of the noise in each y = x + σ ε, by maximum likelihood: argmin over σ of U(y, σ), [B, ...] -> [B].

    Between `low` and `high`, by default all levels of the model: the best of 24 even steps in log σ, refined by the parabola through it
    and its neighbours. Raises InputError for models without energies at continuous levels and for levels out of order.
    """
    needs("estimate_noise", method, "levels")
    c = method.config
    low, high = c.sigma_min if low is None else low, c.sigma_max if high is None else high
    if not c.sigma_min <= low < high <= c.sigma_max:
        raise InputError(f"estimate_noise: need {c.sigma_min:g} ≤ low < high ≤ {c.sigma_max:g}, got {low:g} and {high:g}")
    places = torch.linspace(math.log(low), math.log(high), SEARCHED)
    y = y.to(method.device)
    with frozen(method):
        value = torch.stack([method.energy(y, sigma=math.exp(place)) for place in places.tolist()])
    best = value.argmin(0).clamp(1, SEARCHED - 2)
    before, at, after = (value.gather(0, (best + k)[None])[0] for k in (-1, 0, 1))
    bend = before - 2 * at + after
    shift = torch.where(bend > 0, 0.5 * (before - after) / bend, torch.zeros_like(bend)).clamp(-1, 1)
    step = float(places[1] - places[0])
    return (places.to(best.device)[best] + shift * step).exp().cpu()


@takes
def intrinsic_dimension(method: Any, x: Examples, sigma: float) -> Tensor:
    """The number of directions in which the data extend beyond σ at each x, [B, ...] -> [B]: d − ∂U(x, σ)/∂log σ.

    Around x the density of y = x + σ ε falls as σ^−(d − k) where the data lie on k dimensions (Tempczyk et al. 2022, LIDL;
    Guth et al. 2025). Between 0 and d but for the model's errors.
    """
    needs("intrinsic_dimension", method, "levels")
    x = x.to(method.device)
    with frozen(method):
        return (x[0].numel() - method.slopes(x, sigma=sigma)[2]).cpu()
