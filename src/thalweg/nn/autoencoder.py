"""A small convolutional encoder and decoder between images and a map of latents (after Rombach et al. 2022, without attention)."""

import torch
from torch import Tensor, nn

from thalweg.errors import InputError


class Residual(nn.Module):
    """SiLU, 3×3, SiLU, 3×3, added to x, at first the identity: [B, C, H, W] -> the same.

    Without normalisation: group norm is slow on a CPU, and from an identity a shallow network trains without.
    """

    def __init__(self, channels: int) -> None:
        super().__init__()
        halves = [nn.Sequential(nn.SiLU(), nn.Conv2d(channels, channels, 3, padding=1)) for _ in range(2)]
        self.net = nn.Sequential(*halves)
        nn.init.zeros_(halves[-1][-1].weight)
        nn.init.zeros_(halves[-1][-1].bias)

    def forward(self, x: Tensor) -> Tensor:
        return x + self.net(x)


def latent_shape(shape: tuple[int, ...], latent_channels: int, widths: tuple[int, ...]) -> tuple[int, int, int]:
    """[latent_channels, H/f, W/f] of images [C, H, W], f = 2^(len(widths) − 1). Raises InputError where f does not divide them."""
    if len(shape) != 3:
        raise InputError(f"an autoencoder is for images [C, H, W], got shape {tuple(shape)}")
    factor = 2 ** (len(widths) - 1)
    if shape[1] % factor or shape[2] % factor:
        raise InputError(f"{len(widths)} widths: height and width must divide by {factor}, got {shape[1]}×{shape[2]}")
    return latent_channels, shape[1] // factor, shape[2] // factor


class Encoder(nn.Module):
    """Images [B, channels, H, W] -> mean and log-variance of the latents, [B, latent_channels, H/f, W/f] each.

    `widths` are the channels at each resolution, halved from one to the next by a strided convolution, with `blocks` residual
    blocks at each. The log-variance is kept in [−20, 10].
    """

    def __init__(self, channels: int, latent_channels: int, *, widths: tuple[int, ...] = (32, 64, 64), blocks: int = 1) -> None:
        super().__init__()
        layers: list[nn.Module] = [nn.Conv2d(channels, widths[0], 3, padding=1)]
        for i, width in enumerate(widths):
            layers += [Residual(width) for _ in range(blocks)]
            if i + 1 < len(widths):
                layers.append(nn.Conv2d(width, widths[i + 1], 3, stride=2, padding=1))
        layers += [nn.SiLU(), nn.Conv2d(widths[-1], 2 * latent_channels, 3, padding=1)]
        self.net = nn.Sequential(*layers)

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
        mean, log_variance = self.net(x).chunk(2, dim=1)
        # exponentials and their sums are taken in fp32 also under autocast
        mean, log_variance = (part.to(torch.promote_types(part.dtype, torch.float32)) for part in (mean, log_variance))
        return mean, log_variance.clamp(-20.0, 10.0)


class Decoder(nn.Module):
    """Latents [B, latent_channels, h, w] -> images [B, channels, f h, f w], not clamped: the encoder's layers in reverse.

    The resolution doubles by nearest neighbours and a 3×3 convolution, which leaves no checkerboard.
    """

    def __init__(self, channels: int, latent_channels: int, *, widths: tuple[int, ...] = (32, 64, 64), blocks: int = 1) -> None:
        super().__init__()
        back = widths[::-1]
        layers: list[nn.Module] = [nn.Conv2d(latent_channels, back[0], 3, padding=1)]
        for i, width in enumerate(back):
            layers += [Residual(width) for _ in range(blocks)]
            if i + 1 < len(back):
                layers += [nn.Upsample(scale_factor=2, mode="nearest"), nn.Conv2d(width, back[i + 1], 3, padding=1)]
        layers += [nn.SiLU(), nn.Conv2d(back[-1], channels, 3, padding=1)]
        self.net = nn.Sequential(*layers)

    def forward(self, z: Tensor) -> Tensor:
        x = self.net(z)
        return x.to(torch.promote_types(x.dtype, torch.float32))
