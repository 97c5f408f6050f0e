"""Compilation of a function, where there is a compiler."""

import functools
import warnings
from collections.abc import Callable
from typing import Any

import torch


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


@functools.lru_cache(maxsize=4)
def compiled_losses(losses: Callable[..., Any], method: str) -> Callable[..., Any]:
    """A model's loss, compiled whole with its second derivatives; uncompiled, with a warning, where nothing can be compiled."""
    return compiled_or_eager(losses, f"the loss of {method} runs")
