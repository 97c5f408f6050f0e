"""Energy-based priors of latents: p(z) ∝ exp(f(z)) q₀(z), their chains and their loss (thesis, sec. 2.2.3, eq. 3.4; Pang et al. 2020)."""

from typing import Any, Literal

import torch
from torch import Tensor, nn

from thalweg import random
from thalweg.chain import Langevin
from thalweg.energy import gaussian, tilt
from thalweg.nn.layers import frozen
from thalweg.nn.mlp import MLP
from thalweg.objective import contrastive

Reference = Literal["normal", "uniform"]


class Prior(nn.Module):
    """p(z) ∝ exp(f(z)) q₀(z) on latents [B, dim]; q₀ is N(0, I), or uniform on [−1, 1]^dim, and f an MLP of `depth` layers of `width`.

    At first f = 0 and the prior is its reference, which with depth = 0 it remains.
    """

    def __init__(self, dim: int, *, width: int = 256, depth: int = 2, reference: Reference = "normal") -> None:
        super().__init__()
        self.dim, self.uniform = dim, reference == "uniform"
        self.net = MLP(dim, width=width, depth=depth) if depth else None
        if self.net is not None:
            nn.init.zeros_(self.net.last.weight)
            nn.init.zeros_(self.net.last.bias)

    def tilting(self, z: Tensor) -> Tensor:
        """f(z) in nats: [B, dim] -> [B]."""
        return z.new_zeros(len(z)) if self.net is None else self.net(z)

    def energy(self, z: Tensor) -> Tensor:
        """−log p(z) in nats up to its constant: [B, dim] -> [B]. With a uniform reference for z in [−1, 1]^dim only."""
        return tilt(self.tilting, self.reference_energy)(z)

    def reference_energy(self, z: Tensor) -> Tensor:
        """−log q₀(z) in nats up to its constant: [B, dim] -> [B]."""
        return 0.0 * z.sum(1) if self.uniform else gaussian(z)  # of z also where it is flat, so that it has a gradient

    def draw_reference(self, n: int, generator: random.Generator = None, device: Any = None) -> Tensor:
        """`n` draws of q₀: [n, dim]."""
        if self.uniform:
            return random.uniform(n, self.dim, low=-1.0, high=1.0, generator=generator, device=device)
        return random.normal(n, self.dim, generator=generator, device=device)

    def inside(self, z: Tensor) -> Tensor:
        """z reflected at the faces of [−1, 1]^dim where the reference is uniform, else z itself."""
        return 1 - ((z + 1) % 4 - 2).abs() if self.uniform else z

    @torch.no_grad()
    def sample(
        self,
        n: int,
        chain: Langevin | None,
        *,
        steps: int | None = None,
        compile: bool = False,
        generator: random.Generator = None,
        device: Any = None,
        start: Tensor | None = None,
    ) -> Tensor:
        """`n` chains from draws of the reference, or from `start` [n, dim] (eq. 3.10): [n, dim].

        `steps` and `compile` as of a chain. Without f, or without a chain, these are the reference's draws themselves.
        """
        z = self.draw_reference(n, generator, device) if start is None else start
        if self.net is None or chain is None:
            return z
        # fp32 also under autocast: casts would cost small networks more than products save
        with frozen(self.net), torch.autocast(z.device.type, enabled=False):
            project = self.inside if self.uniform else None
            return chain(self.energy, z, steps=steps, project=project, compile=compile, generator=generator)

    def loss(self, posterior: Tensor, prior: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """E(z⁺).mean() − E(z⁻).mean(), whose gradient is that of −log-likelihood (eq. 2.9, 3.7), and both energies [B].

        `posterior` z⁺ and `prior` z⁻: [B, dim], draws of the posterior given data and of this prior. The reference's energy holds no
        parameter.
        """
        return contrastive(self.energy, posterior, prior)
