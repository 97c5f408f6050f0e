"""The share of right answers, with an interval."""

import math
from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor

from thalweg.errors import InputError
from thalweg.given import Examples, Labels, takes


@dataclass(frozen=True)
class Accuracy:
    """A share of successes in [0, 1] out of `n`, with its 95 % Wilson score interval."""

    value: float
    low: float
    high: float
    n: int


def wilson(successes: int, n: int) -> Accuracy:
    """The share successes/n with its 95 % score interval (Wilson 1927), which stays in [0, 1] and holds up near 0 and 1."""
    if not 0 <= successes <= n or n < 1:
        raise InputError(f"wilson: got {successes} of {n}, need 0 ≤ successes ≤ n and n ≥ 1")
    share, z = successes / n, 1.959963984540054
    centre = (share + z * z / (2 * n)) / (1 + z * z / n)
    half = z / (1 + z * z / n) * math.sqrt(share * (1 - share) / n + z * z / (4 * n * n))
    # at the ends rounding could leave the share itself outside by one bit
    return Accuracy(value=share, low=min(share, max(0.0, centre - half)), high=max(share, min(1.0, centre + half)), n=n)


@takes
@torch.no_grad()
def accuracy(logits: Callable[[Tensor], Tensor], x: Examples, y: Labels, *, batch: int = 512) -> Accuracy:
    """Share of x [N, ...] whose largest logit is its label y [N] int64, with its 95 % Wilson interval.

    logits: (x [B, ...]) -> [B, classes]. Raises InputError on mismatched shapes, no examples, or logits that are NaN.
    """
    if y.shape != (len(x),) or not len(x):
        raise InputError(f"accuracy: got {len(x)} examples and labels of shape {list(y.shape)}, need [N] labels for N ≥ 1 examples")
    right = 0
    for part, label in zip(x.split(batch), y.split(batch), strict=True):
        value = logits(part)
        if value.dim() != 2 or len(value) != len(part) or value.isnan().any():
            raise InputError(f"accuracy: logits of shape {list(value.shape)} or NaN, need [{len(part)}, classes] without NaN")
        right += int((value.argmax(1).cpu() == label.cpu()).sum())
    return wilson(right, len(x))
