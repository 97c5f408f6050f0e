"""A conditional radiance field on three planes (EG3D, Chan et al. 2022), under the same latents as `nn.nerf.ConditionalField`."""

import math

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from .nerf import Mapping

START = 4  # side of the planes at the first layer of their decoder


class TriPlaneField(nn.Module):
    """g_θ(x, d, z^s, z^a) -> (c, σ): a point is looked up in three planes of features that z^s makes; z^a enters the colour alone.

    Planes of `resolution`² with `channels` features each, over x and y, x and z, y and z in [−1, 1], by a decoder of convolutions with
    `base` channels: once an object. A hidden layer of `width` for density and colour: what a point costs. Colours do not depend on the
    viewing direction. Raises ValueError unless resolution is 4 times a power of 2.
    """

    def __init__(
        self,
        appearance: int,
        shape: int,
        *,
        resolution: int = 32,
        channels: int = 16,
        width: int = 64,
        base: int = 32,
        mapping: int = 64,
        mapping_layers: int = 4,
    ) -> None:
        super().__init__()
        doublings = round(math.log2(resolution / START))
        if resolution != START * 2**doublings:
            raise ValueError(f"the resolution of planes must be 4 times a power of 2, got {resolution}")
        self.channels = channels
        self.map_appearance = Mapping(appearance, mapping, mapping_layers)
        self.map_shape = Mapping(shape, mapping, mapping_layers)
        self.first = nn.Linear(mapping, base * START**2)
        self.convolutions = nn.ModuleList(nn.Conv2d(base, base, 3, padding=1) for _ in range(doublings))
        self.planes = nn.Conv2d(base, 3 * channels, 1)
        for layer in (self.first, *self.convolutions):
            nn.init.kaiming_normal_(layer.weight, a=0.2)
        self.hidden = nn.Linear(3 * channels, width)
        self.density = nn.Linear(width, 1)
        self.colour_hidden = nn.Linear(width, width // 2)
        self.appearance_at = nn.Linear(mapping, width // 2 * 2)
        self.colour = nn.Linear(width // 2, 3)

    def latents(self, z_a: Tensor, z_s: Tensor) -> tuple[Tensor, Tensor]:
        """Scale and shift of the colour's hidden layer [B, 1, ·], and the planes [3 B, C, R, R]: once an object, not once a point."""
        h = F.leaky_relu(self.first(self.map_shape(z_s)), 0.2).view(len(z_s), -1, START, START)
        for layer in self.convolutions:
            h = F.leaky_relu(layer(F.interpolate(h, scale_factor=2.0, mode="nearest")), 0.2)
        planes = self.planes(h).reshape(-1, self.channels, *h.shape[2:])
        return self.appearance_at(self.map_appearance(z_a))[:, None], planes

    def look_up(self, x: Tensor, planes: Tensor) -> Tensor:
        """What planes [3 B, C, R, R] hold at points [B, P, 3]: [B, 3 C, P]."""
        place = torch.stack([x[..., [0, 1]], x[..., [0, 2]], x[..., [1, 2]]], 1).flatten(0, 1)[:, None]  # [3 B, 1, P, 2]
        found = F.grid_sample(planes.float(), place.float(), padding_mode="border", align_corners=False)  # [3 B, C, 1, P]
        return found.reshape(len(x), 3 * self.channels, -1)

    def forward(self, x: Tensor, direction: Tensor, latents: tuple[Tensor, Tensor]) -> tuple[Tensor, Tensor]:
        appearance, planes = latents
        # points stay along the last dimension; density and colour are read in one product, which saves the sum of two gradients of h
        found = self.look_up(x, planes)
        h = F.relu(torch.baddbmm(self.hidden.bias[:, None], self.hidden.weight.expand(len(x), -1, -1), found), inplace=True)
        weight = torch.cat([self.density.weight, self.colour_hidden.weight]).expand(len(x), -1, -1)
        bias = torch.cat([self.density.bias - 1, self.colour_hidden.bias])[:, None]  # shifted as in `nn.nerf`
        density, colour = torch.baddbmm(bias, weight, h).split([1, self.colour_hidden.out_features], 1)
        scale, shift = (part.transpose(1, 2) for part in appearance.chunk(2, -1))
        colour = self.colour(F.relu((1 + scale) * colour + shift).transpose(1, 2)).sigmoid()
        return F.softplus(density.squeeze(1)), colour
