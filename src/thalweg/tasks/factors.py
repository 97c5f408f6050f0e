"""Factors of objects (red, tall, …) as energies of their latents, and objects that have several at once: ours.

E(z^s) + E(z^a) − Σ wᵢ log p(factorᵢ | z): a composition of a model's priors with classifiers that were fitted to inferred latents. With
weights of 1 and factors that are independent given z this is p(z | factors).
"""

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from thalweg import random
from thalweg.energy import Energy, combine
from thalweg.errors import InputError
from thalweg.nn.mlp import MLP
from thalweg.tasks.checks import check_count, check_model

NOISE = 0.3  # standard deviations of latents, added while a classifier learns: chains also go where no object's latents were
HELD_OUT = 5  # one of so many latents is kept for its accuracy
WIDTH, DEPTH, BATCH = 64, 2, 256


class Factor(nn.Module):
    """−log p(factor | z) in nats of latents [B, d] -> [B], by a small MLP on standardised latents; `accuracy` on latents that it was not
    fitted to, the mean of that of objects with the factor and without."""

    mean: Tensor
    std: Tensor

    def __init__(self, mean: Tensor, std: Tensor) -> None:
        super().__init__()
        self.register_buffer("mean", mean)
        self.register_buffer("std", std)
        self.net = MLP(len(mean), width=WIDTH, depth=DEPTH)
        self.accuracy: float | None = None

    def logit(self, z: Tensor) -> Tensor:
        """log p(factor | z) − log p(not | z): [B, d] -> [B]."""
        return self.net((z - self.mean) / self.std)

    def forward(self, z: Tensor) -> Tensor:
        return F.softplus(-self.logit(z))


def fit_factor(latents: Tensor, present: Tensor, *, steps: int = 600, seed: int = 0) -> Factor:
    """The energy of a factor by a classifier of latents [N, d], as a model infers them, appearance first; `present` [N] bool: which of
    the objects have it.

    `steps` of Adam on four fifths of the objects. InputError for other shapes, and unless 10 objects have it and 10 have it not.
    """
    if latents.dim() != 2 or tuple(present.shape) != (len(latents),) or present.dtype != torch.bool:
        got = f"{list(latents.shape)} and {str(present.dtype).removeprefix('torch.')} {list(present.shape)}"
        raise InputError(f"fit_factor needs latents [N, d] and present, bool [N]; got {got}")
    if not 10 <= int(present.sum()) <= len(present) - 10:
        raise InputError(f"fit_factor needs 10 objects with the factor and 10 without, got {int(present.sum())} of {len(present)} with it")
    check_count("steps", steps, 1)
    latents, generator = latents.detach().float().cpu(), random.seeded(seed, 34)
    order = random.uniform(len(latents), generator=generator).argsort()
    fitted, kept = order[len(order) // HELD_OUT :], order[: len(order) // HELD_OUT]
    with torch.random.fork_rng(devices=[]):  # PyTorch's initialisers draw from the global generator: leave it as it was
        torch.manual_seed(seed)
        factor = Factor(latents.mean(0), latents.std(0).clamp(min=1e-6))
    optimizer = torch.optim.AdamW(factor.parameters(), 3e-3, weight_decay=0.1)
    schedule = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, steps)
    x, y = latents[fitted], present.cpu()[fitted].float()
    with torch.enable_grad():
        for _ in range(steps):
            rows = random.integers(min(BATCH, len(x)), 0, len(x), generator=generator)
            z = x[rows] + NOISE * factor.std * random.normal(len(rows), x.shape[1], generator=generator)
            loss = F.binary_cross_entropy_with_logits(factor.logit(z), y[rows])
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
            schedule.step()
    factor.eval().requires_grad_(False)
    right, has = (factor.logit(latents[kept]) > 0) == present.cpu()[kept], present.cpu()[kept]
    if bool(has.any()) and not bool(has.all()):
        factor.accuracy = float(right[has].float().mean() + right[~has].float().mean()) / 2
    return factor


def compose_factors(
    method: Any, factors: Sequence[Energy], n: int, *, weights: Sequence[float] | None = None, steps: int | None = None, seed: int = 0
) -> tuple[Tensor, Tensor]:
    """Latents of appearance [n, d_a] and shape [n, d_s] of objects that have all of the `factors`, energies of latents [B, d_a + d_s].

    By chains on E(z^a) + E(z^s) + Σ wᵢ Eᵢ(z), of `steps` steps or those of the model's priors, from draws of the priors. `weights` 1
    unless given: above 1 they ask for a factor more strongly, below 0 for objects without it. InputError for models without objects.
    """
    check_model("compose_factors", method, "views")
    check_count("n", n, 1)
    if not factors or (weights is not None and len(weights) != len(factors)):
        raise InputError(f"compose_factors needs one weight for each factor, got {len(factors)} factors and {len(weights or ())} weights")
    return method.draw_prior(n, random.seeded(seed, 35, device=method.device), steps, factor=combine(factors, weights))
