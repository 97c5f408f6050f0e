"""Denoising by the short chain of an energy: where it starts in training, and how far it may go. Ours, in none of the papers."""

import math
from collections.abc import Callable

from torch import Tensor

from thalweg import random


def add_noise(x: Tensor, std: float, generator: random.Generator = None) -> Tensor:
    """x + std·ε, [B, ...] -> [B, ...]: where the chains of an energy start that is trained to denoise, each at an image of its own batch.

    What an image and the end of its own chain have in common drops out of the contrastive loss. On Gaussian data N(0, s² I) a chain
    without noise ends at y·s/√(s² + std²), which restores the data's variance; the posterior mean's factor is s²/(s² + std²).
    """
    return x + std * random.normal_like(x, generator)


def within_reach(y: Tensor, std: float) -> Callable[[Tensor], Tensor]:
    """The projection onto the ball of radius std·√d about each y [B, ...], d its dimension, for `project` of a chain.

    That is how far the clean x of y = x + std·ε lies (Morozov's discrepancy principle).
    """
    radius = std * math.sqrt(y[0].numel())

    def project(x: Tensor) -> Tensor:
        move = x - y
        length = move.flatten(1).norm(dim=1).view(-1, *[1] * (y.dim() - 1))
        return y + move * (radius / length).clamp(max=1)

    return project
