"""Activation checkpointing: blocks of networks whose inner values are computed again in the backward pass, rather than kept."""

from functools import partial

from torch import nn
from torch.utils.checkpoint import checkpoint


def recompute_blocks(module: nn.Module) -> int:
    """Have each block of a module's networks compute its inner values anew where a derivative needs them; returns their number.

    A block is a module of several layers that stands in a list of them, the outermost that does. Values, gradients and second derivatives
    are the same, dropout's draws included. For training only: a copy of the module would share its blocks, so copy it before.
    """
    found = 0
    for part in module.children():
        listed = isinstance(module, nn.ModuleList | nn.Sequential)
        if listed and not isinstance(part, nn.ModuleList | nn.Sequential) and sum(1 for _ in part.children()) > 1:
            part.forward = partial(checkpoint, part.forward, use_reentrant=False)  # type: ignore[method-assign]
            found += 1
        else:
            found += recompute_blocks(part)
    return found
