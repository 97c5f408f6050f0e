"""Translate images of one domain into another, and show where and how they change."""

import sys
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor
from torch.nn.functional import interpolate

from thalweg.energy import score
from thalweg.given import Examples, takes
from thalweg.sample import Trace
from thalweg.tasks.checks import check_count, check_images, check_model

ROWS = 32  # images in one chain at most: every state of it is held, on the CPU


@dataclass(frozen=True, eq=False)
class Translation:
    """`x` [B, C, H, W], the translated images; `saliency` [B, H, W], Σ_t |∇E(y_t)| summed over channels, in nats a unit of a pixel;
    `strip` [F, B, C, H, W], the chain from the source images (first) to `x` (last)."""

    x: Tensor
    saliency: Tensor
    strip: Tensor


@takes
def translate(method: Any, x: Examples, seed: int = 0, *, frames: int = 8) -> Translation:
    """Images of the model's source domain into its own, by its trained chain (CF-EBM, eq. 4): [B, C, H, W] in [−1, 1].

    The saliency adds up the gradients that moved each pixel, over all states y_t that the chain stepped from (CF-EBM, sec. 3.3);
    `frames` states of the chain, evenly spaced, make the strip. A model that has not reached its last stage works at that stage's size.
    Raises InputError for models that were not trained from a source, and images of another shape or range.
    """
    shape = check_model("translate", method, "translate")
    check_count("frames", frames, 2)
    check_images("translate", x, shape)
    device = method.device
    parts = [_translate(method, part.to(device), seed + i, frames) for i, part in enumerate(x.float().split(ROWS))]
    found, saliency, strip = zip(*parts)
    return Translation(torch.cat(found).to(x.device), torch.cat(saliency).to(x.device), torch.cat(strip, 1).to(x.device))


def _translate(method: Any, x: Tensor, seed: int, frames: int) -> tuple[Tensor, Tensor, Tensor]:
    trace = Trace(keep=sys.maxsize)  # every state
    found = method.sample(len(x), seed=seed, start=x, trace=trace)
    states = trace.states
    saliency = torch.zeros_like(states[0][:, :1], device=x.device)
    for y in states[:-1]:
        saliency = saliency + score(method.energy, y.to(x.device)).abs().sum(1, keepdim=True)
    kept = states[torch.linspace(0, len(states) - 1, frames).round().long()]
    strip = torch.cat([_resized(y.to(x.device), x) for y in kept[:-1]] + [found]).view(frames, *x.shape)
    return found, _resized(saliency, x)[:, 0], strip


def _resized(y: Tensor, like: Tensor) -> Tensor:
    return interpolate(y, size=like.shape[2:], mode="nearest")
