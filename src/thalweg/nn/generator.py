"""Generators (x_t, z, t) -> x₀ of one denoising step, and encoders (x_s, x_t, t) -> mean and log-variance of z (DDAEBM, tables 6, 8)."""

import math

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from thalweg.nn.layers import LevelEmbedding
from thalweg.nn.mlp import MLP


def level_mlp(dim: int, levels: int, *, width: int, depth: int, out: int = 0) -> MLP:
    """An `MLP` of whole-numbered levels 0 … `levels`, each with a learned vector: one look-up instead of a network a row."""
    net = MLP(dim, width=width, depth=depth, out=out)
    net.level = nn.Embedding(levels + 1, width)
    nn.init.normal_(net.level.weight, std=0.5)
    return net


class VectorGenerator(nn.Module):
    """x_t [B, D], z [B, d], levels t [B] -> x₀ [B, D], by a network (vectors [B, D + d], t) -> [B, D]."""

    def __init__(self, net: nn.Module) -> None:
        super().__init__()
        self.net = net

    def forward(self, x_t: Tensor, z: Tensor, t: Tensor) -> Tensor:
        return self.net(torch.cat([x_t.flatten(1), z], 1), t).view_as(x_t)


class VectorEncoder(nn.Module):
    """x_s and x_t [B, ...] with D values each, levels t [B] -> mean and log-variance of z, [B, d] each.

    By a network (vectors [B, 2D], t) -> [B, 2d], whose last layer is its `last`.
    """

    def __init__(self, net: nn.Module) -> None:
        super().__init__()
        self.net = net

    def forward(self, x_s: Tensor, x_t: Tensor, t: Tensor) -> tuple[Tensor, Tensor]:
        mean, log_variance = self.net(torch.cat([x_s.flatten(1), x_t.flatten(1)], 1), t).chunk(2, dim=1)
        return mean, log_variance

    @property
    def last(self) -> nn.Linear:
        """The layer that reads out mean and log-variance."""
        return self.net.last


class LatentEmbedding(nn.Module):
    """A pair (levels [B], z [B, d]) -> [B, width]: the level's embedding plus a mapping network of the normalised z (DDGAN)."""

    def __init__(self, latent: int, width: int, layers: int = 4, mapping: int = 256) -> None:
        super().__init__()
        sizes = [latent, *[mapping] * (layers - 1), width]
        steps = [part for a, b in zip(sizes, sizes[1:]) for part in (nn.SiLU(), nn.Linear(a, b))]
        self.mapping = nn.Sequential(*steps[1:])
        self.level = LevelEmbedding(width)

    def forward(self, pair: tuple[Tensor, Tensor]) -> Tensor:
        t, z = pair
        return self.level(t) + self.mapping(z * (z.square().mean(1, keepdim=True) + 1e-8).rsqrt())


class ImageGenerator(nn.Module):
    """x_t [B, C, H, W], z [B, d], levels t [B] -> x₀ in (−1, 1): a network (x, t) -> (map, _) whose level embedding takes z too.

    The network says by `embedding` how many values its embedding of levels has.
    """

    def __init__(self, net: nn.Module, latent: int) -> None:
        super().__init__()
        self.net = net
        self.net.level = LatentEmbedding(latent, net.embedding)

    def forward(self, x_t: Tensor, z: Tensor, t: Tensor) -> Tensor:
        return self.net(x_t, (t, z))[0].tanh()


class ImageEncoder(nn.Module):
    """x_s and x_t [B, C, H, W], levels t [B] -> mean and log-variance of z: strided convolutions with the level added (table 8).

    The resolution is halved while it is even and above 4, at most `stages` times; a linear layer reads out what is left.
    """

    def __init__(self, shape: tuple[int, int, int], latent: int, *, width: int = 64, stages: int = 3) -> None:
        super().__init__()
        channels, height, breadth = shape
        self.level = nn.Sequential(LevelEmbedding(256), nn.LeakyReLU(0.2))
        layers, c = [nn.Conv2d(2 * channels, width, 3, padding=1)], width
        while len(layers) <= stages and min(height, breadth) > 4 and not (height % 2 or breadth % 2):
            layers.append(nn.Conv2d(c, 2 * c, 4, stride=2, padding=1))
            c, height, breadth = 2 * c, height // 2, breadth // 2
        self.layers = nn.ModuleList(layers)
        self.shifts = nn.ModuleList(nn.Linear(256, layer.out_channels) for layer in layers)
        self.last = nn.Linear(c * math.prod((height, breadth)), 2 * latent)

    def forward(self, x_s: Tensor, x_t: Tensor, t: Tensor) -> tuple[Tensor, Tensor]:
        embedding = self.level(t)
        h = torch.cat([x_s, x_t], 1)
        for layer, shift in zip(self.layers, self.shifts):
            h = F.leaky_relu(layer(h) + shift(embedding)[:, :, None, None], 0.2)
        mean, log_variance = self.last(h.flatten(1)).chunk(2, dim=1)
        return mean, log_variance


class DownBlock(nn.Module):
    """Maps [B, C, H, W] and an embedding -> [B, out, H/2, W/2]: two 3×3 convolutions, the level added between them, and a skip of 1×1."""

    def __init__(self, channels: int, out: int, embedding: int) -> None:
        super().__init__()
        self.first = nn.Conv2d(channels, out, 3, padding=1)
        self.shift = nn.Linear(embedding, out)
        self.second = nn.Conv2d(out, out, 3, padding=1)
        self.skip = nn.Conv2d(channels, out, 1, bias=False)
        nn.init.zeros_(self.second.weight)

    def forward(self, x: Tensor, embedding: Tensor) -> Tensor:
        h = self.first(F.leaky_relu(x, 0.2)) + self.shift(embedding)[:, :, None, None]
        h = self.second(F.avg_pool2d(F.leaky_relu(h, 0.2), 2))
        return (h + self.skip(F.avg_pool2d(x, 2))) / math.sqrt(2)


class ResidualImageEncoder(nn.Module):
    """x_s and x_t [B, C, H, W], levels t [B] -> mean and log-variance of z, in the form of DDGAN's discriminator of large images.

    Residual blocks halve the resolution while it is even and above 2, six at most: 2, 4 and from then on 8 times `width` channels. A last
    convolution is summed over what is left, and a linear layer reads it out (DDAEBM, sec. B.2.3). Left out is the channel with the
    deviation over the batch: z of a row must not depend on the others. Averages of 2×2 pixels stand for filters, as in LSUN's generator.
    """

    def __init__(self, shape: tuple[int, int, int], latent: int, *, width: int = 32, stages: int = 6) -> None:
        super().__init__()
        channels, height, breadth = shape
        self.level = nn.Sequential(LevelEmbedding(128), nn.LeakyReLU(0.2))
        c, blocks = 2 * width, []
        self.first = nn.Conv2d(2 * channels, c, 1)
        while len(blocks) < stages and min(height, breadth) > 2 and not (height % 2 or breadth % 2):
            wider = min(2 * c, 8 * width)
            blocks.append(DownBlock(c, wider, 128))
            c, height, breadth = wider, height // 2, breadth // 2
        self.blocks = nn.ModuleList(blocks)
        self.closing = nn.Conv2d(c, c, 3, padding=1)
        self.last = nn.Linear(c, 2 * latent)

    def forward(self, x_s: Tensor, x_t: Tensor, t: Tensor) -> tuple[Tensor, Tensor]:
        embedding, h = self.level(t), self.first(torch.cat([x_s, x_t], 1))
        for block in self.blocks:
            h = block(h, embedding)
        mean, log_variance = self.last(F.leaky_relu(self.closing(h), 0.2).sum((2, 3))).chunk(2, dim=1)
        return mean, log_variance


class LatentGenerator(nn.Module):
    """z [B, d] -> vectors [B, D], by an MLP, or images [B, C, H, W] in (−1, 1): a linear layer, then convolutions that double the size."""

    def __init__(self, latent: int, shape: tuple[int, ...], *, width: int = 64) -> None:
        super().__init__()
        if len(shape) != 3:
            self.net: nn.Module = nn.Sequential(MLP(latent, width=width, depth=3, out=math.prod(shape)), nn.Unflatten(1, shape))
            return
        channels, height, breadth = shape
        doublings = 0
        while min(height, breadth) > 4 and not (height % 2 or breadth % 2):
            doublings, height, breadth = doublings + 1, height // 2, breadth // 2
        c = width * 2**doublings
        layers: list[nn.Module] = [nn.Linear(latent, c * height * breadth), nn.Unflatten(1, (c, height, breadth)), nn.SiLU()]
        for _ in range(doublings):
            layers += [nn.ConvTranspose2d(c, c // 2, 4, stride=2, padding=1), nn.GroupNorm(8, c // 2), nn.SiLU()]
            c //= 2
        self.net = nn.Sequential(*layers, nn.Conv2d(c, channels, 3, padding=1), nn.Tanh())

    def forward(self, z: Tensor) -> Tensor:
        return self.net(z)
