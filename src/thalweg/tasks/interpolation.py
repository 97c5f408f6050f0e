"""Walk from one sample to another through the noise that samples start from."""

from typing import Any

import torch
from torch import Tensor

from thalweg.errors import InputError
from thalweg.given import Examples, Numbers, takes
from thalweg.methods.base import check_sampling, needs
from thalweg.tasks.checks import check_count, check_images, check_model


@takes
def slerp(a: Numbers, b: Numbers, weights: Numbers) -> Tensor:
    """Points on the arc from a (weight 0) to b (weight 1): one shape […] and weights [n] -> [n, …].

    sin((1 − w)θ)/sin θ · a + sin(wθ)/sin θ · b with the angle θ between a and b (Shoemake 1985), which keeps the norm of
    Gaussian noise where the straight line would shrink it. Raises InputError for different shapes, for values that are not
    finite, for zero and for opposite directions, between which no arc is the shortest.
    """
    if a.shape != b.shape or not a.dim() or weights.dim() != 1:
        raise InputError(f"slerp: got shapes {list(a.shape)}, {list(b.shape)} and {list(weights.shape)}, need […], […] and [n]")
    one, two = a.double().flatten(), b.double().flatten()
    lengths = one.norm() * two.norm()
    if not lengths.isfinite() or lengths == 0:
        raise InputError("slerp: both ends must be finite and not all zero")
    angle = torch.acos((one @ two / lengths).clamp(-1, 1))
    if torch.pi - angle < 1e-4:
        raise InputError("slerp: the ends point in opposite directions, no arc between them is the shortest")
    w = weights.to(one).view(-1, 1)
    if angle < 1e-4:  # as good as one direction: the straight line, which the arc becomes
        points = (1 - w) * one + w * two
    else:
        points = (torch.sin((1 - w) * angle) * one + torch.sin(w * angle) * two) / torch.sin(angle)
    return points.to(a.dtype).view(-1, *a.shape)


@takes
def interpolate(method: Any, a: Numbers, b: Numbers, steps: int = 8, *, seed: int = 0, **options: Any) -> Tensor:
    """`steps` samples whose starts lie evenly on the arc from noise a to noise b, both ends included: [steps, ...].

    a, b: draws of N(0, I) of the model's `latent_shape`, or `latents` of two images. All else that a sample depends on is held as the
    model says (`held`). `options` go to its `sample`. Raises InputError for models whose samples are no function of their start.
    """
    needs("interpolate", method, "start")
    check_sampling(method, options)
    check_count("steps", steps, 2)
    shape = tuple(method.latent_shape)
    for name, end in (("a", a), ("b", b)):
        if not end.is_floating_point() or tuple(end.shape) != shape:
            raise InputError(f"interpolate: got {name} of {end.dtype} {list(end.shape)}, need floating-point {list(shape)}")
    start = slerp(a, b, torch.linspace(0, 1, steps)).to(method.device)
    return method.sample(steps, seed=seed, start=start, **(dict(method.held) | options))


@takes
def latents(method: Any, x: Examples, *, seed: int = 0) -> Tensor:
    """The noise that images come from, to interpolate between them: [B, C, H, W] -> [B, *latent_shape].

    By the model's own `invert`: a deterministic sampler backwards, or a search for the start, which begins at proposals that `seed`
    draws. Raises InputError for models that cannot, and images of another shape or range.
    """
    check_images("latents", x, check_model("latents", method, "invert"))
    return method.invert(x.float().to(method.device), seed=seed)
