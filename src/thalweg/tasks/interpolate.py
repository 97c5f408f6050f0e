"""Walk from one sample to another through the noise that samples start from."""

from typing import Any

import torch
from torch import Tensor

from thalweg.errors import InputError
from thalweg.tasks.checks import check_count, check_images, check_images_model, check_options, device_of, options_of


def slerp(a: Tensor, b: Tensor, weights: Tensor) -> Tensor:
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


def interpolate(method: Any, a: Tensor, b: Tensor, steps: int = 8, *, seed: int = 0, **options: Any) -> Tensor:
    """`steps` samples whose starts lie evenly on the arc from noise a to noise b, both ends included: [steps, ...].

    a, b: draws of N(0, I) of the method's shape (of a coopflow generator's latent shape), or `latents` of two images. All else that a
    sample depends on is held: egc samples with eta = 0, cdrl with one draw of noise for all rows (`shared`), coopflow without noise
    in its chains. `options` go to the method's `sample`. Raises InputError for methods whose samples take no `start`, or are not a
    function of it.
    """
    check_options("interpolate", method, "start", options)
    check_count("steps", steps, 2)
    shape = tuple(getattr(method, "latent_shape", method.config.shape))
    for name, end in (("a", a), ("b", b)):
        if not end.is_floating_point() or tuple(end.shape) != shape:
            raise InputError(f"interpolate: got {name} of {end.dtype} {list(end.shape)}, need floating-point {list(shape)}")
    taken = options_of(method)
    held = {name: value for name, value in (("eta", 0.0), ("shared", "all")) if name in taken}
    if not held and not getattr(method, "deterministic", False):
        raise InputError(f"interpolate: samples of {method.name} follow noise drawn on the way, so near starts give unrelated samples")
    start = slerp(a, b, torch.linspace(0, 1, steps)).to(device_of(method, a))
    return method.sample(steps, seed=seed, start=start, **(held | options))


def latents(method: Any, x: Tensor, *, seed: int = 0) -> Tensor:
    """The noise that images come from, to interpolate between them: [B, C, H, W] -> the same shape.

    egc's by its deterministic sampler backwards, coopflow's by searching the start of its chains (`reconstruct`, thesis sec. 4.4.4),
    which begins at proposals that `seed` draws. Raises InputError for other methods, and images of another shape or range.
    """
    check_images("latents", x, check_images_model("latents", method))
    x = x.float().to(device_of(method, x))
    if {"invert", "reconstruct"} <= getattr(method, "abilities", set()):  # its inverse is a search that begins at draws
        return method.invert(x, seed=seed)
    if hasattr(method, "invert") and hasattr(method.config, "levels"):
        return method.invert(x, steps=min(200, method.config.levels))  # in fewer, some images do not come back
    raise InputError(f"latents: {method.name} cannot say from which noise an image comes; egc and coopflow with a flow can")
