"""Energies given a noisy measurement y = A x + s ε, at every noise level x_σ = x + σ z: for models whose energy is of all levels.

    U(x_σ | y) = U(x_σ) + ½ rᵀ (s² + A V Aᵀ)⁻¹ r,   r = y − A x̂,   x̂ = x_σ − σ² ∇U(x_σ)
    V = C σ²/(C + σ²)                                the covariance of x given x_σ under the Gaussian with the data's C

x̂ is the mean of x given x_σ, whatever the data; V is right for Gaussian data, for which all is exact at every level. Others take an
isotropic V (Song et al. 2023, ΠGDM) or σ² ∂x̂/∂x_σ (Rozet et al. 2024, arXiv:2405.13712); Peng et al. 2024 (arXiv:2402.02149) compare
such choices. At low noise V vanishes, and what is left is p(x) N(y; A x, s²), exactly.
"""

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

from thalweg.energy import Energy, value_and_score
from thalweg.errors import InputError
from thalweg.tasks.operators import MOST_ENTRIES, LinearOperator


class Likelihood:
    """−log p(y | x_σ) of one operator A and noise `std`, for the Gaussian of a model; its matrices are those of one level at a time.

    `gaussian` has `variance` [D] along the columns of `basis` [D, D], or along the axes where that is None. Raises InputError for images
    of more than 4096 entries.
    """

    def __init__(self, operator: LinearOperator, std: float, gaussian: Any, shape: tuple[int, ...]) -> None:
        size = gaussian.variance.numel()
        if size > MOST_ENTRIES:
            raise InputError(f"restore: noisy measurements are for images of at most {MOST_ENTRIES} entries, these have {size}")
        self.operator, self.std = operator, std
        eye = torch.eye(size, device=gaussian.variance.device).view(size, *shape)
        a = torch.cat([operator.forward(part).flatten(1) for part in eye.split(256)]).T.double()
        self.seen = (a != 0).any(1)  # a mask measures nothing of the missing pixels
        a = a[self.seen]
        self.a = a if gaussian.basis is None else a @ gaussian.basis.double()
        self.variance = gaussian.variance.double()
        self.level, self.whitener = -1.0, a

    def given(self, y: Tensor) -> Callable[[Energy], Energy]:
        """What makes of an energy (x [B, ...], sigma=σ) -> [B] that of p(x_σ | y), up to log Z, for y [B, ...]."""
        measured = y.flatten(1)[:, self.seen]

        def posterior(energy: Energy) -> Energy:
            def total(x: Tensor, *, sigma: float) -> Tensor:
                value, score = value_and_score(energy, x, create_graph=True, sigma=sigma)
                with torch.autocast(x.device.type, enabled=False):
                    mean = (x + sigma**2 * score).float()
                    residual = measured - self.operator.forward(mean).flatten(1)[:, self.seen]
                    return value + 0.5 * (residual @ self._whitener(sigma).to(residual).T).square().sum(1)

            return total

        return posterior

    def _whitener(self, sigma: float) -> Tensor:
        """L⁻¹ of the Cholesky factor L of s² + A V Aᵀ."""
        if sigma != self.level:
            spread = self.variance * sigma**2 / (self.variance + sigma**2)
            noise = self.std**2 * torch.eye(len(self.a), dtype=torch.float64, device=self.a.device)
            factor = torch.linalg.cholesky((self.a * spread) @ self.a.T + noise)
            self.whitener = torch.linalg.solve_triangular(factor, noise / self.std**2, upper=False)
            self.level = sigma
        return self.whitener
