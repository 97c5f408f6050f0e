"""Two sets of images for unpaired translation, as one stream."""

from typing import NamedTuple, final

from torch import Tensor

from ..errors import InputError
from ..random import seeded
from .base import Data


class UnpairedBatch(NamedTuple):
    """A `Batch` of a target domain with as many images of a source domain: `source` is shaped like `x`, row by row unrelated to it."""

    x: Tensor
    label: Tensor | None
    source: Tensor


@final
class Unpaired:
    """Images of `target`, and with them unrelated images of `source`: data for what translates source images.

    Each set is shuffled by a seed of its own, so that two sets in the same order give no pairs. Labels are the target's. Raises
    InputError for sets of different shapes.
    """

    def __init__(self, target: Data, source: Data) -> None:
        if tuple(target.shape) != tuple(source.shape):
            raise InputError(
                f"translation needs source and target images of one shape, {source.name} has {list(source.shape)} and "
                f"{target.name} {list(target.shape)}; load both with the same size and channels"
            )
        self.target, self.source = target, source
        self.name = f"{source.name} → {target.name}"
        self.shape, self.classes = tuple(target.shape), tuple(target.classes)

    def __repr__(self) -> str:
        return f"Unpaired({self.target!r}, {self.source!r})"

    def batch(self, start: int, count: int, seed: int) -> UnpairedBatch:
        """Examples number start … start+count−1 of both streams that `seed` defines."""
        target = self.target.batch(start, count, seed)
        source = self.source.batch(start, count, seeded(seed, 3).initial_seed())
        return UnpairedBatch(target.x, target.label, source.x)
