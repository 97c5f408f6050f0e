"""What a training costs, and how long it may be for a price."""

import contextlib
import time
from collections.abc import Iterator
from typing import Any

import torch

from thalweg.precision import autocast
from thalweg.updates import update

FIRST, LEAST, MOST = 2, 5, 40  # steps that warm up and compile, that are timed at least and at most
SHARE = 0.03  # of the price that may be spent on finding out
REST = 0.97  # of the price that steps may take: what follows the last one costs too


class Clock:
    """CPU seconds of this process, on other devices seconds, since it was made; those of `stopped` do not count."""

    def __init__(self, device: str = "cpu") -> None:
        self._now = time.process_time if device == "cpu" else time.monotonic
        self._out = self._now()

    def __call__(self) -> float:
        return self._now() - self._out

    @contextlib.contextmanager
    def stopped(self) -> Iterator[None]:
        """What is done meanwhile is free."""
        started = self._now()
        try:
            yield
        finally:
            self._out += self._now() - started


def images_for(trial: Any, data: Any, seconds: float, *, precision: str = "fp32", device: str = "cpu", seed: int = 0) -> int:
    """How many images a method sees in `seconds` of training, from the time of the first steps of `trial`, which it wears out.

    `trial` is the method with `images` = 1 in its config, so that it takes part in all that begins late in a training.
    """
    clock, batch, steps = Clock(device), trial.config.batch, update(trial.to(device), seed=seed)
    if precision == "bf16":
        trial.to(memory_format=torch.channels_last)

    def take(i: int) -> None:
        found = data.batch(i * batch, batch, seed)
        with autocast(precision, device):
            steps.step(type(found)(*(None if part is None else part.to(device) for part in found)))

    with torch.random.fork_rng(devices=[]):
        for i in range(FIRST):
            take(i)
        first, taken = clock(), 0
        while taken < LEAST or (taken < MOST and clock() - first < SHARE * seconds):
            take(FIRST + taken)
            taken += 1
            steps.figures()  # which waits for the device
    each = (clock() - first) / taken
    return max(1, int((REST * seconds - first) / each)) * batch
