"""Data sets of Hugging Face's `datasets`, from the hub or a folder: in memory as `Images`, or read along as a `Stream`."""

import io
import itertools
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import Any, NamedTuple, final

import torch
from torch import Tensor

from ..errors import InputError, require
from ..random import seeded
from .base import Batch
from .folders import FOLDERS, decode
from .images import Images, Size, check_split, partition, to_unit


@final
class Stream:
    """Images read in order through a seeded shuffle buffer, for sets that do not fit in memory.

    `rows()` starts a new pass over (source, label) pairs, label None for unlabelled sets; `read(source)` gives uint8
    [C, H, W]. A batch that starts where the last one ended reads on; any other start is reached by skipping from the
    beginning of its epoch (of the stream, while the length of the set is not known), without decoding.
    """

    def __init__(
        self,
        rows: Callable[[], Iterable[tuple[Any, int | None]]],
        read: Callable[[Any], Tensor],
        *,
        classes: tuple[str, ...] = (),
        name: str = "stream",
        buffer: int = 1000,
    ):
        if buffer < 1:
            raise InputError(f"a shuffle buffer holds at least 1 example, got {buffer}")
        first = next(iter(rows()), None)
        if first is None:
            raise InputError(f"{name} is empty")
        self.name = name
        self.classes = classes
        self.shape = tuple(read(first[0]).shape)
        self._rows, self._read, self._buffer = rows, read, buffer
        self._length: int | None = None  # known after one whole pass
        self._at: tuple[int, int] | None = None  # (seed, position) at which `_running` stands
        self._running: Iterator[tuple[Any, int | None]] = iter(())

    def __repr__(self) -> str:
        return f"Stream({self.name!r}, {list(self.shape)}, {len(self.classes)} classes)"

    def batch(self, start: int, count: int, seed: int) -> Batch:
        """Examples number start … start+count−1 of the stream that `seed` defines; every epoch holds each example once."""
        if start < 0 or count < 1:
            raise InputError(f"a batch needs start ≥ 0 and count ≥ 1, got start={start}, count={count}")
        if self._at != (seed, start):
            epoch, skipped = divmod(start, self._length) if self._length else (0, start)
            self._running = itertools.islice(self._epochs(seed, epoch), skipped, None)
        self._at = None  # stays so if a picture cannot be read
        pairs = list(itertools.islice(self._running, count))
        images = [self._read(source) for source, _ in pairs]
        for image in images:
            if tuple(image.shape) != self.shape:
                raise InputError(f"{self.name}: the images differ, {list(self.shape)} and {list(image.shape)}; give size to resize them")
        self._at = (seed, start + count)
        return Batch(to_unit(torch.stack(images)), torch.tensor([label for _, label in pairs]) if self.classes else None)

    def _epochs(self, seed: int, first: int) -> Iterator[tuple[Any, int | None]]:
        for epoch in itertools.count(first):
            generator = seeded(seed, epoch)
            held: list[tuple[Any, int | None]] = []
            length = 0
            for length, row in enumerate(self._rows(), 1):  # noqa: B007
                if len(held) < self._buffer:
                    held.append(row)
                    continue
                place = int(torch.randint(self._buffer, (), generator=generator))
                yield held[place]
                held[place] = row
            self._length = length
            for place in torch.randperm(len(held), generator=generator).tolist():
                yield held[place]


class _Source(NamedTuple):
    """A `datasets` set with the names of its columns; `carve`: the shares of validation and test that are cut out of it."""

    rows: Any
    image: str
    label: str | None
    classes: tuple[str, ...]
    carve: tuple[float, float] | None
    name: str


def hub(
    name_or_path: str | Path, split: str = "train", *, size: Size | None = None, channels: int | None = None, streaming: bool = False
) -> Images | Stream:
    """A set of the Hugging Face hub, `hf:NAME` or `hf:NAME:CONFIGURATION`, or a folder written by `save_to_disk`.

    The first image column is x and the first column of class labels is the label. A missing validation split is a seeded
    tenth of train, of the hub's sets a tenth of test: no best state is looked for there, so that train stays whole. A set without splits
    is cut 80/10/10. With `streaming` nothing is cut: the split must exist (a set without splits is train). Raises InputError where the
    set, its split or an image column is missing.
    """
    check_split(split)
    require("PIL", "images")
    datasets = require("datasets", "images")
    *opened, train = _open(datasets, str(name_or_path), split, streaming)
    source = _columns(datasets, *opened)
    settled = channels or _channels(datasets, train, source.name)

    def read(numbered: tuple[int, dict]) -> Tensor:
        number, item = numbered
        return decode(_content(item), f"{source.name}: image {number}", size, settled)

    def rows() -> Iterator[tuple[Any, int | None]]:
        for number, row in enumerate(source.rows):
            yield (number, row[source.image]), row[source.label] if source.label else None

    if streaming:
        return Stream(rows, read, classes=source.classes, name=source.name)
    return _in_memory(source, split, read)


def _content(item: dict) -> Any:
    return item["path"] if item["bytes"] is None else io.BytesIO(item["bytes"])


def _channels(datasets: Any, rows: Any, name: str) -> int | None:
    """Whether a set is grey or colour: its first picture of train says so for all splits. None for an empty set."""
    train = _columns(datasets, rows, None, name)
    first = next(iter(train.rows), None)
    return None if first is None else decode(_content(first[train.image]), f"{name}: image 0").shape[0]


def _in_memory(source: _Source, split: str, read: Callable[[Any], Tensor]) -> Images:
    """All pictures of a split, decoded one by one: as files, a set of large pictures takes far more memory than at its size here."""
    count = len(source.rows)
    if not count:
        raise InputError(f"{source.name} is empty")
    label = torch.tensor(source.rows[source.label][:]) if source.label else None
    index = torch.arange(count) if source.carve is None else partition(split, count, source.carve, label)
    images = [read((row, source.rows[row][source.image])) for row in index.tolist()]
    odd = next((image for image in images if image.shape != images[0].shape), None)
    if odd is not None:
        raise InputError(
            f"{source.name}: the images differ, {list(images[0].shape)} and {list(odd.shape)} [C, H, W]; give size to resize them"
        )
    return Images(torch.stack(images), None if label is None else label[index], source.classes, name=source.name)


def _open(datasets: Any, name: str, split: str, streaming: bool) -> tuple[Any, tuple[float, float] | None, str, Any]:
    """The rows of a split, what is still to be cut from them, what to call them, and the rows of train where there are any."""
    shown = name if name.startswith("hf:") else Path(name).name
    try:
        if name.startswith("hf:"):
            repository, _, configuration = name[3:].partition(":")
            whole = datasets.load_dataset(repository, configuration or None, streaming=streaming)
        else:
            whole = datasets.load_from_disk(name)
    except Exception as error:  # a missing set, no network, a damaged file: each has its own class in `datasets`
        raise InputError(f"cannot open {name} with the package datasets: {' '.join(str(error).split())}") from error
    carve = None
    if not isinstance(whole, dict):
        rows, train, carve = whole, whole, (0.1, 0.1)
        if streaming and split != "train":
            raise InputError(f"{shown} has no splits, and streaming reads all of it as train; got split '{split}'")
    else:
        found = {key: whole[title] for key, titles in FOLDERS.items() for title in titles if title in whole}
        source = "test" if name.startswith("hf:") else "train"  # `prepare.held_out` looks at no validation images of the hub's sets
        cut = split == "validation" and split not in found and source in found and not streaming
        if not cut and split not in found:
            raise InputError(f"{shown} has no split '{split}'; it has {', '.join(whole)}")
        rows = found[source if cut else split]
        train = found.get("train", rows)
        if cut or (split == source == "train" and "validation" not in found):
            carve = (0.1, 0.0)
    if streaming and isinstance(rows, datasets.Dataset):
        rows = rows.to_iterable_dataset()
    return rows, None if streaming else carve, f"{shown}/{split}", train


def _columns(datasets: Any, rows: Any, carve: tuple[float, float] | None, name: str) -> _Source:
    features = rows.features or {}
    image = next((key for key, kind in features.items() if isinstance(kind, datasets.Image)), None)
    if image is None:
        raise InputError(f"{name} has no column of images; its columns are {', '.join(features) or 'not declared'}")
    label = next((key for key, kind in features.items() if isinstance(kind, datasets.ClassLabel)), None)
    classes = tuple(features[label].names) if label else ()
    # undecoded, so that skipping costs no decoding and a corrupt picture is named by us
    return _Source(rows.cast_column(image, datasets.Image(decode=False)), image, label, classes, carve, name)
