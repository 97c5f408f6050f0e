"""Posteriors of latents p(z | x), given what a head made of x: on the sphere, Gaussian, or of CEBM's exponential family (LIEBM, sec. 3.1).

`kind` is "cosine", "gaussian" or "exponential"; g [B, d_z], of a Gaussian [B, 2 d_z]; `gamma` is the concentration γ of the cosine's.
"""

import math
from typing import Literal

import torch
from torch import Tensor
from torch.nn import functional as F

Kind = Literal["cosine", "gaussian", "exponential"]


def log_posterior(kind: Kind, g: Tensor, z: Tensor, gamma: float) -> Tensor:
    """log p(z | x) in nats, for the cosine posterior γ cos(g, z), without its constant log Z_γ: latents z [B, d_z] -> [B]."""
    if kind == "cosine":
        return gamma * F.cosine_similarity(g, z, dim=1)
    mean, precision = moments(kind, g, gamma)
    return -0.5 * (precision * (z - mean).square() - precision.log() + math.log(2 * math.pi)).sum(1)


def moments(kind: Kind, g: Tensor, gamma: float) -> tuple[Tensor, Tensor]:
    """Mean and precision, [B, d_z] each: of a Gaussian, or the mean direction and γ of a von Mises–Fisher."""
    if kind == "cosine":
        return F.normalize(g, dim=1), torch.full_like(g, gamma)
    if kind == "exponential":
        return g, torch.ones_like(g)
    mean, log_variance = g.chunk(2, dim=1)
    return F.normalize(mean, dim=1), (-log_variance.tanh()).exp()  # sec. 4.5: a normalised mean, log-variances in [−1, 1]
