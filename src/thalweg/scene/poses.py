"""Searched poses, ours: the likeliest of several cameras instead of a draw of the pose's posterior.

By the paper's gradients alone (thesis, sec. 3.4.4) inference network and generator agree on one pose for all images, and z^s says how an
object is turned (docs/methods/nerf_lebm.md).
"""

import math
from collections.abc import Callable, Sequence

import torch
from torch import Tensor

from thalweg import camera as cameras
from thalweg import random
from thalweg.nn import von_mises

HIGHEST = math.pi / 3  # altitude of cameras from above
PIXELS = 32  # of an image, by which a pose is chosen


def search(
    posteriors: Sequence[tuple[Tensor, Tensor]],
    residual: Callable[[Tensor, Tensor], Tensor],
    candidates: int,
    *,
    distance: float,
    focal: float,
    generator: random.Generator = None,
) -> tuple[Tensor, Tensor]:
    """The likeliest cameras of B images [B, 1, 3, 5], and the loss of the posteriors by which these learn to name them, [B].

    `posteriors`: mean directions [B, 2] and concentrations [B] of altitude and azimuth. Tried are their means and `candidates` cameras from
    above, all around. `residual(rows, camera)` is −log p(image | camera) [B·K] of images number `rows` [B·K] from cameras [B·K, 1, 3, 5].
    """
    n, device = posteriors[0][0].shape[0], posteriors[0][0].device
    tried = []
    for (direction, _), high in zip(posteriors, (HIGHEST, 2 * math.pi)):
        angle = random.uniform(n, candidates, high=high, generator=generator, device=device)
        tried.append(torch.cat([direction.detach()[:, None], cameras.unit_vector(angle)], 1))
    camera = cameras.orbit(*tried, distance=distance, focal=focal)  # [B, 1 + candidates, 3, 5]
    count, row = camera.shape[1], torch.arange(n, device=device)
    with torch.no_grad():
        best = residual(row.repeat_interleave(count), camera.flatten(0, 1)[:, None]).view(n, count).argmin(1)
    loss = torch.zeros(n, device=device)
    for vectors, (direction, kappa) in zip(tried, posteriors):
        vector = vectors[row, best]
        # directions learn on their own: by the likelihood alone those of κ = 0 would have no gradient, and κ stay there
        loss = loss + von_mises.surprise(vector, direction.detach(), kappa) + 1 - (vector * direction).sum(1)
    return camera[row, best][:, None], loss
