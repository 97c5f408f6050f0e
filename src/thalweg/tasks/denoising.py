"""Take Gaussian noise off images."""

import math
from typing import Any

from torch import Tensor

from thalweg.errors import InputError
from thalweg.given import Examples, takes
from thalweg.tasks.checks import check_images, check_model


@takes
def denoise(method: Any, y: Examples, std: float, seed: int = 0) -> Tensor:
    """The expectation of each image x given y = x + std·ε, ε ~ N(0, I): [B, C, H, W] -> the same, clamped to [−1, 1].

    y in the unit of images in [−1, 1], itself not bounded. By the model's own `denoise`: Tweedie's formula, or Langevin dynamics
    with the draws of `seed`. Raises InputError for models that do not denoise, for std ≤ 0, and for images of another shape or not finite.
    """
    shape = check_model("denoise", method, "denoise")
    if not 0 < std < math.inf:
        raise InputError(f"denoise: std must be above 0 and finite, got {std}")
    check_images("denoise", y, shape, bounded=False)
    return method.denoise(y.float().to(method.device), std, seed=seed).clamp(-1, 1).to(y.device)
