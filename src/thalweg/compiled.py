"""Compilation of a function, where there is a compiler, and a choice by time between it and the function as it is."""

import functools
import time
import warnings
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn


def compiled_or_eager(function: Callable[..., Any], what: str) -> Callable[..., Any]:
    """`function` compiled for static shapes; `function` itself, after a warning that `what` runs uncompiled, where the compiler fails.

    It is compiled at its first call with new shapes. It fails without a working C++ compiler, or over a cache folder that is broken.
    """
    compiled = torch.compile(function, dynamic=False)
    works = True

    def call(*arguments: Any) -> Any:
        nonlocal works
        if works:
            try:
                return compiled(*arguments)
            except torch._dynamo.exc.BackendCompilerFailed as error:  # and InductorError, a subclass
                reason = str(error).strip().splitlines()[0]
                warnings.warn(f"thalweg: {what} uncompiled ({reason})", stacklevel=3)
                works = False
        return function(*arguments)

    return call


class Faster(nn.Module):
    """Which of two ways to run one step is faster on this machine, found at the first calls: as it is, or compiled.

    What was found is a buffer, so that a run that goes on from a saved state takes the same way. For examples of several sizes one of these
    each. `calls` are timed of either way, the first of them not, which warms up or compiles.
    """

    def __init__(self, calls: int = 4) -> None:
        super().__init__()
        self.compiled: Tensor
        self.register_buffer("compiled", torch.tensor(-1))  # 0 or 1 when it is known
        self.calls = calls
        self._known = -1  # that buffer's value when it is one, so that a chain on a device is not waited for
        self._times: tuple[list[float], list[float]] = ([], [])

    @staticmethod
    def of(spec: Any) -> "bool | Faster":
        """What `compile` of a spec asks for, a choice of its own for "auto"; False for a spec that has no such field."""
        asked = getattr(spec, "compile", False)
        return Faster() if asked == "auto" else asked

    def choose(self, eager: Callable[..., Any], compiled: Callable[..., Any]) -> Callable[..., Any]:
        """The faster of both, or while that is not known, a function that calls either and takes the time; both give the same."""
        if self._known < 0:
            self._known = int(self.compiled)
        if self._known >= 0:
            return (eager, compiled)[self._known]

        def timed(x: Tensor, *others: Any) -> Any:
            way = int(len(self._times[0]) >= self.calls)
            if way and len(self._times[1]) >= self.calls:
                return (eager, compiled)[int(self.compiled)](x, *others)
            started = _now(x)
            result = (eager, compiled)[way](x, *others)
            self._times[way].append(_now(x) - started)
            if len(self._times[1]) >= self.calls:
                first, second = (min(times[1:]) for times in self._times)
                self.compiled.fill_(int(second < first))
            return result

        return timed


def _now(x: Tensor) -> float:
    """Seconds of this process, which others do not slow down; of a device that works on its own, of the clock when it has finished."""
    if x.device.type == "cpu":
        return time.process_time()
    torch.accelerator.synchronize(x.device)
    return time.perf_counter()


@functools.lru_cache(maxsize=4)
def compiled_losses(losses: Callable[..., Any], method: str) -> Callable[..., Any]:
    """A model's loss, compiled whole with its second derivatives; uncompiled, with a warning, where nothing can be compiled."""
    return compiled_or_eager(losses, f"the loss of {method} runs")
