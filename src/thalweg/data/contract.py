"""The contract of a `Data` of somebody's own: each of its batches is brought to it where that is clear, and refused where not."""

from typing import Any, final

import numpy
import torch
from torch import Tensor

from ..errors import InputError
from .base import Batch, Data


def as_tensor(x: Any, name: str) -> Tensor:
    """Numbers from outside as a tensor on the CPU."""
    if isinstance(x, Tensor):
        found = x.detach().cpu()
        found = found.long() if found.dtype in (torch.uint16, torch.uint32, torch.uint64) else found  # of which torch has few functions
        return found.clone() if found.is_inference() else found
    array = numpy.asarray(x)
    if array.dtype.kind not in "biufc":
        raise InputError(f"{name}: an array of {array.dtype}; examples must be numbers")
    if array.dtype.kind == "u" and array.dtype.itemsize > 1:
        array = array.astype(numpy.int64)
    array = array if array.flags.writeable else array.copy()  # as columns of a DataFrame are
    return torch.from_numpy(numpy.ascontiguousarray(array if array.dtype.isnative else array.astype(array.dtype.newbyteorder("="))))


@final
class Own:
    """A `Data` of somebody's own, each of whose batches is brought to the contract: float32, finite, of `shape`, labels int64 in range."""

    def __init__(self, data: Any) -> None:
        missing = [part for part in ("name", "shape", "classes") if not hasattr(data, part)]
        if missing:
            raise InputError(
                f"data: {type(data).__name__} has batch() but no {' and no '.join(missing)}; a Data has name, shape [D] or [C, H, W], "
                "classes (names, or ()) and batch(start, count, seed)"
            )
        self.data, self.name = data, str(data.name)
        shape = (data.shape,) if isinstance(data.shape, int) else tuple(data.shape)
        if not shape or not all(isinstance(side, int | numpy.integer) and side > 0 for side in shape):
            raise InputError(f"{self.name}: shape is that of one example, [D] or [C, H, W] of whole numbers, got {data.shape!r}")
        self.shape = tuple(int(side) for side in shape)
        self.classes = tuple(map(str, range(data.classes))) if isinstance(data.classes, int) else tuple(data.classes)
        self.concepts = dict(getattr(data, "concepts", {}))

    def __repr__(self) -> str:
        return f"Own({self.data!r})"

    def __getattr__(self, name: str) -> Any:
        if name == "data":  # while it is copied
            raise AttributeError(name)
        return getattr(self.data, name)

    def batch(self, start: int, count: int, seed: int) -> Batch:
        """As of the data themselves, checked."""
        return checked(self.data.batch(start, count, seed), self, count)


def own(data: Any) -> Data:
    # of this package: their batches are right, and are not to be drawn twice
    return data if type(data).__module__.partition(".")[0] == "thalweg" else Own(data)


def checked(batch: Any, data: Any, count: int) -> Batch:
    """A batch as the contract of `Data` wants it; InputError for what is not clearly meant so."""
    if not isinstance(batch, tuple) or not hasattr(batch, "_fields"):
        parts = tuple(batch) if isinstance(batch, tuple | list) else (batch,)
        if not 1 <= len(parts) <= 2:
            raise InputError(f"{data.name}: a batch has {len(parts)} parts, need x or (x, label), as in tw.data.Batch(x, label)")
        batch = Batch(*parts)
    x = batch.x
    if not isinstance(x, Tensor | numpy.ndarray):
        raise InputError(
            f"{data.name}: the x of a batch is a {type(x).__name__}, need a tensor [{count}, {', '.join(map(str, data.shape))}]"
        )
    x = as_tensor(x, data.name) if not isinstance(x, Tensor) else x
    if tuple(x.shape) != (count, *data.shape):
        raise InputError(
            f"{data.name}: batch(start, {count}, seed) gives x of shape {list(x.shape)}, but its shape says "
            f"[{count}, {', '.join(map(str, data.shape))}]"
        )
    if not x.is_floating_point():
        if len(data.shape) == 3 and x.dtype == torch.uint8:
            x = x.float() / 127.5 - 1
        elif len(data.shape) == 3 or x.is_complex() or x.dtype == torch.bool:
            raise InputError(f"{data.name}: the x of a batch holds {x.dtype}, need float32{', images in [−1, 1]' * (len(data.shape) == 3)}")
    x = (x.clone() if x.is_inference() else x).float()
    finite = x.isfinite().flatten(1).all(1)
    if not finite.all():
        raise InputError(f"{data.name}: {int((~finite).sum())} of {count} examples of a batch hold NaN or infinity; drop or fill them")
    return batch._replace(x=x, label=_checked_label(batch.label, data, count))


def _checked_label(label: Any, data: Any, count: int) -> Tensor | None:
    if label is None:
        if data.classes:
            raise InputError(
                f"{data.name} has {len(data.classes)} classes, but its batches no labels; give Batch(x, label), or classes = ()"
            )
        return None
    label = torch.as_tensor(label)
    whole = not label.is_floating_point() or bool((label == label.round()).all())
    wanted = (count, len(data.concepts)) if data.concepts else (count,)
    if tuple(label.shape) != wanted or label.is_complex() or not whole:
        raise InputError(
            f"{data.name}: the labels of a batch must be whole numbers {list(wanted)}, got {list(label.shape)} of {label.dtype}"
        )
    label = label.long()
    if len(label) and data.classes and (label.min() < 0 or label.max() >= len(data.classes)):
        raise InputError(
            f"{data.name}: labels must be in 0 … {len(data.classes) - 1}, got values from {int(label.min())} to {int(label.max())}"
        )
    return label
