"""The one door for data: tensors, arrays, pairs, tables, Datasets, names and paths become a `Data`, whose batches are checked."""

import contextlib
import sys
import weakref
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy
import torch
from torch import Tensor

from ..errors import InputError
from .base import Data
from .contract import as_tensor, own
from .images import Images, Size, convert
from .plausible import numbered, pictures
from .vectors import Table

MOST_BYTES = 2**33  # that a Dataset or DataLoader may take in memory
AT_ONCE = 256  # examples of a Dataset read at once
X_KEYS, LABEL_KEYS = ("x", "image", "img", "pixel_values", "input", "data", "features"), ("y", "label", "labels", "target", "class")
_READ: "weakref.WeakKeyDictionary[Any, Data]" = weakref.WeakKeyDictionary()  # Datasets that were read already


def say(text: str) -> None:
    """One line on stderr of what was assumed of data."""
    print(f"thalweg: {text}", file=sys.stderr)


def of(
    x: Any,
    label: Any = None,
    *,
    split: str = "train",
    name: str | None = None,
    classes: Sequence[str] = (),
    columns: Sequence[str] = (),
    size: Size | None = None,
    channels: int | None = None,
    values: tuple[float, float] | None = None,
    standardise: bool = True,
    most_bytes: int = MOST_BYTES,
) -> Data:
    """Anything that holds examples as a `Data`.

    `x`: a tensor or NumPy array, vectors [N, D] or images [N, C, H, W], [N, H, W, C] or [N, H, W]; a pair (x, y) with labels [N]; a
    pandas DataFrame; a torch Dataset or DataLoader, which is read into memory once; a name or path (see `load`); or a `Data`, whose
    batches are checked as they come. `label`: labels [N], of a DataFrame also the name of a column. `values`: the numbers that are
    black and white, for images that are neither 0 … 255 nor [−1, 1]. `size`, `channels`: see `load`. Vectors are standardised by
    column, unless `standardise` is False (see `Table`). Raises InputError with what was found and what would be right.
    """
    options = dict(name=name, classes=classes, columns=columns, size=size, channels=channels, values=values, standardise=standardise)
    if isinstance(x, str | Path):
        from . import load

        return load(x, split, size=size, channels=channels, **_given(label=label, values=values))
    if _has_batches(x):
        _only(x, label is not None or any(options[key] for key in ("name", "classes", "columns", "size", "channels", "values")))
        return own(x)
    if isinstance(x, dict):
        x = _pair(x)
    if is_pair(x):
        if label is not None and x[1] is not None:
            raise InputError("data: labels are given twice, in a pair (x, y) and as label")
        x, label = x[0], x[1] if label is None else label
    if is_frame(x):
        from .frames import of_frame

        return of_frame(x, label, **options)
    if _is_array(x) or isinstance(x, list):
        return _of_array(x, label, **options)
    if callable(getattr(x, "__getitem__", None)) or callable(getattr(x, "__iter__", None)):
        return _of_dataset(x, most_bytes, label=label, **options)
    raise InputError(
        f"data: {type(x).__name__} is nothing that examples can be taken from; give a tensor or array [N, D] or [N, C, H, W], a pair "
        "(x, y), a DataFrame, a Dataset, a DataLoader, a name or path, or an object with name, shape, classes and batch(start, count, seed)"
    )


def _given(**options: Any) -> dict[str, Any]:
    return {name: value for name, value in options.items() if value is not None}


def _only(x: Any, more: bool) -> None:
    if more:
        raise InputError(f"data: {type(x).__name__} has batches of its own, with which name, classes, size, values and labels are settled")


def _has_batches(x: Any) -> bool:
    """An object with the `batch` of `Data`; Datasets of the hub have one of another meaning, but no classes."""
    return callable(getattr(x, "batch", None)) and (hasattr(x, "classes") or not hasattr(x, "__getitem__"))


def _is_array(x: Any) -> bool:
    return isinstance(x, Tensor | numpy.ndarray)


def is_pair(x: Any) -> bool:
    """Examples with labels, or None for them: two parts of which the first is an array or a table, and the second no images."""
    if isinstance(x, tuple) and hasattr(x, "_fields"):  # a batch
        return True
    return isinstance(x, tuple | list) and len(x) == 2 and (_is_array(x[0]) or is_frame(x[0])) and getattr(x[1], "ndim", 1) <= 2


def is_frame(x: Any) -> bool:
    """A pandas DataFrame, told without importing pandas."""
    pandas = sys.modules.get("pandas")
    return pandas is not None and isinstance(x, pandas.DataFrame)


def _of_array(
    x: Any, label: Any, *, name: str | None, classes: Sequence[str], columns: Sequence[str], size: Size | None, channels: int | None,
    values: tuple[float, float] | None, standardise: bool,
) -> Data:  # fmt: skip
    x = as_tensor(x, name or "data")
    label, classes = (None, ()) if label is None else numbered(label, classes, len(x), name or "data")
    if x.dim() in (3, 4):
        name = name or "images"
        images = Images(pictures(x, name, values), label, classes, name=name)
        return images if size is None and channels is None else Images(convert(images.x, size, channels), label, classes, name=name)
    if size is not None or channels is not None or values is not None:
        raise InputError(f"data: size, channels and values are of images [N, C, H, W], got {list(x.shape)}")
    if x.dim() == 1 and len(x):
        raise InputError(f"data: one number for each of {len(x)} examples; vectors are [N, D], so of one column give x[:, None]")
    if x.is_complex():
        raise InputError("data: complex numbers; give real and imaginary parts as columns")
    table = Table(x, label, classes, columns=columns, name=name or "table", standardise=standardise)
    constant = [column for column, spread in zip(table.columns, table.x.std(0, correction=0)) if spread == 0]
    if constant and len(table) > 1:
        shown = ", ".join(constant[:5]) + (" …" if len(constant) > 5 else "")
        say(f"{table.name}: {len(constant)} of {len(table.columns)} columns hold one value only ({shown}); a density has no use for them")
    return table


# --- Datasets and DataLoaders


def _of_dataset(source: Any, most_bytes: int, **options: Any) -> Data:
    plain = not any(options[key] for key in options if key not in ("standardise", "label")) and options["label"] is None
    try:
        if plain and options["standardise"] and source in _READ:
            return _READ[source]
    except TypeError:  # not hashable, or no weak references to it
        plain = False
    xs, labels, held = [], [], 0
    rows = _length(source)
    for x, label in _examples(source):
        if not xs and rows:
            each = x.element_size() * x[0].numel()
            _check_bound(source, rows, rows * each, most_bytes, list(x.shape[1:]), each)
        xs.append(x)
        labels.append(label)
        held += x.element_size() * x.numel()
        _check_bound(source, sum(map(len, xs)), held, most_bytes, list(x.shape[1:]), held // sum(map(len, xs)), at_least=True)
    if not xs:
        raise InputError(f"data: this {type(source).__name__} is empty")
    odd = next((x for x in xs if x.shape[1:] != xs[0].shape[1:]), None)
    if odd is not None:
        raise InputError(f"data: examples of this {type(source).__name__} differ in shape: {list(xs[0].shape[1:])}, {list(odd.shape[1:])}")
    x = torch.cat(xs)
    if options["label"] is None and labels[0] is not None:
        options["label"] = numpy.concatenate([numpy.asarray(part) for part in labels])
        options["classes"] = options["classes"] or _class_names(source)
    say(f"read {len(x):,} rows of {list(x.shape[1:])} from this {type(source).__name__} into memory, once")
    found = _of_array(x, **(options | {"name": options["name"] or type(_root(source)).__name__.lower()}))
    if plain:
        with contextlib.suppress(TypeError):
            _READ[source] = found
    return found


def _root(source: Any) -> Any:
    from torch.utils.data import DataLoader

    return source.dataset if isinstance(source, DataLoader) else source


def _class_names(source: Any) -> tuple[str, ...]:
    """Of a Dataset that names its classes, as torchvision's do."""
    names = getattr(_root(source), "classes", ())
    return tuple(map(str, names)) if isinstance(names, list | tuple) else ()


def _length(source: Any) -> int:
    """The number of rows; 0 where it is not known."""
    try:
        return len(_root(source))
    except TypeError:
        return 0


def _check_bound(source: Any, rows: int, size: int, most: int, shape: list[int], each: int, *, at_least: bool = False) -> None:
    if size > most:
        more = "more than " if at_least else ""
        raise InputError(
            f"data: this {type(source).__name__} takes {more}{size / 2**30:.3g} GiB in memory ({rows:,} rows of {shape}), over the bound "
            f"of {most / 2**30:.3g} GiB; give {max(1, most // max(1, each)):,} rows at most (torch.utils.data.Subset), a larger most_bytes "
            f"to tw.data.of, or an object with batch(start, count, seed)"
        )


def _examples(source: Any) -> Iterator[tuple[Tensor, Any]]:
    """Parts of a Dataset or DataLoader, x [n, ...] and labels [n] or None, in the order of the data set."""
    from torch.utils.data import DataLoader, IterableDataset, RandomSampler, SequentialSampler, default_collate

    collate: Callable[[list[Any]], Any] = default_collate
    if isinstance(source, DataLoader):
        plain = isinstance(source.sampler, RandomSampler | SequentialSampler) and not isinstance(source.dataset, IterableDataset)
        if not plain:  # a sampler of one's own decides what the examples are
            yield from (_pair(part) for part in source)
            return
        # in the order of the set, whatever the loader's shuffling, so that a run that is started again sees the same stream
        source, collate = source.dataset, source.collate_fn or default_collate
    if not _length(source):
        if hasattr(source, "__len__"):
            return
        yield from (_pair(default_collate([_numbers(item)])) for item in source)
        return
    for start in range(0, len(source), AT_ONCE):
        items = [_numbers(source[i]) for i in range(start, min(len(source), start + AT_ONCE))]
        try:
            yield _pair(collate(items))
        except (RuntimeError, TypeError) as error:
            raise InputError(
                f"data: examples {start} … of this {type(source).__name__} make no batch: {str(error).splitlines()[0]}"
            ) from None


def _numbers(item: Any) -> Any:
    """An example with pictures as arrays, which torch can put into a batch."""
    if isinstance(item, dict):
        return {key: _numbers(value) for key, value in item.items()}
    if isinstance(item, list) and all(isinstance(value, int | float) for value in item):
        return numpy.array(item)
    if isinstance(item, tuple | list):
        return tuple(_numbers(value) for value in item)
    return numpy.array(item) if hasattr(item, "getbands") else item


def _pair(batch: Any) -> tuple[Tensor, Any]:
    label = None
    if isinstance(batch, dict):
        keys = [key for key in X_KEYS if key in batch]
        if not keys:
            raise InputError(f"data: an example has the keys {', '.join(map(str, batch))}; x must be called one of {', '.join(X_KEYS)}")
        label = next((batch[key] for key in LABEL_KEYS if key in batch), None)
        batch = batch[keys[0]]
    elif isinstance(batch, tuple | list):
        if not 1 <= len(batch) <= 2:
            raise InputError(f"data: an example has {len(batch)} parts, need x or (x, label)")
        batch, label = batch[0], batch[1] if len(batch) == 2 else None
    x = as_tensor(batch, "data")
    if x.dim() < 2:
        raise InputError(f"data: an example has the shape {list(x.shape[1:])}, need vectors [D] or images [C, H, W]")
    return x, label
