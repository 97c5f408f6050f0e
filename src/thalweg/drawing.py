"""Many samples: so few at a time that memory is bounded, shared among the processes of torchrun, with word of how long it takes."""

from typing import Any

import torch
from torch import Tensor

from thalweg import random
from thalweg.distributed import World
from thalweg.errors import InputError
from thalweg.progress import Work

NUMBERS = 2**17  # in the samples of one part: what networks keep of them is some hundred times as much
ON_A_GPU = 16  # so many times as much is drawn at once there


def draw(model: Any, n: int, *, seed: int = 0, at_once: int | None = None, shown: bool = False, **options: Any) -> Tensor:
    """`n` samples of a model, on the CPU: [n, ...], as `sample` gives them, drawn in parts.

    `at_once` samples are a part, by default as many as have about 130,000 numbers. The first part is `sample(…, seed=seed)`, the others
    have seeds of their own, so that n, seed and `at_once` set the samples, however many processes share the parts; each returns all, and
    all must call. Parts know nothing of each other: of a model that draws from kept chains, two may begin at the same one. `options` go
    to `sample`; tensors of `n` rows, such as labels and starts, are cut alike. With `shown` a line on standard error says what is done
    and how long it will be, as soon as it takes more than seconds. Raises InputError for n or at_once below 1.
    """
    if n < 1 or (at_once is not None and at_once < 1):
        raise InputError(f"samples are drawn one at least, and one at once at least, got n = {n} and at_once = {at_once}")
    if at_once is None:
        at_once = max(1, NUMBERS * (ON_A_GPU if model.device.type == "cuda" else 1) // max(1, int(torch.Size(model.config.shape).numel())))
    world = World.current()
    parts: list[Tensor] = []
    begins = range(0, n, at_once)
    with Work(f"{n:,} samples", shown=shown and world.first) as work:
        for number, begin in enumerate(begins):
            if number % world.size == world.rank:
                few = slice(begin, min(n, begin + at_once))
                asked = {key: x[few] if isinstance(x, Tensor) and x.shape[:1] == (n,) else x for key, x in options.items()}
                parts.append(model.sample(few.stop - few.start, seed=part_seed(seed, number), **asked).cpu())
            work.note((number + 1) / len(begins))
    return torch.cat(world.in_turn(parts))


def part_seed(seed: int, number: int) -> int:
    """The seed of a part: the first has the one that was asked for."""
    return seed if number == 0 else random.seeded(seed, 31, number).initial_seed() % 2**31
