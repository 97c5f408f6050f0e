"""What an energy is: any callable (x, **condition) -> [B], in nats, with p(x) ∝ exp(−E(x)); lower is more likely.

There is no base class. The functions here differentiate, scale, condition and combine energies; each takes energies and
gives an energy, so that they nest.
"""

import math
from collections.abc import Callable, Sequence
from typing import Any, Literal, overload

import torch
from torch import Tensor

Energy = Callable[..., Tensor]


@overload
def value_and_score(
    energy: Energy, x: Tensor, *, create_graph: bool = False, aux: Literal[False] = False, **condition: Any
) -> tuple[Tensor, Tensor]: ...
@overload
def value_and_score(
    energy: Callable[..., tuple[Tensor, Any]], x: Tensor, *, create_graph: bool = False, aux: Literal[True], **condition: Any
) -> tuple[Tensor, Tensor, Any]: ...
def value_and_score(
    energy: Callable[..., Any], x: Tensor, *, create_graph: bool = False, aux: bool = False, **condition: Any
) -> tuple[Tensor, Tensor] | tuple[Tensor, Tensor, Any]:
    """The energy and the score −∇ₓE of each row, in one forward and one backward pass.

    `x`: [B, ...]. Returns E [B] in nats and the score, shaped like `x`. With `create_graph` both can be differentiated by
    the parameters (losses on the score); otherwise they are detached. With `aux` the energy returns (E, anything), and the
    anything comes back third. The only place of the library that differentiates by x and that holds the minus sign. Under
    `torch.compile` it uses `torch.func.grad`, so that a loss on the score compiles whole.
    """
    extra = None

    def evaluated(point: Tensor) -> tuple[Tensor, Any]:
        result = energy(point, **condition)
        return (result[0], result[1]) if aux else (result, None)

    if torch.compiler.is_compiling():

        def total(point: Tensor) -> tuple[Tensor, Any]:
            value, extra = evaluated(point)
            return value.sum(), (value, extra) if aux else value  # func.grad hands back tensors only, no None

        gradient, carried = torch.func.grad(total, has_aux=True)(x)
        value, extra = carried if aux else (carried, None)
        if not create_graph:
            gradient, value = gradient.detach(), value.detach()
    else:
        with torch.enable_grad():
            # a graph of this point alone, unless the caller differentiates through x itself
            point = x if create_graph and x.requires_grad else x.detach().requires_grad_(True)
            value, extra = evaluated(point)
            (gradient,) = torch.autograd.grad(value.sum(), point, create_graph=create_graph)
        value = value if create_graph else value.detach()
    return (value, -gradient, extra) if aux else (value, -gradient)


def score(energy: Energy, x: Tensor, *, create_graph: bool = False, **condition: Any) -> Tensor:
    """The score ∇ₓ log p(x) = −∇ₓE(x), shaped like `x` [B, ...]; see `value_and_score`."""
    return value_and_score(energy, x, create_graph=create_graph, **condition)[1]


def temper(energy: Energy, temperature: float) -> Energy:
    """E/T: the density raised to 1/T. Raises ValueError for T ≤ 0."""
    if not temperature > 0:
        raise ValueError(f"the temperature must be above 0, got {temperature}")
    return lambda x, **condition: energy(x, **condition) / temperature


def condition(energy: Energy, **fixed) -> Energy:
    """E(· | fixed): the energy with some of its conditions held, for example `condition(energy, label=three)`."""
    return lambda x, **others: energy(x, **fixed, **others)


def combine(energies: Sequence[Energy], weights: Sequence[float] | None = None) -> Energy:
    """Σ wᵢ Eᵢ: the product of experts ∏ pᵢ^wᵢ. All weights 1 unless given; raises ValueError where the counts differ."""
    weights = [1.0] * len(energies) if weights is None else list(weights)
    if not energies or len(weights) != len(energies):
        raise ValueError(f"combine needs one weight for each energy, got {len(energies)} energies and {len(weights)} weights")

    def combined(x: Tensor, **condition: Any) -> Tensor:
        first, *others = (weight * energy(x, **condition) for weight, energy in zip(weights, energies))
        return sum(others, start=first)

    return combined


def compose(concepts: Sequence[Energy], unconditional: Energy, weights: Sequence[float] | None = None) -> Energy:
    """p(x | c₁, …, c_M) for concepts that are independent given x: E = E₀ + Σ wᵢ (Eᵢ − E₀).

    With all weights 1 this is Σ Eᵢ − (M − 1)·E₀ (thesis, eq. 5.11); a weight 1 + w is guidance of strength w on that
    concept (eq. 5.9, 5.12), a negative weight is "not that concept".
    """
    weights = [1.0] * len(concepts) if weights is None else list(weights)
    return combine([*concepts, unconditional], [*weights, 1.0 - sum(weights)])


def tilt(negative_energy: Callable[..., Tensor], reference: Energy) -> Energy:
    """Exponential tilting p(z) ∝ exp(f(z)) p₀(z): E = E₀ − f (thesis, eq. 2.8)."""
    return lambda x, **condition: reference(x) - negative_energy(x, **condition)


def gaussian(x: Tensor, std: float = 1.0) -> Tensor:
    """The energy of N(0, std² I) up to its constant, ‖x‖²/(2 std²): [B, ...] -> [B]."""
    return x.flatten(1).square().sum(1) / (2 * std**2)


def log_normal(x: Tensor, mean: Tensor, log_variance: Tensor) -> Tensor:
    """log N(x; mean, exp(log_variance)) in nats, summed over all axes but the first: [B, ...] -> [B]; `log_variance` broadcasts."""
    squares = (x - mean).square() * (-log_variance).exp()
    return -0.5 * (squares + log_variance + math.log(2 * math.pi)).flatten(1).sum(1)
