"""Latents of the networks that propose where chains start, and what these networks are taught by chains and by data."""

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn

from thalweg import random
from thalweg.nn.beside import Beside
from thalweg.nn.build import Shape


def with_latent(spec: Any, shape: Shape, channels: int, begin: Callable[[nn.Module], nn.Module], *, classes: int = 0) -> nn.Module:
    """The network of maps of a spec, as it is or, for `channels` > 0, with so many of noise beside x; `begin` sets its weights."""
    both = (shape[0] + channels, *shape[1:])
    net = begin(spec.build(both, channels=both[0], classes=classes))
    return Beside(net, shape, channels) if channels else net


def latent(net: nn.Module | None, like: Tensor, generator: random.Generator = None) -> dict[str, Tensor]:
    """A z ~ N(0, I) for each row of a batch, by its name, as networks with noise beside x take it; nothing for others."""
    if not isinstance(net, Beside):
        return {}
    return {"z": random.normal_like(like.new_empty(len(like), *net.latent_shape), generator)}


def lesson(
    mean: Tensor, learned: Tensor, of_data: Tensor, share: float, generator: random.Generator,
    again: Callable[..., Tensor] | None, latent: Callable[[], dict[str, Tensor]], draws: int,
) -> tuple[Tensor, Tensor]:  # fmt: skip
    """Means of an initializer and what they are taught, both [B, ...]: `learned` by a `share` of a batch, by the others what is `of_data`.

    Chains keep the latents from which they began, as the generator's do in cooperative learning (Xie et al. 2018). The data have none:
    they teach the nearest of `draws` means that are found `again`, where there are latents.
    """
    if share == 1:
        return mean, learned
    near = mean if again is None else again(**nearest(again, latent, of_data, draws))
    if not share:
        return near, of_data
    chosen = random.uniform(len(mean), generator=generator, device=mean.device) < share
    chosen = chosen.view(-1, *[1] * (mean.dim() - 1))
    return torch.where(chosen, mean, near), torch.where(chosen, learned, of_data)


@torch.no_grad()
def nearest(means: Callable[..., Tensor], latent: Callable[[], dict[str, Tensor]], target: Tensor, draws: int) -> dict[str, Tensor]:
    """Of `draws` latents z for each row the one whose mean is nearest to the target's row (Li and Malik 2018, Algorithm 1)."""
    best = latent()["z"]
    least = (means(z=best) - target).flatten(1).square().sum(1)
    for _ in range(draws - 1):
        z = latent()["z"]
        far = (means(z=z) - target).flatten(1).square().sum(1)
        best = torch.where((far < least).view(-1, *[1] * (z.dim() - 1)), z, best)
        least = torch.minimum(far, least)
    return {"z": best}
