"""What networks of continuous noise levels have in common: they see log σ, and vectors as waves too, no finer than noise leaves them."""

import math
from typing import Any

import torch
from torch import Tensor, nn

from thalweg.nn.patchnet import VectorNet
from thalweg.nn.waves import waves


class LogSigmaEmbedding(nn.Module):
    """The embedding of log σ [B] between `low` and `high` by cosines and sines of kπ over the range, k = 1 … 8, -> [B, width].

    No finer ones: the energy's slope in log σ is trained too, and it is smooth.
    """

    def __init__(self, width: int, low: float, high: float) -> None:
        super().__init__()
        self.low, self.span = low, high - low
        self.net = nn.Sequential(nn.Linear(16, width), nn.SiLU(), nn.Linear(width, width))
        nn.init.normal_(self.net[0].weight, std=0.7 / math.sqrt(8))

    def forward(self, log_sigma: Tensor) -> Tensor:
        angle = (log_sigma.float() - self.low)[:, None] / self.span * (math.pi * torch.arange(1, 9, device=log_sigma.device))
        return self.net(torch.cat([angle.cos(), angle.sin()], 1))


def see_log_sigma(network: nn.Module, sigma_min: float, sigma_max: float) -> nn.Module:
    """`network` (x, t[, label]), which takes t as log σ between those of the two from now on."""
    owner: Any = network.net if isinstance(network, VectorNet) else network
    owner.level = LogSigmaEmbedding(owner.level.net[-1].out_features, math.log(sigma_min), math.log(sigma_max))
    return network


class FadingWaves(nn.Module):
    """An MLP of vectors that also sees waves of u: (inputs [B, ...], log σ[, label]) -> a map [B, D·maps] and a number [B, 1].

    u is the first D of the inputs. `net` takes the inputs and 2·octaves waves of each coordinate of u, and gives the map and the number.
    The waves are those of `nn.waves`; `share`, in the shape of u, is the noise's part of u's deviation.
    """

    def __init__(self, net: Any, octaves: int) -> None:
        super().__init__()
        self.net, self.octaves = net, octaves

    def forward(self, inputs: Tensor, log_sigma: Tensor, label: Tensor | None = None, *, share: Tensor) -> tuple[Tensor, Tensor]:
        seen, noise = inputs.flatten(1), share.flatten(1)
        if self.octaves:
            seen = torch.cat([seen, waves(seen[:, : noise.shape[1]], noise, self.octaves)], 1)
        out = self.net(seen, log_sigma) if label is None else self.net(seen, log_sigma, label)
        return out[:, :-1], out[:, -1:]
