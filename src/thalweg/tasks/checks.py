"""What the tasks ask of methods, images and options, each with one message where it is not so."""

import inspect
from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor

from thalweg.errors import InputError, nearest


def options_of(method: Any) -> dict[str, inspect.Parameter]:
    """The keywords that a method's `sample` takes."""
    parameters = dict(inspect.signature(method.sample).parameters)
    return {name: p for name, p in parameters.items() if p.kind in (p.POSITIONAL_OR_KEYWORD, p.KEYWORD_ONLY)}


def check_options(task: str, method: Any, needed: str, options: Mapping[str, Any]) -> None:
    """Raises InputError unless the method's `sample` takes the keyword `needed`, and all of `options`."""
    taken = options_of(method)
    if needed not in taken:
        raise InputError(f"{task} needs a method whose samples take a {needed}; those of {method.name} do not")
    anything = any(p.kind is p.VAR_KEYWORD for p in inspect.signature(method.sample).parameters.values())
    for name in options:
        if name not in taken and not anything:
            raise InputError(f"{task}: samples of {method.name} take no option '{name}'{nearest(name, taken)}")


def check_images_model(task: str, method: Any) -> tuple[int, ...]:
    """The shape [C, H, W] that a method works on; raises InputError for a model of anything else."""
    shape = tuple(method.config.shape)
    if len(shape) != 3:
        raise InputError(f"{task} is for models of images; this {method.name} was trained on points of shape {shape}")
    return shape


def check_images(name: str, x: Tensor, shape: tuple[int, ...] | None = None, *, bounded: bool = True) -> None:
    """Raises InputError unless x is floating-point [N, C, H, W], N ≥ 1, finite, of `shape` if given, and in [−1, 1] if `bounded`."""
    wanted = "[N, C, H, W]" if shape is None else f"[N, {', '.join(map(str, shape))}]"
    if not x.is_floating_point() or x.dim() != 4 or not x.numel() or (shape is not None and tuple(x.shape[1:]) != shape):
        raise InputError(f"{name}: got {x.dtype} {list(x.shape)}, need floating-point {wanted} with N ≥ 1")
    if not x.isfinite().all():
        raise InputError(f"{name}: {int((~x.isfinite()).flatten(1).any(1).sum())} of {len(x)} images hold NaN or infinity")
    low, high = float(x.min()), float(x.max())
    if bounded and (low < -1 or high > 1):
        raise InputError(f"{name}: values from {low:.4g} to {high:.4g}, need [−1, 1]")


def check_count(name: str, value: int, least: int) -> None:
    """Raises InputError unless `value` is an integer of at least `least`."""
    if not isinstance(value, int) or isinstance(value, bool) or value < least:
        raise InputError(f"{name} must be a whole number of {least} or more, got {value!r}")


def device_of(method: Any, like: Tensor) -> torch.device:
    """Where a method's parameters are; where `like` is for one without any."""
    parameters = getattr(method, "parameters", None)
    first = None if parameters is None else next(iter(parameters()), None)
    return like.device if first is None else first.device
