"""What the training loop asks of data: a stateless, seeded, endless stream of batches."""

from typing import NamedTuple, Protocol

from torch import Tensor


class Batch(NamedTuple):
    """A minibatch: `x` [B, ...] float32 (images in [−1, 1]), and `label` int64 where the data has labels: [B], or [B, M] of M concepts."""

    x: Tensor
    label: Tensor | None = None


class Data(Protocol):
    """Anything that a method trains on.

    `name` for messages, `shape` of one example ([2] or [C, H, W]), `classes`: names of the labels, empty where there are none. Data may
    have `cuts` = True, which says that two halves of a batch are the same as the whole: then each process asks for its share alone.
    """

    name: str
    shape: tuple[int, ...]
    classes: tuple[str, ...]

    def batch(self, start: int, count: int, seed: int) -> Batch:
        """Examples number start … start+count−1 of the endless shuffled stream that `seed` defines.

        The same arguments give the same batch, which is what makes a resumed run equal to an unbroken one.
        """
        ...
