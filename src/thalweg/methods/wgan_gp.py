"""WGAN-GP: a generator against a critic of bounded slope, a reference for energies. docs/methods/wgan_gp.md

    x̃ = G(z),  z ~ N(0, I);   x̂ = u x + (1 − u) x̃,  u ~ U(0, 1)
    update("critic",    f(x̃) − f(x) + λ (‖∇f(x̂)‖ − 1)²)            n times as often as
    update("generator", −f(G(z)))

Gulrajani et al., NeurIPS 2017 (arXiv:1704.00028), Algorithm 1. At its best f has slope 1 almost everywhere between samples and data and is
no log-density: the critic is not offered as an energy.
"""

from typing import Annotated

import torch
from pydantic import Field
from pydantic.dataclasses import dataclass
from torch import Tensor

from thalweg import random
from thalweg.config import STRICT, Common, Count, Fraction, NotNegative, Positive, Whole
from thalweg.data.base import Batch
from thalweg.energy import value_and_score
from thalweg.methods.base import Method, Update, check_start, finished
from thalweg.nn.build import MLP, ConvNet
from thalweg.nn.initializers import Generator
from thalweg.nn.layers import frozen


@dataclass(frozen=True, config=STRICT, kw_only=True)
class Config(Common):
    """Settings of `wgan_gp`. Labels are not used."""

    critic: Annotated[MLP | ConvNet, Field(discriminator="kind")] = MLP(width=128, depth=3)
    """f, a network of one number without normalisation"""
    generator: Generator = Generator(latent_dim=128, width=64)
    """G"""
    penalty: NotNegative = 10.0
    """λ, weight of the gradient penalty"""
    critic_steps: Count = 5
    """n, updates of the critic for one of the generator, each on a batch of its own"""
    lr: Positive = 1e-4
    """learning rate of the critic"""
    lr_generator: Positive = 1e-4
    """learning rate of the generator"""
    beta2: Fraction = 0.9
    """Adam's β₂; β₁ is 0"""
    warm_up: Whole = 0
    """updates over which learning rates rise"""
    clip: NotNegative = 0.0
    """bound on each update's gradient norm, 0 for none"""


class WGANGP(Method):
    """A generator that lowers the Wasserstein distance as a critic estimates it; the settings are in `Config`."""

    name = "wgan_gp"
    Config = Config

    def __init__(self, config: Config) -> None:
        super().__init__(config)
        self.critic = config.critic.build(config.shape)
        self.generator = config.generator.build(config.shape)

    @property
    def abilities(self) -> frozenset[str]:
        return frozenset({"sample", "start"})

    @property
    def latent_shape(self) -> tuple[int, ...]:
        return (self.config.generator.latent_dim,)

    def optimizers(self) -> dict[str, torch.optim.Optimizer]:
        c, common = self.config, dict(betas=(0.0, self.config.beta2), fused=True)
        return {
            "critic": torch.optim.Adam(self.critic.parameters(), lr=c.lr, **common),
            "generator": torch.optim.Adam(self.generator.parameters(), lr=c.lr_generator, **common),
        }

    def step(self, batch: Batch, update: Update) -> None:
        x, g = batch.x, update.generator
        with torch.no_grad():
            generated = self._draw(len(x), g)
        distance, penalty = self.critic_losses(x, generated, random.uniform(len(x), generator=g, device=x.device))
        update("critic", (self.config.penalty * penalty - distance).mean())
        update.log(distance=distance, gradient_penalty=penalty)
        if update.updates % (self.config.critic_steps + 1) == self.config.critic_steps:
            with frozen(self.critic):
                update("generator", -self.critic(self._draw(len(x), g)).mean())

    def _draw(self, n: int, generator: random.Generator) -> Tensor:
        z = random.normal(n, *self.latent_shape, generator=generator, device=self.device)
        return self.generator(z).to(z.dtype)

    def critic_losses(self, x: Tensor, generated: Tensor, share: Tensor) -> tuple[Tensor, Tensor]:
        """Per row: f(x) − f(x̃), whose mean is the distance, and (‖∇f‖ − 1)² at share·x + (1 − share)·x̃: x, x̃ [B, ...], share [B]."""
        real, fake = self.critic(torch.cat([x, generated])).chunk(2)
        share = share.view(-1, *[1] * (x.dim() - 1))
        _, slope = value_and_score(self.critic, share * x + (1 - share) * generated, create_graph=True)
        return real - fake, (slope.flatten(1).norm(dim=1) - 1).square()

    @torch.no_grad()
    def sample(self, n: int, *, seed: int = 0, start: Tensor | None = None) -> Tensor:
        """`n` samples G(z): [n, ...], images in [−1, 1]; `start` [n, d] is z."""
        check_start(self, start, n)
        z = random.normal(n, *self.latent_shape, generator=random.seeded(seed, 1, device=self.device), device=self.device)
        z = z if start is None else start.to(self.device)
        with frozen(self.generator):
            return finished(torch.cat([self.generator(part).to(z.dtype) for part in z.split(1024)]))
