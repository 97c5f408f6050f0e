"""Searches for the latent of a generator: among draws, or by gradient descent."""

from collections.abc import Callable
from typing import NamedTuple

import torch
from torch import Tensor


class Reconstruction(NamedTuple):
    """What a search found: examples generate(z) [B, ...] and their z [B, d]."""

    x: Tensor
    latent: Tensor


def nearest_draw(draw: Callable[[], Tensor], agreement: Callable[[Tensor], Tensor], draws: int) -> Tensor:
    """For each row the one of `draws` draws [n, ...] that agrees best, by `agreement` of a draw [n], the first of equals: [n, ...]."""
    found = draw()
    best = agreement(found)
    for _ in range(draws - 1):
        x = draw()
        here = agreement(x)
        better = here > best
        best, found = torch.where(better, here, best), torch.where(better.view(-1, *[1] * (x.dim() - 1)), x, found)
    return found


def fit_latent(
    generate: Callable[[Tensor], Tensor], z: Tensor, x: Tensor, mask: Tensor | float = 1.0, *, steps: int, rate: float,
    prior: float = 0.0, clamp: bool = False,
) -> Tensor:  # fmt: skip
    """z [B, ...] after `steps` of Adam with learning rate `rate` on ‖mask·(x − generate(z))‖², whose gradients are those of each row alone.

    With `prior` w there is w‖z‖² to it: then z ~ N(0, I) is the likeliest given x with noise of variance w. `clamp` keeps z in [−1, 1].
    Parameters of `generate` should be frozen by the caller (`nn.layers.frozen`).
    """
    with torch.enable_grad():
        z = z.detach().clone().requires_grad_(True)
        optimizer = torch.optim.Adam([z], lr=rate)
        for _ in range(steps):
            loss = (mask * (generate(z) - x)).square().sum()
            (z.grad,) = torch.autograd.grad(loss + prior * z.square().sum() if prior else loss, [z])
            optimizer.step()
            if clamp:
                z.data.clamp_(-1, 1)
    return z.detach()
