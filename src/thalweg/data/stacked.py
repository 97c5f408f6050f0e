"""Stacked images: three independent grey images in the channels red, green and blue, for counting modes."""

from collections.abc import Callable
from itertools import product
from numbers import Integral
from typing import final

import torch
from torch import Tensor

from ..errors import InputError
from ..random import seeded
from .base import Batch
from .images import SPLITS, Images, Size, _epoch, to_unit

SIZES = {"train": 50_000, "validation": 5_000, "test": 26_000}  # 26,000 are the samples that the papers count modes in


@final
class Stacked:
    """`count` stacks [3, H, W] of the K-class grey images `base`, each channel drawn with replacement, independently, by `seed`.

    The label of a stack of the classes a, b, c (red, green, blue) is (a K + b) K + c, in {0, …, K³−1}: for digits the number
    that it reads, 1000 classes. A class's name joins those of its three, with "/" where they are longer than one letter. Only
    `index` [count, 3], the rows of `base`, is held; stacks are made when asked for. (Metz et al. 2017, arXiv:1611.02163;
    PacGAN, arXiv:1712.04086.) Raises InputError unless `base` is grey and has labels of at least two classes.
    """

    def __init__(self, base: Images, count: int, *, seed: int = 0, name: str | None = None):
        if base.shape[0] != 1 or base.label is None or len(base.classes) < 2:
            given = f"{base.shape[0]} channels and {len(base.classes)} classes"
            raise InputError(f"stacked: {base.name} has {given}, need 1 channel and labels of 2 classes or more")
        if not isinstance(count, Integral) or count < 1:
            raise InputError(f"stacked: count is {count!r}, need a whole number of stacks, 1 or more")
        self.base = base
        self.name = name or f"stacked-{base.name}"
        self.shape = (3, *base.shape[1:])
        mark = "" if all(len(word) == 1 for word in base.classes) else "/"
        self.classes = tuple(mark.join(words) for words in product(base.classes, repeat=3))
        self.index = torch.randint(len(base), (count, 3), generator=seeded(seed, count))
        place = len(base.classes) ** torch.tensor([2, 1, 0])
        self.label = (base.label[self.index] * place).sum(1)

    def __len__(self) -> int:
        return len(self.index)

    def __repr__(self) -> str:
        return f"Stacked({self.name!r}, {len(self)} of {list(self.shape)}, {len(self.classes)} classes)"

    def batch(self, start: int, count: int, seed: int) -> Batch:
        """Examples number start … start+count−1 of the stream that `seed` defines: every epoch is a fresh permutation."""
        if start < 0 or count < 1:
            raise InputError(f"a batch needs start ≥ 0 and count ≥ 1, got start={start}, count={count}")
        first, last = start // len(self), (start + count - 1) // len(self)
        order = torch.cat([_epoch(len(self), seed, epoch)[0] for epoch in range(first, last + 1)])
        return self._rows(order[start - first * len(self) :][:count])

    def all(self) -> Batch:
        """Every stack once, in the order of the set; as float32 that is 12 H W bytes a stack, 0.5 GB for 50,000 of 28 × 28."""
        return self._rows(torch.arange(len(self)))

    def _rows(self, rows: Tensor) -> Batch:
        return Batch(to_unit(self.base.x[self.index[rows]].squeeze(2)), self.label[rows])


def stacked(source: Callable[..., Images], split: str = "train", *, size: Size | None = None, channels: int | None = None) -> Stacked:
    """Stacks of one split of a grey set, so that train stacks hold train images only: 50,000 train, 5,000 validation, 26,000 test.

    source: a loader (split, size=, channels=) -> Images. Raises InputError for an unknown split and for other than 3 channels.
    """
    if channels not in (None, 3):
        raise InputError(f"stacked images have 3 channels, got channels={channels!r}")
    base = source(split, size=size, channels=1)
    return Stacked(base, SIZES[split], seed=SPLITS.index(split))
