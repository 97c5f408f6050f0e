"""Find what an image is made from in a model whose samples are a function of their start."""

from typing import Any

import torch
from torch import Tensor

from thalweg.given import Examples, takes
from thalweg.tasks.checks import check_count, check_images, check_model

ROWS = 256  # images in one call of a method's `reconstruct` at most


@takes
def reconstruct(method: Any, x: Examples, *, steps: int = 200, seed: int = 0) -> Tensor:
    """The nearest that the model's sampler comes to each image: [B, C, H, W] in [−1, 1] -> the same.

    By `steps` steps of optimisation on where the sampler starts, from starts that `seed` draws; the model's own `reconstruct` also
    gives those starts and their latents. Raises InputError for models without one, and images of another shape or range.
    """
    shape = check_model("reconstruct", method, "reconstruct")
    check_count("steps", steps, 1)
    check_images("reconstruct", x, shape)
    parts = x.float().to(method.device).split(ROWS)
    return torch.cat([method.reconstruct(part, steps=steps, seed=seed + i).x for i, part in enumerate(parts)]).to(x.device)
