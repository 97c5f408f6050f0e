"""What measures and tasks are given, made tensors in one place: arrays, pairs, tables, Datasets and any `Data`, as `tw.data.of` takes them.

A parameter says by its annotation what it is; `takes` reads that. A tensor of floats stays as it is, since it is what models give and take.
All else is brought to it: pictures to [−1, 1], and rows of a table to the data's own units, in the order of the model's columns.
"""

import functools
import inspect
from collections.abc import Callable, Mapping, Sequence
from numbers import Number
from pathlib import Path
from typing import Annotated, Any, TypeVar, get_args

import torch
from torch import Tensor
from torch.utils.data import DataLoader, IterableDataset

from thalweg.data.base import Data
from thalweg.data.contract import as_tensor
from thalweg.data.door import is_frame, is_pair, of, say
from thalweg.data.frames import LABELS, of_frame
from thalweg.data.plausible import as_classes, channels_first, fills_unit, pictures, renumbered
from thalweg.data.prepare import in_own_units
from thalweg.data.record import class_names
from thalweg.data.toy import toy
from thalweg.data.vectors import Table
from thalweg.errors import InputError
from thalweg.gate import float32

Examples = Annotated[Tensor, "examples"]
"""[N, D] or [N, C, H, W]: a tensor, or whatever `tw.data.of` takes but a name."""
Labels = Annotated[Tensor, "labels"]
"""[N] whole numbers, or the names of the model's classes; also the second part of a pair in place of the examples before."""
Numbers = Annotated[Tensor, "numbers"]
"""A tensor, array or list of any shape, whose values stay as they are."""
Labelled = Annotated[tuple[Tensor, Tensor | None], "labelled"]
"""Examples with labels or None: a pair, or data."""
Kinds = Annotated[Mapping[str, Tensor], "kinds"]
"""Examples by name."""
Batches = Annotated[Tensor, "batches"]
"""Examples, or a list or other iterable of batches, which stays as it is."""
Truth = Annotated[Any, "toy"]
"""A toy whose density is known, or the name of one."""

STREAM = 1000  # examples of a stream that stand for it
R = TypeVar("R")
Numbered = Callable[[], Tensor] | None  # labels as the model numbers them, asked for where they are needed


def takes(function: Callable[..., R]) -> Callable[..., R]:
    """`function` with the parameters that are annotated `Examples`, `Labels`, … open to what these name; it sees tensors."""
    parameters = inspect.signature(function).parameters
    kinds = {name: _kind(one.annotation) for name, one in parameters.items()}
    order = [name for name, one in parameters.items() if one.kind is inspect.Parameter.POSITIONAL_OR_KEYWORD]
    label_of = {name: after for name, after in zip(order, order[1:]) if kinds[after] == "labels"}

    @functools.wraps(function)
    def given(*values: Any, **options: Any) -> R:
        model = _model((*values, *options.values()))
        found: dict[str, Any] = {}
        names, room = iter(order), len(order) - len(values)

        def take(name: str, value: Any) -> bool:
            """Whether the value brought labels, which take the place of the next argument."""
            found[name], label = _converted(f"{function.__name__}: {name}", kinds.get(name), value, model)
            to = label_of.get(name)
            if label is None or to is None:
                return False
            if to in options or (name not in options and not room):
                raise InputError(f"{function.__name__}: labels are given twice, with {name} and as {to}")
            found[to] = label()
            return True

        for value in values:
            name = next(names, None)
            if name is None:
                return function(*values, **options)  # too many, as Python says
            if take(name, value):
                next(names)
                room -= 1
        for name, value in options.items():
            take(name, value)
        for name, to in label_of.items():
            if name in found and to not in found and parameters[to].default is inspect.Parameter.empty:
                raise InputError(f"{function.__name__}: {name} has no labels; give {to} [N], or a pair (x, y)")
        with float32():
            return function(**found)

    return given


def _kind(annotation: Any) -> str | None:
    found = [part.__metadata__[0] for part in (annotation, *get_args(annotation)) if hasattr(part, "__metadata__")]
    return found[0] if found else None


def _model(values: Sequence[Any]) -> Any:
    """The model among arguments, also where it is only one of its functions; None where there is none."""
    owners = (getattr(value, "__self__", value) for value in values)
    return next((owner for owner in owners if isinstance(owner, torch.nn.Module) and hasattr(owner, "trained_on")), None)


def _converted(what: str, kind: str | None, value: Any, model: Any) -> tuple[Any, Numbered]:
    """A value as a tensor, and what numbers the labels that came with it."""
    if kind is None or value is None or isinstance(value, Number) or (kind == "batches" and isinstance(value, tuple | list)):
        return value, None
    if kind == "kinds":
        if not isinstance(value, Mapping):
            raise InputError(f"{what} needs a dict of name -> examples, got {type(value).__name__}")
        return {name: _converted(f"{what} '{name}'", "examples", one, model)[0] for name, one in value.items()}, None
    if kind == "toy":
        return (toy(value) if isinstance(value, str) else value), None
    if kind == "labelled":
        x, label = _converted(what, "examples", value, model)
        return (x, None if label is None else label()), None
    if isinstance(value, Tensor) and value.dtype is not torch.uint8:
        return value, None
    if kind == "labels":
        return as_classes(value, _classes(model), what), None
    return _examples(what, value, kind, model)


def _examples(what: str, x: Any, kind: str, model: Any) -> tuple[Any, Numbered]:
    if isinstance(x, str | Path):
        raise InputError(f"{what} is a name; load the split that is meant, as in tw.data.load({str(x)!r}, 'test')")
    if is_pair(x):
        found, label = _examples(what, x[0], kind, model)
        if x[1] is None:
            return found, label
        if len(x[1]) != len(found):
            raise InputError(f"{what}: {len(found)} examples and {len(x[1])} labels, need one for each")
        return found, lambda: as_classes(x[1], _classes(model), what)
    if not is_frame(x) and (isinstance(x, list) or hasattr(x, "__array__")):  # also a column of a table, and arrays of other libraries
        return _array(what, x, kind), None
    if is_frame(x):
        return _rows(what, of_frame(_chosen(what, x, model), standardise=False), model)
    if callable(getattr(x, "batch", None)) or callable(getattr(x, "__getitem__", None)) or isinstance(x, DataLoader | IterableDataset):
        return _rows(what, of(x), model)
    return x, None  # what else a function takes, it says itself


def _array(what: str, x: Any, kind: str) -> Tensor:
    try:
        found = x if isinstance(x, Tensor) else as_tensor(x, what)
    except InputError:
        raise
    except ValueError:
        raise InputError(f"{what} needs an array, got a list of parts that differ in shape") from None
    if kind == "numbers" or found.is_complex():
        return found.float() if found.dtype is torch.float64 and not isinstance(x, Tensor) else found
    if not found.dim() or not len(found):
        raise InputError(f"{what} has no examples")
    if found.dim() not in (3, 4) or not found.numel():
        return found.float()
    if not found.is_floating_point():
        return pictures(found, what).float() / 127.5 - 1
    found = channels_first(found, what)
    return pictures(found, what) if fills_unit(found) else found.float()


def _rows(what: str, data: Data, model: Any) -> tuple[Tensor, Numbered]:
    """All examples of data, of a stream its first, with labels by the model's classes."""
    if hasattr(data, "all"):
        found = in_own_units(data)
    else:
        count = len(data) if hasattr(data, "__len__") else STREAM
        if not hasattr(data, "__len__"):
            say(f"{what}: {data.name} is a stream, of which the first {STREAM:,} examples are taken")
        found = data.batch(0, count, 0)
    x = found.x
    if isinstance(data, Table) and (columns := _columns(what, data.columns, model)):
        x = x[:, [data.columns.index(column) for column in columns]]
    label = found.label
    return x, None if label is None else lambda: renumbered(label, data.classes, _classes(model), what)


def _columns(what: str, columns: Sequence[str], model: Any) -> tuple[str, ...]:
    """The model's columns where the data have columns of these names; empty where they share none, and only the order counts."""
    units = None if model is None else model.units
    missing = [] if units is None else [column for column in units.columns if column not in columns]
    if units is None or len(missing) == len(units.columns):
        return ()
    if missing:
        raise InputError(f"{what} has no column '{missing[0]}', which the model was trained on; its columns are {', '.join(columns)}")
    return units.columns


def _chosen(what: str, frame: Any, model: Any) -> Any:
    """Of a DataFrame the columns that a model was trained on, and the one that holds labels by its name."""
    columns = _columns(what, tuple(map(str, frame.columns)), model)
    if not columns:
        return frame
    return frame[[column for column in frame.columns if str(column) in columns or str(column).lower() in LABELS]]


def _classes(model: Any) -> tuple[str, ...]:
    return () if model is None else class_names(model.trained_on, model.config.classes)
