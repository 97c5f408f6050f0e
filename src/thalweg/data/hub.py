"""Data sets of Hugging Face's `datasets`, from the hub or a folder: in memory as `Images`, or read as they are needed as a `Stream`."""

import io
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

import torch
from torch import Tensor

from ..errors import InputError, require
from .folders import FOLDERS, decode
from .images import Images, Size, check_split, partition
from .stream import Stream


class _Source(NamedTuple):
    """A `datasets` set with the names of its columns; `carve`: the shares of validation and test that are cut out of it."""

    rows: Any
    image: str
    label: str | None
    classes: tuple[str, ...]
    carve: tuple[float, float] | None
    name: str


def hub(
    name_or_path: str | Path,
    split: str = "train",
    *,
    size: Size | None = None,
    channels: int | None = None,
    middle: int | None = None,
    streaming: bool = False,
    window: int | None = None,
) -> Images | Stream:
    """A set of the Hugging Face hub, `hf:NAME` or `hf:NAME:CONFIGURATION`, or a folder written by `save_to_disk`.

    The first image column is x and the first column of class labels is the label. A missing validation split is a seeded
    tenth of train, of the hub's sets a tenth of test: no best state is looked for there, so that train stays whole. A set without splits
    is cut 80/10/10. `middle`: the side of the middle square that is cut out of each picture before it is resized. With `streaming` pictures
    stay on the disk, to which sets of the hub are fetched once, and are shuffled in windows of `window`. Raises InputError where the set,
    its split or an image column is missing.
    """
    check_split(split)
    require("PIL", "images")
    datasets = require("datasets", "images")
    *opened, train = _open(datasets, str(name_or_path), split)
    source = _columns(datasets, *opened)
    settled = channels or _channels(datasets, train, source.name)

    def read(numbered: tuple[int, dict]) -> Tensor:
        number, item = numbered
        return decode(_content(item), f"{source.name}: image {number}", size, settled, middle=middle)

    def picture(row: int) -> Tensor:
        return read((row, source.rows[row][source.image]))

    count = len(source.rows)
    if not count:
        raise InputError(f"{source.name} is empty")
    label = torch.tensor(source.rows[source.label][:]) if source.label else None
    index = torch.arange(count) if source.carve is None else partition(split, count, source.carve, label)
    label = None if label is None else label[index]
    if streaming:
        cut = () if middle is None else (f"middle {middle}",)
        of_hub = (f"{name_or_path}", *cut) if cut else ()  # `record` goes by a name of the hub otherwise
        known = of_hub if str(name_or_path).startswith("hf:") else (f"{opened[0]._fingerprint} {split}", *cut)
        return Stream(lambda i: picture(int(index[i])), len(index), label, source.classes, name=source.name, window=window, content=known)
    return _in_memory(source, index, label, picture)


def _content(item: dict) -> Any:
    return item["path"] if item["bytes"] is None else io.BytesIO(item["bytes"])


def _channels(datasets: Any, rows: Any, name: str) -> int | None:
    """Whether a set is grey or colour: its first picture of train says so for all splits. None for an empty set."""
    train = _columns(datasets, rows, None, name)
    first = next(iter(train.rows), None)
    return None if first is None else decode(_content(first[train.image]), f"{name}: image 0").shape[0]


def _in_memory(source: _Source, index: Tensor, label: Tensor | None, picture: Callable[[int], Tensor]) -> Images:
    """All pictures of a split, decoded one by one: as files, a set of large pictures takes far more memory than at its size here."""
    images = [picture(row) for row in index.tolist()]
    odd = next((image for image in images if image.shape != images[0].shape), None)
    if odd is not None:
        raise InputError(
            f"{source.name}: the images differ, {list(images[0].shape)} and {list(odd.shape)} [C, H, W]; give size to resize them"
        )
    return Images(torch.stack(images), label, source.classes, name=source.name)


def _open(datasets: Any, name: str, split: str) -> tuple[Any, tuple[float, float] | None, str, Any]:
    """The rows of a split, what is still to be cut from them, what to call them, and the rows of train where there are any."""
    shown = name if name.startswith("hf:") else Path(name).name
    try:
        if name.startswith("hf:"):
            repository, _, configuration = name[3:].partition(":")
            whole = datasets.load_dataset(repository, configuration or None)
        else:
            whole = datasets.load_from_disk(name)
    except Exception as error:  # a missing set, no network, a damaged file: each has its own class in `datasets`
        raise InputError(f"cannot open {name} with the package datasets: {' '.join(str(error).split())}") from error
    carve = None
    if not isinstance(whole, dict):
        rows, train, carve = whole, whole, (0.1, 0.1)
    else:
        found = {key: whole[title] for key, titles in FOLDERS.items() for title in titles if title in whole}
        source = "test" if name.startswith("hf:") else "train"  # `prepare.held_out` looks at no validation images of the hub's sets
        cut = split == "validation" and split not in found and source in found
        if not cut and split not in found:
            raise InputError(f"{shown} has no split '{split}'; it has {', '.join(whole)}")
        rows = found[source if cut else split]
        train = found.get("train", rows)
        if cut or (split == source == "train" and "validation" not in found):
            carve = (0.1, 0.0)
    return rows, carve, f"{shown}/{split}", train


def _columns(datasets: Any, rows: Any, carve: tuple[float, float] | None, name: str) -> _Source:
    features = rows.features or {}
    image = next((key for key, kind in features.items() if isinstance(kind, datasets.Image)), None)
    if image is None:
        raise InputError(f"{name} has no column of images; its columns are {', '.join(features) or 'not declared'}")
    label = next((key for key, kind in features.items() if isinstance(kind, datasets.ClassLabel)), None)
    classes = tuple(features[label].names) if label else ()
    # undecoded, so that skipping costs no decoding and a corrupt picture is named by us
    return _Source(rows.cast_column(image, datasets.Image(decode=False)), image, label, classes, carve, name)
