"""What a method is told of its data as a whole: examples before the first step (`Method.prepare`), and after the last (`conclude`)."""

import math
from collections.abc import Callable
from typing import Any

import torch

from thalweg.data.base import Batch, Data
from thalweg.methods.base import Method

EXAMPLES, NUMBERS = 16_384, 2**25  # at most so many, and so many numbers in them


def examples(data: Data, seed: int, device: torch.device) -> Batch:
    """The first examples of the stream that `seed` defines, the same on every rank."""
    return moved(data.batch(0, max(2, min(EXAMPLES, NUMBERS // math.prod(data.shape))), seed), device)


def moved(batch: Any, device: torch.device) -> Any:
    """A batch of any kind, with its tensors on a device."""
    return type(batch)(*(None if part is None else part.to(device) for part in batch))


def prepare(method: Method, twin: Method, data: Data, seed: int, device: torch.device) -> None:
    """Tell both at the start of a new run; nothing is read for a method that does not ask."""
    if type(method).prepare is not Method.prepare:
        x = examples(data, seed, device).x
        method.prepare(x)
        twin.prepare(x)


def conclude(method: Method, twin: Method, data: Data, seed: int, device: torch.device, note: Callable[[float], None]) -> bool:
    """Tell the twin, and keep in both what it makes of them; whether there was anything to tell. `note` is told the share that is done."""
    if type(method).conclude is Method.conclude:
        return False
    note(0.0)
    twin.conclude(examples(data, seed, device), note)
    note(1.0)
    for (name, fast), slow in zip(method.named_buffers(), twin.buffers()):
        if name not in method.sharded:
            fast.copy_(slow)
    return True
