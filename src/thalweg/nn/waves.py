"""Sinusoids of x, in addition to x, as inputs of a network: fine detail in the plane, no finer than a level's noise leaves it."""

import torch
from torch import Tensor, nn


class Waves(nn.Module):
    """A network (u, t[, label]) that also sees waves of u: `net` takes [B, D·(1 + 2·octaves)] and levels t [B].

    The waves are sin ωu and cos ωu for ω = 2, 4, 8 …, times 2/ω and the exp(−ω²σ²/2) that noise of std σ leaves of a wave;
    `noise_std` [T] holds σ of each level, in units of u.
    """

    def __init__(self, net: nn.Module, octaves: int, noise_std: Tensor) -> None:
        super().__init__()
        self.net, self.octaves = net, octaves
        self.noise_std: Tensor
        self.register_buffer("noise_std", noise_std, persistent=False)

    def forward(self, u: Tensor, t: Tensor, label: Tensor | None = None) -> Tensor:
        return self.net(self.inputs(u, t), t, label)

    def inputs(self, u: Tensor, t: Tensor) -> Tensor:
        """u, its sines and its cosines, [B, D·(1 + 2·octaves)]."""
        u = u.flatten(1)
        return torch.cat([u, waves(u, self.noise_std[t][:, None], self.octaves)], 1)


def waves(u: Tensor, noise: Tensor, octaves: int) -> Tensor:
    """Sines and cosines of u [B, D] with noise of deviation [B, 1] or [B, D] in units of u: [B, D·2·octaves]; see `Waves`."""
    frequencies = 2.0 ** torch.arange(1, octaves + 1, device=u.device)
    # weights of equal size shall mean slopes of equal size: rough energies run away from the chains
    fade = 2 / frequencies * torch.exp(-0.5 * (frequencies * noise[:, :, None]).square())  # [B, 1 or D, octaves]
    angle = u[:, :, None] * frequencies
    return torch.cat([(fade * angle.sin()).flatten(1), (fade * angle.cos()).flatten(1)], 1)
