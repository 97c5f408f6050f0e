"""Classifier-free guidance and composition of concepts (Ho and Salimans 2022; thesis, sec. 5.3.5, 5.3.6), for functions f(x, t, label).

A concept is asked for by labels [n], −1 for none, and a weight: 1 is p(x | concept), the paper's w + 1; 0 ignores it; below 0 is "not
that concept".
"""

from collections.abc import Callable, Sequence
from functools import partial

import torch
from torch import Tensor

from thalweg import random
from thalweg.energy import compose
from thalweg.errors import InputError

Concepts = list[tuple[Tensor, float]]


def checked_labels(label: Tensor | int, n: int, classes: int, device: torch.device) -> Tensor:
    """Labels [n] from one or n of them, or [n, M] of M concepts; InputError where one is not −1 or in 0 … classes − 1."""
    label = torch.as_tensor(label, device=device)
    label = label.expand(n) if label.dim() == 0 else label
    if label.dim() > 2 or len(label) != n or label.min() < -1 or label.max() >= classes:
        low, high = int(label.min()), int(label.max())
        raise InputError(f"{n} labels between 0 and {classes - 1} (−1 for none) are needed, got {len(label)} from {low} to {high}")
    return label


def asked_for(label: Tensor | None, guidance: float | Sequence[float]) -> Concepts:
    """The concepts of labels [n] or [n, M], with one guidance for all or one for each; what no row asks for is left out."""
    columns = [] if label is None else list(label.unbind(1)) if label.dim() == 2 else [label]
    weights = [float(w) for w in (guidance if isinstance(guidance, Sequence) else [guidance] * len(columns))]
    if columns and len(weights) != len(columns):
        raise InputError(f"one guidance for each of {len(columns)} concepts is needed, got {len(weights)}")
    return [(column, weight) for column, weight in zip(columns, weights) if (column >= 0).any()]


def all_of(label: Tensor) -> Concepts:
    """All concepts of labels [n, M], at guidance 1."""
    return [(column, 1.0) for column in label.unbind(1)]


def given(function: Callable[..., Tensor], concepts: Concepts) -> Callable[..., Tensor]:
    """f₀ + Σ wᵢ (fᵢ − f₀): an energy (eq. 5.9, 5.11, 5.12) or a mean (eq. 5.10) given all concepts, as a function of (x, t=t)."""
    if not concepts:
        return function
    weights = [weight for _, weight in concepts]
    functions = [partial(function, label=label) for label, _ in concepts]
    return functions[0] if weights == [1.0] else compose(functions, function, weights)


def some_left_out(label: Tensor, share: float, generator: random.Generator, together: float = 0.0) -> Tensor:
    """Labels [B] to train with, −1 (none) for a share; of several concepts [B, M], one is picked at random for each row.

    With `together` labels of several concepts stay [B, M]: that share of the rows keeps them all, the others the one that is picked.
    """
    if label.dim() == 2:
        pick = random.integers(len(label), 0, label.shape[1], generator=generator, device=label.device)[:, None]
        if together:
            alone = random.uniform(len(label), 1, generator=generator, device=label.device) >= together
            others = torch.arange(label.shape[1], device=label.device) != pick
            label = label.masked_fill(alone & others, -1)
        else:
            label = label.gather(1, pick)[:, 0]
    drop = random.uniform(len(label), generator=generator, device=label.device) < share
    return label.masked_fill(drop if label.dim() == 1 else drop[:, None], -1)
