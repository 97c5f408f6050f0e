"""Random changes of images: flips and shifts by whole pixels, small affine maps, and views for self-supervised learning: crops, flips and
colours, by kornia in batches, grey values by ourselves, or a little noise.

The settings of views are the specs of `thalweg.augmentation`.
"""

from functools import lru_cache
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional as F

from .. import random
from ..errors import InputError, require


def random_affine(x: Tensor, strength: float = 1.0, generator: random.Generator = None) -> Tensor:
    """Images [B, C, H, W] in [−1, 1], each turned, scaled and shifted at random about its centre: the same shape.

    `strength` 1 means up to ±0.2 radians, ±10 % and ±0.075 of the side. What comes in from outside is −1, the background of dark images.
    """
    _check(x)
    draw = strength * random.uniform(len(x), 4, low=-1.0, high=1.0, generator=generator, device=x.device)
    angle, scale, shift = 0.2 * draw[:, 0], 1 + 0.1 * draw[:, 1], 0.15 * draw[:, 2:]
    tall = x.shape[2] / x.shape[3]  # the grid spans [−1, 1] in height and width, and a turn is of pixels
    rows = [
        torch.stack([scale * angle.cos(), -scale * angle.sin() * tall, shift[:, 0]], 1),
        torch.stack([scale * angle.sin() / tall, scale * angle.cos(), shift[:, 1]], 1),
    ]
    grid = F.affine_grid(torch.stack(rows, 1), list(x.shape), align_corners=False)
    return F.grid_sample(x + 1, grid, align_corners=False) - 1


def random_shifts(x: Tensor, generator: random.Generator = None, *, flip: float, shift: int) -> Tensor:
    """Images [B, C, H, W], each mirrored with probability `flip` and moved by up to `shift` whole pixels: the same shape.

    Where a move leaves room the edge is repeated. The same generator gives the same. Raises InputError for anything but images, and for
    shifts as large as a side.
    """
    _check(x)
    rows, channels, height, width = x.shape
    if shift >= min(height, width):
        raise InputError(f"shift must be less than the sides of the images, {height}×{width}, got {shift}")
    draw = random.uniform(rows, 3, generator=generator, device=x.device)
    moved = ((2 * shift + 1) * draw[:, :2]).long().clamp(max=2 * shift) - shift
    down, across = (
        (torch.arange(side, device=x.device) + moved[:, i : i + 1]).clamp(0, side - 1) for i, side in enumerate((height, width))
    )
    across = torch.where(draw[:, 2:] < flip, across.flip(1), across)
    place = (down[:, :, None] * width + across[:, None]).view(rows, 1, -1).expand(-1, channels, -1)
    return x.flatten(2).gather(2, place).view_as(x)


def _check(x: Tensor) -> None:
    if x.dim() != 4:
        raise InputError(f"random views are of images [B, C, H, W], got shape {list(x.shape)}")


@torch.no_grad()
def random_views(x: Tensor, generator: random.Generator = None, *, crop: float, flip: float, jitter: float, grey: float) -> Tensor:
    """Views of images [B, C, H, W] in [−1, 1], of the same shape and range; settings as in `augmentation.RandomViews`.

    The same generator gives the same views. Raises InputError for anything but images, and without kornia.
    """
    _check(x)
    change = _pipeline(crop, flip, jitter, grey, *x.shape[1:])
    shares = generator if isinstance(generator, tuple) else (generator,)
    views = []
    for part, share in zip(x.chunk(len(shares)), shares):
        # kornia draws from the global generator, which is put back
        device = "cpu" if share is None else share.device
        seed = int(torch.randint(2**62, (), generator=share, device=device))
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(seed)
            views.append(change(0.5 * (part.float() + 1)))
    return (2 * torch.cat(views) - 1).clamp(-1, 1).to(x.dtype)


def grey_noise(x: Tensor, generator: random.Generator = None) -> Tensor:
    """255/256 x + U(0, 1/256) of x in [0, 1] (LIEBM, sec. 4), here of [B, ...] in [−1, 1]."""
    u = random.uniform(*x.shape, generator=generator, device=x.device)
    return (255 * (x + 1) + 2 * u) / 256 - 1


def jitter_brightness(x: Tensor, brightness: Tensor, contrast: Tensor, first: Tensor) -> Tensor:
    """SimCLR's change of brightness and contrast (its appendix A) for images [B, C, H, W] in [0, 1]: the same shape and range.

    Factors [B]: `brightness` multiplies, so that black stays black; `contrast` blends with the image's mean, m + c·(x − m). The change of
    brightness comes before that of contrast where `first` [B] is true, and after it elsewhere; each ends within [0, 1].
    """
    b, c, first = (factor.view(-1, 1, 1, 1).to(x.device) for factor in (brightness, contrast, first))

    def blend(x: Tensor) -> Tensor:
        mean = x.mean((1, 2, 3), keepdim=True)
        return (mean + c * (x - mean)).clamp(0, 1)

    return torch.where(first, blend((b * x).clamp(0, 1)), (b * blend(x)).clamp(0, 1))


class _Jitter(torch.nn.Module):
    """`jitter_brightness` of each image with probability 0.8, by factors within 1 ± `strength`; draws from the global generator."""

    def __init__(self, strength: float) -> None:
        super().__init__()
        self.strength = strength

    def forward(self, x: Tensor) -> Tensor:
        draw = torch.rand(4, len(x))
        spread = self.strength * (draw[0] < 0.8)
        brightness, contrast = (1 + spread * (2 * draw[1:3] - 1)).clamp(min=0)
        return jitter_brightness(x, brightness, contrast, draw[3] < 0.5)


@lru_cache(maxsize=16)
def _pipeline(crop: float, flip: float, jitter: float, grey: float, channels: int, height: int, width: int) -> Any:
    kornia = require("kornia.augmentation", "ssl")
    steps = []
    if crop < 1:
        steps.append(kornia.RandomResizedCrop((height, width), scale=(crop, 1.0)))
    if flip:
        steps.append(kornia.RandomHorizontalFlip(p=flip))
    if jitter:
        colour = kornia.ColorJitter(jitter, jitter, jitter, jitter / 4, p=0.8) if channels == 3 else _Jitter(jitter)
        steps.append(colour)
    if grey and channels == 3:
        steps.append(kornia.RandomGrayscale(p=grey))
    return torch.nn.Sequential(*steps)
