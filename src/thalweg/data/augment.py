"""Random views of images for self-supervised learning: crops, flips, colours, by kornia in batches."""

from dataclasses import dataclass
from functools import lru_cache
from typing import Any, final

import torch
from torch import Tensor

from ..errors import InputError, require
from ..random import Generator


@final
@dataclass(frozen=True)
class Augmentation:
    """The random views of SimCLR (Chen et al. 2020, appendix A), each image its own.

    `crop`: least share of the area that a crop keeps, resized to the image's size, 1 for no crops; `flip`: probability of a mirror
    image; `jitter`: strength of changes of brightness, contrast and (in colour) saturation, hue a quarter of it, made with
    probability 0.8; `grey`: probability of a grey image, for three channels.
    """

    crop: float = 0.2
    flip: float = 0.5
    jitter: float = 0.4
    grey: float = 0.1

    @torch.no_grad()
    def __call__(self, x: Tensor, generator: Generator = None) -> Tensor:
        """Images [B, C, H, W] in [−1, 1] -> views of the same shape and range; the same generator gives the same views.

        Raises InputError for anything but images, and without kornia.
        """
        if x.dim() != 4:
            raise InputError(f"random views are of images [B, C, H, W], got shape {list(x.shape)}")
        change = _pipeline(self, *x.shape[1:])
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


@lru_cache(maxsize=16)
def _pipeline(settings: Augmentation, channels: int, height: int, width: int) -> Any:
    kornia = require("kornia.augmentation", "ssl")
    s, steps = settings.jitter, []
    if settings.crop < 1:
        steps.append(kornia.RandomResizedCrop((height, width), scale=(settings.crop, 1.0)))
    if settings.flip:
        steps.append(kornia.RandomHorizontalFlip(p=settings.flip))
    if s and channels == 3:
        steps.append(kornia.ColorJitter(s, s, s, s / 4, p=0.8))
    elif s:
        around = (max(0.0, 1 - s), 1 + s)
        steps += [kornia.RandomBrightness(around, p=0.8), kornia.RandomContrast(around, p=0.8)]
    if settings.grey and channels == 3:
        steps.append(kornia.RandomGrayscale(p=settings.grey))
    return torch.nn.Sequential(*steps)
