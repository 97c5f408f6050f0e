"""What the tasks ask of models, images and options, each with one message where it is not so."""

from numbers import Integral
from typing import Any

from torch import Tensor

from thalweg.errors import InputError
from thalweg.methods.base import needs


def check_model(task: str, method: Any, *abilities: str) -> tuple[int, ...]:
    """The shape [C, H, W] that a model works on; raises InputError for a model of anything else, or without one of the abilities."""
    shape = tuple(method.config.shape)
    if len(shape) != 3:
        raise InputError(f"{task} is for models of images; this {method.name} was trained on points of shape {shape}")
    needs(task, method, *abilities)
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
    if not isinstance(value, Integral) or isinstance(value, bool) or value < least:
        raise InputError(f"{name} must be a whole number of {least} or more, got {value!r}")
