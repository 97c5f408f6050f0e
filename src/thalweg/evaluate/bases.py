"""Normalised densities that can be sampled: where annealed chains start, and energies whose log Z is known."""

import math
from typing import Protocol

import torch
from torch import Tensor

from thalweg import random
from thalweg.errors import InputError
from thalweg.given import Examples, Numbers, takes


class Base(Protocol):
    """A normalised density that can be sampled: a `Gaussian`, a toy, a `FlowEnergy`."""

    def sample(self, n: int, *, generator: torch.Generator) -> Tensor: ...

    def log_prob(self, x: Tensor) -> Tensor: ...


class Gaussian:
    """The normal distribution of a mean and either a standard deviation or a full covariance, as a base of AIS.

    mean: [...], the shape of one x; its type and device are those of the samples. std: a number or [...], above 0.
    covariance: [D, D] over the flattened x, D values in x. Raises InputError on shapes that differ or what is not positive.
    """

    @takes
    def __init__(self, mean: Numbers, std: Numbers | float | None = None, *, covariance: Numbers | None = None):
        if (std is None) == (covariance is None):
            raise InputError("Gaussian: need one of std and covariance")
        self.mean = mean
        if covariance is None:
            self.scale = torch.as_tensor(std, dtype=mean.dtype, device=mean.device).expand(mean.shape).reshape(-1)
            if not (self.scale.isfinite() & (self.scale > 0)).all():
                raise InputError("Gaussian: a standard deviation that is not above 0 and finite")
            self._log_scale = self.scale.log()
        else:
            if covariance.shape != (mean.numel(), mean.numel()):
                raise InputError(f"Gaussian: covariance of shape {list(covariance.shape)}, need [{mean.numel()}, {mean.numel()}]")
            self.scale, failed = torch.linalg.cholesky_ex(covariance.to(mean))
            if failed or not self.scale.isfinite().all():
                raise InputError("Gaussian: the covariance is not positive definite; raise the shrinkage")
            self._log_scale = self.scale.diagonal().log()

    def sample(self, n: int, *, generator: torch.Generator | None = None) -> Tensor:
        """`n` independent draws [n, ...]."""
        device = self.mean.device if generator is None else generator.device
        z = random.normal(n, self.mean.numel(), generator=generator, device=device, dtype=self.mean.dtype).to(self.mean.device)
        z = z * self.scale if self.scale.dim() == 1 else z @ self.scale.T
        return z.view(n, *self.mean.shape) + self.mean

    def log_prob(self, x: Tensor) -> Tensor:
        """Log-density in nats [B] of x [B, ...]."""
        z = (x - self.mean.to(x)).flatten(1)
        scale = self.scale.to(x)
        z = z / scale if scale.dim() == 1 else torch.linalg.solve_triangular(scale, z.T, upper=False).T
        return -0.5 * z.square().sum(1) - float(self._log_scale.sum()) - 0.5 * math.log(2 * math.pi) * z.shape[1]


@takes
def fitted_base(x: Examples, *, covariance: str = "diagonal", shrinkage: float = 0.05) -> Gaussian:
    """The Gaussian with the moments of data x [N, ...], N ≥ 2, a base that starts near the density.

    covariance: "diagonal" or "full" (D² numbers for D values in x). `shrinkage` s in [0, 1] mixes the covariance S with a
    round one, (1 − s) S + s·tr(S)/D·I (Ledoit and Wolf 2004, eq. 1): above 0 wherever a value is constant, or N ≤ D in full.
    """
    if x.dim() < 2 or len(x) < 2 or not x.is_floating_point() or not x.isfinite().all():
        raise InputError(f"fitted_base: got {x.dtype} of shape {list(x.shape)}, need finite floating-point [N, ...] with N ≥ 2")
    if covariance not in ("diagonal", "full"):
        raise InputError(f"fitted_base: no covariance '{covariance}', there are diagonal, full")
    if not 0 <= shrinkage <= 1:
        raise InputError(f"fitted_base: shrinkage {shrinkage}, need [0, 1]")
    rows = x.detach().flatten(1).double()
    mean, variance = rows.mean(0), rows.var(0, correction=0)
    centre, level = mean.to(x.dtype).view(x.shape[1:]), shrinkage * variance.mean()
    if covariance == "diagonal":
        return Gaussian(centre, ((1 - shrinkage) * variance + level).sqrt().to(x.dtype).view(x.shape[1:]))
    full = (1 - shrinkage) / len(rows) * (rows - mean).T @ (rows - mean)
    return Gaussian(centre, covariance=full + level * torch.eye(len(mean)).to(full))


class FlowEnergy:
    """The energy −log q(x) + shift of a normalised model q, whose log Z is −shift exactly; also a base of AIS.

    flow: anything with `log_prob(x [B, D]) -> [B]` (and `sample` for draws), or a flow of zuko (extra `flows`), whose call
    without a context gives that. shift: nats. shape: that of one x, (D,) when not given; x is flattened to [B, D] for the flow.
    """

    def __init__(self, flow, shift: float = 0.0, *, shape: tuple[int, ...] = (-1,)):
        self.flow, self.shift, self.shape, self.log_z = flow, float(shift), tuple(shape), -float(shift)
        if not (hasattr(flow, "log_prob") or callable(flow)):
            raise InputError(f"FlowEnergy: {type(flow).__name__} has no log_prob, need a normalised density")

    def _density(self):
        return self.flow if hasattr(self.flow, "log_prob") else self.flow()

    def __call__(self, x: Tensor) -> Tensor:
        return self.shift - self.log_prob(x)

    def log_prob(self, x: Tensor) -> Tensor:
        """The normalised log-density in nats, [B]."""
        return self._density().log_prob(x.flatten(1))

    @torch.no_grad()
    def sample(self, n: int, *, generator: torch.Generator | None = None) -> Tensor:
        """`n` exact draws [n, ...]; the global generator, which flows draw from, is set from `generator` and put back."""
        with torch.random.fork_rng():
            if generator is not None:
                torch.manual_seed(int(random.integers(1, 0, 2**62, generator=generator)))
            return self._density().sample((n,)).view(n, *self.shape)
