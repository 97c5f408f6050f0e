"""The von Mises–Fisher distribution on the circle: unit 2-vectors x with density exp(κ⟨μ, x⟩)/(2π I₀(κ)) (thesis, sec. 3.4.4).

Draws are differentiable by the mean direction and, through the implicit function theorem, by the concentration κ (Figurnov et al.
2018). Differentiating through rejection sampling instead, as if what is accepted did not depend on κ, is biased.
"""

import math
from collections.abc import Callable
from functools import lru_cache

import numpy
import torch
from torch import Tensor

WIDEST = 12.0  # standard deviations that a draw lies from its mean at most; what lies beyond has a mass below 1e-30
NODES = 64


def mean_length(kappa: Tensor) -> Tensor:
    """A(κ) = I₁(κ)/I₀(κ), the length of the mean of x, in [0, 1): κ ≥ 0 of any shape -> the same."""
    return torch.special.i1e(kappa) / torch.special.i0e(kappa)


def kl_to_uniform(kappa: Tensor) -> Tensor:
    """KL divergence to the uniform distribution on the circle, in nats (eq. 3.21 at m = 2): κ A(κ) − log I₀(κ)."""
    return kappa * (mean_length(kappa) - 1) - torch.special.i0e(kappa).log()


def surprise(x: Tensor, mean: Tensor, kappa: Tensor) -> Tensor:
    """−log density of unit vectors x [..., 2] by their angle, in nats: mean directions [..., 2] and κ [...] -> [...]."""
    return math.log(2 * math.pi) + torch.special.i0e(kappa).log() + kappa * (1 - (x * mean).sum(-1))


def sample(mean: Tensor, kappa: Tensor, uniform: Tensor) -> Tensor:
    """Draws [..., 2] with mean directions [..., 2], of unit length, and concentrations κ [...] ≥ 0, from uniform draws [...] in (0, 1).

    Differentiable by `mean` and `kappa`.
    """
    turn = angle(kappa, uniform)
    cos, sin = turn.cos(), turn.sin()
    x, y = mean.unbind(-1)
    return torch.stack([x * cos - y * sin, y * cos + x * sin], -1)


def angle(kappa: Tensor, uniform: Tensor) -> Tensor:
    """The angle to the mean in [−π, π] whose distribution function F(θ; κ) is `uniform`, with dθ/dκ = −∂F/∂κ / p(θ)."""
    with torch.no_grad():
        k, level = kappa.double(), uniform.double()
        high = (WIDEST / k.sqrt().clamp(min=1e-6)).clamp(max=math.pi)
        low = -high
        half = (level - 0.5) * 2 * math.pi * torch.special.i0e(k)  # F(0) is ½ for every κ
        for _ in range(40):
            middle = (low + high) / 2
            below = _integral(middle, lambda t: (k[..., None] * (t.cos() - 1)).exp()) < half
            low, high = torch.where(below, middle, low), torch.where(below, high, middle)
        theta = (low + high) / 2
        # −∂F/∂κ / p = −∫₀^θ (cos t − A) exp(κ (cos t − cos θ)) dt: the normaliser cancels
        at_theta, excess = theta.cos()[..., None], mean_length(k)[..., None]
        slope = -_integral(theta, lambda t: (t.cos() - excess) * (k[..., None] * (t.cos() - at_theta)).exp())
        theta, slope = theta.to(kappa), slope.to(kappa)
    return theta + slope * (kappa - kappa.detach())


def _integral(theta: Tensor, integrand: Callable[[Tensor], Tensor]) -> Tensor:
    """∫₀^θ by Gauss–Legendre; θ is within WIDEST standard deviations, so that the nodes always resolve the integrand."""
    nodes, weights = (torch.as_tensor(part, device=theta.device) for part in _rule())
    return 0.5 * theta * (integrand(0.5 * theta[..., None] * (nodes + 1)) * weights).sum(-1)


@lru_cache(maxsize=1)
def _rule() -> tuple[numpy.ndarray, numpy.ndarray]:
    return numpy.polynomial.legendre.leggauss(NODES)
