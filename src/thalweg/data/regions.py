"""Random regions of images that are known, for chains that hold them."""

import torch
from torch import Tensor

from thalweg import random

LEAST = 0.25  # of a side


def random_regions(x: Tensor, share: float, generator: random.Generator = None) -> Tensor:
    """Which pixels of images [B, C, H, W] are known, bool [B, 1, H, W]: with probability `share` all but a rectangle, else none.

    The rectangle's sides are uniform between a quarter of the image's and all of it, its place anywhere. The same generator gives the same.
    """
    draw = random.uniform(len(x), 5, generator=generator, device=x.device)
    inside = []
    for axis, side in enumerate(x.shape[2:]):
        size = (side * (LEAST + (1 - LEAST) * draw[:, axis, None])).round()
        first, at = ((side - size + 1) * draw[:, 2 + axis, None]).floor(), torch.arange(side, device=x.device)
        inside.append((at >= first) & (at < first + size))
    rectangle = inside[0][:, None, :, None] & inside[1][:, None, None, :]
    return ~rectangle & (draw[:, 4] < share)[:, None, None, None]
