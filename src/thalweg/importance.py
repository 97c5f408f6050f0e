"""Importance weights of a generator's draws in one denoising step. Ours: no part of the method that they serve. docs/methods/ddaebm.md

An adversarial energy E is compared with draws of its generator, p_φ(x_s | x_t), in place of draws of its own conditional
p(x_s | x_t) ∝ exp(−E(x_s)) q(x_t | x_s). That is right only where the generator has caught up with the energy. With the weights

    w ∝ exp(−E(x_s)) q(x_t | x_s) / p_φ(x_s | x_t),    p_φ(x_s | x_t) = p(z) q(x_s | x_t, G(x_t, z, t)) / q_ψ(z | x_s, x_t)

K draws stand for those of the energy as K grows, wherever the generator is. torch is imported when the first draw is weighted.
"""

import math
from typing import TYPE_CHECKING, Literal, Protocol

from pydantic.dataclasses import dataclass

from thalweg.config import STRICT, Count, Whole

if TYPE_CHECKING:
    from torch import Tensor

    from thalweg.noise import Schedule


@dataclass(frozen=True, config=STRICT)
class Proposals:
    """Several weighted draws for each row in place of the generator's one."""

    kind: Literal["weighted"] = "weighted"
    count: Count = 16
    """K, draws for each row"""
    defensive: Whole = 0
    """how many of the K draws are of N(0, `reference_std`² I) given x_t instead: they go everywhere, and bound the weights of all"""
    contrast: bool = False
    """whether the data point is weighted with its K draws: the loss, unbounded below without it, is then that of telling it from them"""


class DenoisingModel(Protocol):
    """What is asked of a model: the steps of its generator, its encoder and its energy, for x_t [B, ...], z [B, d] and levels t [B]."""

    schedule: "Schedule"

    def reverse(self, x_t: "Tensor", z: "Tensor", t: "Tensor", s: "Tensor") -> "tuple[Tensor, Tensor]":
        """Mean and standard deviation of q(x_s | x_t, G(x_t, z, t))."""

    def encode_step(self, x_s: "Tensor", x_t: "Tensor", t: "Tensor") -> "tuple[Tensor, Tensor]":
        """Mean and log-variance of q_ψ(z | x_s, x_t), s = t − 1."""

    def conditional_energy(self, x_s: "Tensor", x_t: "Tensor", t: "Tensor") -> "tuple[Tensor, Tensor]":
        """−log p(x_s | x_t) up to a constant of x_t, [B], and E(x_s), s = t − 1."""


def weighted(
    model: DenoisingModel,
    x_t: "Tensor",
    z: "Tensor",
    t: "Tensor",
    noise: "Tensor",
    data: "Tensor | None" = None,
    *,
    defensive: int = 0,
    reference_std: float = 0.0,
) -> "tuple[Tensor, Tensor]":
    """K draws of p_φ(x_s | x_t), s = t − 1, and their weights as draws of the energy's p(x_s | x_t): [K·B, ...], [K, B] of sum 1 over K.

    x_t, t: a row's state [B, ...] and its level [B]; z, noise: standard normal, [K·B, d] and [K·B, ...]. The generator's density, which
    has no closed form, comes from the encoder (DDAEBM, eq. 16), exact where q_ψ is. With one draw the gradient of the energy's loss is the
    paper's, with K that of recovery likelihood as K grows.
    `data` [B, ...] are x_s of q to be put behind the draws and weighted as these are; z has B rows more then, and K is one more in what
    returns. The gradient is then that of ranking noise-contrastive estimation, right at the true energy for any K (Ma and Collins 2018).
    With `defensive` that many of the draws, the last, are of N(0, `reference_std`² I) given x_t, and all weights those of the mixture
    (Hesterberg 1995).
    """
    import torch

    from thalweg.energy import log_normal

    with torch.no_grad():
        k, rows = len(noise) // len(x_t), len(z) // len(x_t)
        generated = (k - defensive) * len(x_t)
        x_t, t = repeat(x_t, rows), t.repeat(rows)
        mean, std = model.reverse(x_t, z, t, t - 1)
        wide_mean, wide_variance = reference_step(model.schedule, reference_std, x_t, t) if defensive else (mean, std.square())
        of_generator, others = slice(generated), slice(generated, len(noise))
        x_s = torch.cat(
            [
                mean[of_generator] + std[of_generator] * noise[of_generator],
                wide_mean[others] + wide_variance[others].sqrt() * noise[others],
                x_t[:0] if data is None else data,
            ]
        )
        if generated < len(z):
            # joint draws of x_s and z again, with q_ψ(z | x_s, x_t); it cancels in the weights
            rest = slice(generated, None)
            centre, log_spread = model.encode_step(x_s[rest], x_t[rest], t[rest])
            z = torch.cat([z[:generated], centre + (0.5 * log_spread).exp() * z[rest]])
            again, _ = model.reverse(x_t[rest], z[rest], t[rest], t[rest] - 1)
            mean = torch.cat([mean[:generated], again])
        proposal = log_normal(z, torch.zeros_like(z), torch.zeros_like(z)) + log_normal(x_s, mean, 2 * std.log())
        proposal = proposal - log_normal(z, *model.encode_step(x_s, x_t, t))
        if defensive:
            share, wide = defensive / k, log_normal(x_s, wide_mean, wide_variance.log())
            proposal = torch.logaddexp(proposal + math.log(1 - share), wide + math.log(share))
        conditional, _ = model.conditional_energy(x_s, x_t, t)
        return x_s, (-conditional - proposal).view(rows, -1).softmax(0)


def reference_step(schedule: "Schedule", std: float, x_t: "Tensor", t: "Tensor") -> "tuple[Tensor, Tensor]":
    """Mean and variance of p(x_s | x_t), s = t − 1, of data N(0, `std`² I), shaped to broadcast with x_t [B, ...]; t: levels [B]."""
    of_s = std**2 * schedule.alpha(t - 1, x_t).square() + schedule.sigma(t - 1, x_t).square()
    alpha, step = schedule.step_alpha(t, x_t), schedule.step_variance(t, x_t)
    variance = 1 / (1 / of_s + alpha.square() / step)
    return variance * alpha / step * x_t, variance


def choose(x: "Tensor", weight: "Tensor", point: "Tensor") -> "Tensor":
    """One of K draws for each row by its weight: x [K·B, ...], weight [K, B], `point` [B] uniform in [0, 1) -> [B, ...]."""
    import torch

    k, n = weight.shape
    which = (weight.cumsum(0) < point).sum(0).clamp(max=k - 1)
    return x.view(k, n, *x.shape[1:])[which, torch.arange(n, device=x.device)]


def repeat(x: "Tensor", k: int) -> "Tensor":
    """Rows of x, k times, one whole batch after the other: [B, ...] -> [k·B, ...]."""
    return x.repeat(k, *[1] * (x.dim() - 1))
