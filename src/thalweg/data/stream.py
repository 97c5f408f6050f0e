"""Pictures that stay in their files and are read batch by batch, for sets that do not fit into memory."""

import hashlib
from collections.abc import Callable, Iterable, Mapping, Sequence
from functools import lru_cache
from typing import final

import torch
from torch import Tensor

from ..errors import InputError
from ..random import seeded
from .base import Batch
from .images import Images, check_concepts, check_labels, to_unit

WINDOW = 2**14  # pictures that are shuffled together
RUN = 16  # pictures that lie one after the other, and are read so


@final
class Stream:
    """Pictures read when a batch needs them, with the labels and splits of `Images`; memory holds one batch, however large the set is.

    `read(row)` gives picture 0 … `count` − 1 as uint8 [C, H, W], all of one shape. `label`, `classes`, `concepts` are as of `Images`. Every
    epoch holds each picture once: runs of 16 that lie one after the other come in random order, and in this order each `window` of pictures
    is shuffled, so that they come from a bounded part of the disk at a time; a window of all pictures is a full shuffle. Batches have no
    state: any start is reached at once. `content`: words that tell these pictures from others, for the fingerprint; without, the first
    ones do. Raises InputError for an empty set, and when they are read for pictures that differ in shape or cannot be read.
    """

    cuts = True

    def __init__(
        self,
        read: Callable[[int], Tensor],
        count: int,
        label: Tensor | None = None,
        classes: Sequence[str] = (),
        *,
        concepts: Mapping[str, Sequence[str]] | None = None,
        name: str = "stream",
        window: int | None = None,
        content: Iterable[str] = (),
    ):
        window = WINDOW if window is None else window
        if count < 1:
            raise InputError(f"{name} is empty")
        if window < 1:
            raise InputError(f"a window holds at least 1 picture, got {window}")
        self.name, self.window, self._read, self._count = name, window, read, count
        self.concepts = check_concepts(concepts or {}, name)
        self.label, self.classes = check_labels(label, tuple(classes), self.concepts, count, name)
        self.shape = tuple(read(0).shape)
        self.origin: str | None = None  # where `data.load` found them
        self.read = f" --stream --window {window}"
        known = "\n".join([*content, str(list(self.shape)), str(None if self.label is None else self.label.tolist())])
        if content:
            self.fingerprint = hashlib.sha256(known.encode()).hexdigest()[:16]

    def __len__(self) -> int:
        return self._count

    def __repr__(self) -> str:
        return f"Stream({self.name!r}, {len(self)} of {list(self.shape)}, {len(self.classes)} classes)"

    def batch(self, start: int, count: int, seed: int) -> Batch:
        """Examples number start … start+count−1 of the stream that `seed` defines: every epoch is a fresh order."""
        if start < 0 or count < 1:
            raise InputError(f"a batch needs start ≥ 0 and count ≥ 1, got start={start}, count={count}")
        first, last = start // len(self), (start + count - 1) // len(self)
        order = torch.cat([_order(len(self), self.window, seed, epoch) for epoch in range(first, last + 1)])
        rows = order[start - first * len(self) :][:count]
        return Batch(to_unit(self._pictures(rows)), None if self.label is None else self.label[rows])

    def subset(self, index: Tensor, name: str | None = None) -> Images:
        """The examples at the integers `index` [n], read into memory."""
        label = None if self.label is None else self.label[index]
        classes = () if self.concepts else self.classes
        return Images(self._pictures(index), label, classes, concepts=self.concepts, name=name or self.name)

    def _pictures(self, rows: Tensor) -> Tensor:
        images = [self._read(row) for row in rows.tolist()]
        for image in images:
            if tuple(image.shape) != self.shape:
                raise InputError(f"{self.name}: the images differ, {list(self.shape)} and {list(image.shape)}; give size to resize them")
        return torch.stack(images)


@lru_cache(maxsize=2)
def _order(count: int, window: int, seed: int, epoch: int) -> Tensor:
    """The order [count] of an epoch: runs in random order, shuffled within each window."""
    runs = torch.randperm(-(-count // RUN), generator=seeded(seed, epoch))
    order = (runs[:, None] * RUN + torch.arange(RUN)).flatten()
    order = order[order < count]
    parts = order.split(window)
    return torch.cat([part[torch.randperm(len(part), generator=seeded(seed, epoch, number))] for number, part in enumerate(parts, 1)])
