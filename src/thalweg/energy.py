"""What an energy is: any callable (x, **condition) -> [B], in nats, with p(x) ∝ exp(−E(x)); lower is more likely.

There is no base class. The functions here differentiate, scale, condition and combine energies; each takes energies and
gives an energy, so that they nest.
"""

import math
from collections.abc import Callable, Sequence
from typing import Any, Literal, overload

import torch
from torch import Tensor

from thalweg.errors import InputError

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

    `x`: [B, ...] of a floating-point type. Returns E [B] in nats and the score, shaped like `x`. With `create_graph` both can be
    differentiated by the parameters (losses on the score); otherwise they are detached. With `aux` the energy returns (E, anything), and
    the anything comes back third. The only place of the library that differentiates by x and that holds the minus sign. Under
    `torch.compile` it uses `torch.func.grad`, so that a loss on the score compiles whole. Raises InputError for an energy that is not [B]
    or does not depend on x, and for an x that is not floating-point.
    """
    extra = None

    def evaluated(point: Tensor) -> tuple[Tensor, Any]:
        result = energy(point, **condition)
        value, extra = (result[0], result[1]) if aux else (result, None)
        return of_each_row(value, len(point)), extra

    if torch.compiler.is_compiling():

        def total(point: Tensor) -> tuple[Tensor, Any]:
            value, extra = evaluated(point)
            return value.sum(), (value, extra) if aux else value  # func.grad hands back tensors only, no None

        gradient, carried = torch.func.grad(total, has_aux=True)(x)
        value, extra = carried if aux else (carried, None)
        if not create_graph:
            gradient, value = gradient.detach(), value.detach()
    else:
        if not (isinstance(x, Tensor) and x.is_floating_point()):
            raise InputError(f"x must be a floating-point tensor [B, ...], got {_kind(x)}")
        if torch.is_inference_mode_enabled():  # in which nothing can be differentiated
            with torch.inference_mode(False):
                return value_and_score(energy, x.clone(), create_graph=create_graph, aux=aux, **condition)  # type: ignore[call-overload]
        with torch.enable_grad():
            # a graph of this point alone, unless the caller differentiates through x itself
            point = x if create_graph and x.requires_grad else x.detach().requires_grad_(True)
            value, extra = evaluated(point)
            gradient = None
            if value.requires_grad:
                (gradient,) = torch.autograd.grad(value.sum(), point, create_graph=create_graph, allow_unused=True)
            if gradient is None:
                raise InputError("the energy does not depend on x through differentiable operations, so that it has no score")
        value = value if create_graph else value.detach()
    return (value, -gradient, extra) if aux else (value, -gradient)


def of_each_row(value: Any, rows: int) -> Tensor:
    """`value` if it is the energy of each of `rows` rows, [B]; InputError says what it is instead. Looks at shape and type only."""
    if isinstance(value, Tensor) and value.shape == (rows,) and value.is_floating_point():
        return value
    hint = ""
    if isinstance(value, Tensor) and value.is_floating_point():
        if value.numel() == 1:
            hint = "; a mean or sum over the batch is no energy of each row"
        elif value.shape == (rows, 1):
            hint = "; drop the last axis: .squeeze(1)"
        elif value.dim() > 1 and len(value) == rows:
            hint = "; add up all but the first axis: .flatten(1).sum(1)"
    raise InputError(f"an energy must return one floating-point number a row, [{rows}], got {_kind(value)}{hint}")


def _kind(value: Any) -> str:
    return f"{str(value.dtype).removeprefix('torch.')} {list(value.shape)}" if isinstance(value, Tensor) else type(value).__name__


def check_energy(energy: Energy, x: Tensor, **condition: Any) -> None:
    """Raises InputError unless `energy` is [B] of x [B, ...], differentiable, finite, the same when asked again, and of each row alone.

    x: 2 rows or more. The last two find energies that are random or mix their batch, as dropout and batch norm do in training mode.
    Costs three evaluations; samplers check only shape, type and what their chains begin and end with.
    """
    if len(x) < 2:
        raise InputError(f"check_energy compares rows with each other: give 2 or more, got {len(x)}")
    value, slope = value_and_score(energy, x, **condition)
    if not (value.isfinite().all() and slope.isfinite().all()):
        raise InputError(f"the energy or its gradient is not finite at {int((~value.isfinite()).sum())} or more of {len(x)} rows")
    room = 1e-3 * float(1 + value.abs().max())
    again = value_and_score(energy, x, **condition)[0]
    if float((again - value).abs().max()) > room:
        raise InputError("the energy of the same x changes from call to call: a network with dropout needs .eval()")
    half = len(x) // 2
    some = {key: c[:half] if isinstance(c, Tensor) and c.dim() and len(c) == len(x) else c for key, c in condition.items()}
    alone = value_and_score(lambda x: energy(x, **some), x[:half])[0]
    if float((alone - value[:half]).abs().max()) > room:
        raise InputError("the energy of a row depends on the rows next to it: a network with batch norm needs .eval(), or no batch norm")


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


def mixture(energies: Sequence[Energy], weights: Sequence[float] | None = None) -> Energy:
    """−log Σ wᵢ exp(−Eᵢ), the mixture of densities, each normalised; equal weights unless given, which are brought to the sum 1.

    Raises ValueError where the counts differ or a weight is not above 0. Of energies whose log Z differ the shares are not the weights.
    """
    weights = [1.0] * len(energies) if weights is None else list(weights)
    if not energies or len(weights) != len(energies) or not all(weight > 0 for weight in weights):
        raise ValueError(f"mixture needs one weight above 0 for each energy, got {len(energies)} energies and {list(weights)}")
    logs = [math.log(weight / sum(weights)) for weight in weights]

    def mixed(x: Tensor, **condition: Any) -> Tensor:
        return -torch.stack([log - energy(x, **condition) for log, energy in zip(logs, energies)]).logsumexp(0)

    return mixed


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
