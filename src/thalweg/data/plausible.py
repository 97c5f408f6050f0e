"""What the values of foreign pictures and labels say of themselves: converted where that is clear, else refused."""

import sys
from collections.abc import Sequence
from typing import Any

import numpy
import torch
from torch import Tensor

from ..errors import InputError

MOST_CLASSES = 1000  # beyond which labels with few examples each are taken for identifiers
_HINT = "give the values of black and white as values=(low, high), --values LOW,HIGH or an array values in a .npz"


def pictures(x: Tensor, name: str, values: tuple[float, float] | None = None) -> Tensor:
    """Images [N, C, H, W], [N, H, W, C] or [N, H, W] as [N, C, H, W], uint8 or float32 in [−1, 1].

    `values`: the numbers of black and white; without it integers are 0 … 255 and floats [−1, 1], or [0, 1] where they fill it.
    """
    x = channels_first(x, name)
    if values is not None:
        return mapped(x, name, values)
    if x.dtype == torch.bool or x.is_complex():
        raise InputError(f"{name}: images of {x.dtype}; give uint8 in 0 … 255 or floats in [−1, 1]")
    low, high = x.min().item(), x.max().item()
    if x.is_floating_point():
        x = x.float()
        if not x.isfinite().all():
            raise InputError(f"{name}: {int((~x.isfinite()).flatten(1).any(1).sum())} of {len(x)} images hold NaN or infinity")
        if fills_unit(x):
            print(f"thalweg: {name}: floats from {low:g} to {high:g}, taken for [0, 1] and mapped to [−1, 1]", file=sys.stderr)
            return 2 * x - 1
        if low < -1 or high > 1:
            standardised = low < 0 and high < 20 and abs(float(x.mean())) < 0.5
            kind = " (standardised pictures?)" if standardised else " (0 … 255 as floats?)" if 1 < high <= 255 and low >= 0 else ""
            raise InputError(
                f"{name}: float images must lie in [−1, 1], got values from {low:g} to {high:g}{kind}; give uint8 for 0 to 255, or "
                f"{_HINT.removeprefix('give ')}"
            )
        return x
    if low < 0 or high > 255:
        raise InputError(f"{name}: integer images must be in 0 … 255, got values from {low} to {high}; or {_HINT}{_of_depth(low, high)}")
    if high <= 16 and high > 0:
        raise InputError(
            f"{name}: integers from {low} to {high} would be nearly black among 0 … 255; {_HINT}, here ({low}, {high}), or "
            "(0, 255) if they are"
        )
    return x.to(torch.uint8)


def depth(high: int) -> int:
    """The bits of the scale that grey values up to `high` are likely of: 8, 10, 12, 14 or 16."""
    return next((bits for bits in (8, 10, 12, 14) if high < 2**bits), 16)


def _of_depth(low: int, high: int) -> str:
    return f", (0, {2 ** depth(high) - 1}) if they have {depth(high)} bits" if low >= 0 and high < 2**16 else ""


def fills_unit(x: Tensor) -> bool:
    """Whether floats lie in [0, 1] and reach near both of its ends, as no pictures in [−1, 1] do."""
    low, high = float(x.min()), float(x.max())
    return 0 <= low <= 0.1 and 0.9 <= high <= 1


def channels_first(x: Tensor, name: str) -> Tensor:
    """[N, H, W] and [N, H, W, C] as [N, C, H, W], where the channels are clearly last."""
    if x.dim() == 3:
        x = x[:, None]
    elif x.dim() == 4 and x.shape[1] not in (1, 3) and x.shape[3] in (1, 3):
        x = x.permute(0, 3, 1, 2)
    elif x.dim() == 4 and x.shape[1] > 4 and x.shape[3] in (2, 4):
        raise InputError(f"{name}: {list(x.shape)} looks like [N, H, W, {x.shape[3]}]; give [N, C, H, W], without transparency 3 channels")
    if x.dim() != 4 or 0 in x.shape:
        raise InputError(f"{name}: images must have the shape [N, C, H, W] with no side of 0, got {list(x.shape)}")
    return x.contiguous()


def mapped(x: Tensor, name: str, values: tuple[float, float]) -> Tensor:
    if len(values) != 2 or not float(values[0]) < float(values[1]):
        raise InputError(f"{name}: values are the numbers of black and white, the first below the second, got {values!r}")
    low, high = map(float, values)
    x = x.double()
    if not x.isfinite().all() or x.min() < low or x.max() > high:
        raise InputError(f"{name}: values are said to lie in [{low:g}, {high:g}], but go from {float(x.min()):g} to {float(x.max()):g}")
    return (2 * (x - low) / (high - low) - 1).clamp(-1, 1).float()


def numbered(label: Any, classes: Sequence[str], count: int, name: str) -> tuple[Tensor, tuple[str, ...]]:
    """Labels of any kind as int64 from 0, with the names of their classes.

    Integers 0 … K−1 stay; text, numbers from 1, with gaps or huge become the ranks of their values, which name the classes. With
    `classes` given, integers must be in 0 … K−1, and text among the names. Raises InputError for other shapes, for missing labels,
    and for values that are nearly all different.
    """
    array = label.detach().cpu().numpy() if isinstance(label, Tensor) else numpy.asarray(label)
    if array.shape == (count, 1):
        array = array[:, 0]
    if array.shape != (count,):
        hint = "; of one-hot labels give label.argmax(1)" if array.ndim == 2 and len(array) == count else ""
        raise InputError(f"{name}: labels must be {count} integers, one for each example, got {list(array.shape)} of {array.dtype}{hint}")
    if array.dtype.kind == "O" or array.dtype.kind in "US":
        missing = [value is None or value == "" or value != value for value in array.tolist()]
        if any(missing):
            raise InputError(f"{name}: {sum(missing)} of {count} labels are missing")
        array = numpy.asarray(array.tolist())  # of objects: what they are
    if array.dtype.kind in "US":
        return _named(array.astype(str), classes, name)
    if array.dtype.kind == "b":
        return _named(numpy.where(array, "yes", "no"), classes, name)
    if array.dtype.kind == "f":
        if not numpy.isfinite(array).all() or (array != array.round()).any():
            raise InputError(
                f"{name}: labels must be whole numbers or text, got {array.dtype} such as {array[array != array.round()][0]:g}"
            )
    elif array.dtype.kind not in "iu":
        raise InputError(f"{name}: labels must be whole numbers or text, got {array.dtype}")
    array = array.astype(numpy.int64)
    values = numpy.unique(array)
    if classes:
        if values[0] < 0 or values[-1] >= len(classes):
            raise InputError(f"{name}: labels must be in 0 … {len(classes) - 1}, got values from {values[0]} to {values[-1]}")
        return torch.from_numpy(array), tuple(classes)
    if values[0] == 0 and values[-1] == len(values) - 1:
        return torch.from_numpy(array), tuple(map(str, values.tolist()))
    if values[0] < 0 and values.tolist() != [-1, 1]:
        raise InputError(f"{name}: labels must be in 0 … K−1, got values from {values[0]} to {values[-1]}")
    _check_few(values, count, name)
    kind = f"{values[0]} … {values[-1]}" if values[-1] - values[0] == len(values) - 1 else f"{len(values)} from {values[0]} to {values[-1]}"
    print(f"thalweg: {name}: labels {kind} became 0 … {len(values) - 1}, classes called by their values", file=sys.stderr)
    return torch.from_numpy(numpy.searchsorted(values, array)), tuple(map(str, values.tolist()))


def as_classes(y: Any, classes: Sequence[str], what: str) -> Tensor:
    """Labels [N] as numbers of a model's `classes`: of their names, and of whole numbers, which are names where classes are so called.

    A tensor stays as it is. Raises InputError for other values, and for names that are none of the classes.
    """
    if isinstance(y, Tensor):
        return y
    array = numpy.asarray(y)
    array = numpy.asarray(array.tolist()) if array.dtype.kind == "O" else array
    if array.ndim != 1:
        raise InputError(f"{what}: labels must be [N], one for each example, got {list(array.shape) if array.ndim else repr(y)}")
    if array.dtype.kind in "iu" or (array.dtype.kind == "f" and (array == array.round()).all()):
        array = array.astype(numpy.int64)
        if not _are_numbers(classes) or tuple(classes) == tuple(map(str, range(len(classes)))):
            return torch.from_numpy(array)
        array = array.astype(str)
    elif array.dtype.kind not in "USb":
        raise InputError(f"{what}: labels must be whole numbers 0 … K−1, or names of classes, got {array.dtype}")
    elif not classes:
        raise InputError(f"{what}: labels in words need a model that has names of classes; give whole numbers 0 … K−1")
    return numbered(array, classes, len(array), what)[0]


def renumbered(label: Tensor, names: Sequence[str], classes: Sequence[str], what: str) -> Tensor:
    """Labels that number the classes of some data, called `names`, as a model numbers its `classes`, by their names."""
    if label.dim() > 1 or not names or tuple(names) == tuple(classes):
        return label
    called = numpy.asarray(names)[label.numpy()]
    if _are_numbers(names):
        return as_classes(called.astype(numpy.int64), classes, what)
    return label if not classes or _are_numbers(classes) else as_classes(called, classes, what)


def _are_numbers(names: Sequence[str]) -> bool:
    return bool(names) and all(name.isdecimal() for name in names)


def _named(array: numpy.ndarray, classes: Sequence[str], name: str) -> tuple[Tensor, tuple[str, ...]]:
    values = numpy.unique(array)
    if not classes:
        _check_few(values, len(array), name)
        return torch.from_numpy(numpy.searchsorted(values, array)), tuple(values.tolist())
    unknown = [value for value in values.tolist() if value not in classes]
    if unknown:
        raise InputError(f"{name}: the label '{unknown[0]}' is none of the classes {', '.join(classes)}")
    place = {value: i for i, value in enumerate(classes)}
    return torch.tensor([place[value] for value in array.tolist()]), tuple(classes)


def _check_few(values: numpy.ndarray, count: int, name: str) -> None:
    if len(values) > MOST_CLASSES or (len(values) > 20 and len(values) > count / 2):
        raise InputError(
            f"{name}: labels have {len(values)} different values in {count} examples, which look like identifiers; leave them "
            "out, or number classes from 0"
        )
