"""Noise beside x as a network's input, so that what it puts out for one x need not have one mode."""

import torch
from torch import Tensor, nn

from thalweg.nn.build import Shape


class Beside(nn.Module):
    """A network of maps (x, t[, label]) that is also given z ~ N(0, I): `net` takes and gives C + `channels`, of which C stay."""

    def __init__(self, net: nn.Module, shape: Shape, channels: int) -> None:
        super().__init__()
        self.net, self.channels, self.latent_shape = net, channels, (channels, *shape[1:])

    def forward(self, x: Tensor, t: Tensor, label: Tensor | None = None, *, z: Tensor) -> tuple[Tensor, None]:
        both = torch.cat([x, z.to(x)], 1)
        out, _ = self.net(both, t) if label is None else self.net(both, t, label)
        return out.reshape(both.shape)[:, : x.shape[1]], None
