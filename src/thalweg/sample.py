"""Samplers: plain functions from a start tensor and an energy to samples, every knob explicit.

Langevin is x ← x − (s²/2)·∇E(x) + s·τ·ξ with step s and noise weight τ (1: exact dynamics as s → 0; 0: gradient descent).
MALA and HMC correct the discretisation by accepting or rejecting (`thalweg.metropolis`, reachable from here). `ancestral` walks a noise
schedule down, DDPM to DDIM. None of them clamps, clips or tempers unless asked to. A chain reads nothing back to the host until it ends.
"""

import functools
from collections.abc import Callable, Sequence
from functools import partial
from typing import Any

import torch
from torch import Tensor

from thalweg import random
from thalweg.compiled import Faster, compiled_or_eager
from thalweg.energy import Energy, value_and_score
from thalweg.errors import InputError
from thalweg.metropolis import hmc, independence, mala
from thalweg.noise import Schedule
from thalweg.trace import Knob, Trace, begun, ended, knobs

__all__ = [
    "Constraint",
    "Knob",
    "Trace",
    "ancestral",
    "annealed_langevin",
    "ascend",
    "hmc",
    "independence",
    "langevin",
    "mala",
    "posterior_mean",
]

# constraint(x, signal, noise): a state x [B, ...] at the noise level where it is signal·x₀ + noise·ε, with what was measured of x₀
# put back; signal and noise are numbers, or tensors that broadcast against x
Constraint = Callable[[Tensor, Tensor | float, Tensor | float], Tensor]


def langevin(
    energy: Energy,
    x: Tensor,
    *,
    steps: int,
    step: Knob = 0.1,
    noise: Knob = 1.0,
    temperature: float = 1.0,
    clip: float | None = None,
    clamp: tuple[float, float] | None = None,
    project: Callable[[Tensor], Tensor] | None = None,
    compile: bool | Faster = False,
    generator: random.Generator = None,
    trace: Trace | None = None,
    **condition,
) -> Tensor:
    """Unadjusted Langevin dynamics from `x` [B, ...] for `steps` steps (thesis, eq. 2.3).

    `step` s and `noise` τ are numbers, one number a step, or functions of the step's index. `temperature` T samples p^(1/T).
    `clip` bounds each element of the gradient's move (s²/2)·∇E, `clamp` bounds x after every step; both off by default.
    `project` maps x after every step, and after `clamp`, onto the set that the chain is to stay in: with the orthogonal projection
    onto a plane this is Langevin dynamics on that plane, so p conditioned on it. The start is taken as it is.
    With `compile` a whole step is one compiled function, which pays in training (docs/benchmarks.md); the first chain of an
    energy and shape then waits for the compiler, seconds for small networks and more for convolutional ones. Pass the same
    function each time (a method's `energy`, not a new lambda); where nothing can be compiled (no C++ compiler) it warns and runs
    uncompiled. A `compiled.Faster` compiles too, takes the time of both ways, and goes the faster one from then on. Further keywords
    condition the energy. Raises Diverged where a chain starts or ends where the energy is infinite or NaN, InputError for knobs out of
    range.
    """
    if not temperature > 0:
        raise ValueError(f"the temperature must be above 0, got {temperature}")
    move: Callable[..., tuple[Tensor, Tensor]] = partial(_move, energy)
    if compile:
        compiled = partial(_in_compiled, getattr(energy, "__self__", None), getattr(energy, "__func__", energy))
        move = compile.choose(move, compiled) if isinstance(compile, Faster) else compiled
    sizes, taus = knobs("step", step, steps), knobs("noise", noise, steps, above=False)
    gains: Any = [0.5 * s * s / temperature for s in sizes]
    spreads: Any = [s * tau for s, tau in zip(sizes, taus)]
    if compile:  # numbers would be constants of the compiled function, made anew for each; moved once, so that no step waits
        gains, spreads = (torch.tensor(values, dtype=x.dtype, device=x.device) for values in (gains, spreads))
    start = x = begun(x)
    first = last = None
    for i in range(steps):
        if trace is not None:
            trace.record(i, steps, x)
        xi = random.normal_like(x, generator) if taus[i] else None
        x, last = move(x, xi, gains[i], spreads[i], clip, clamp, condition)
        first = last if i == 0 else first
        if project is not None:
            x = project(x)
    if trace is not None:
        trace.record(steps, steps, x)
        trace.close(start, x)
    return ended(x, "langevin", first, last)


def _move(energy: Energy, x: Tensor, xi: Tensor | None, gain, spread, clip, clamp, condition: dict) -> tuple[Tensor, Tensor]:
    """One Langevin step, x + gain·score + spread·ξ, each move within ±clip and the result within clamp; and the energy before it."""
    value, slope = value_and_score(energy, x, **condition)
    drift = gain * slope
    x = x + (drift if clip is None else drift.clamp(-clip, clip))
    if xi is not None:
        x = x + spread * xi
    return x if clamp is None else x.clamp(*clamp), value


def _in_compiled(owner: Any, function: Any, *arguments: Any) -> tuple[Tensor, Tensor]:
    """`_move` of an energy, compiled when it is first called: whoever is not compiled in the end does not wait for the compiler's start."""
    return _compiled_move(owner, function)(*arguments)


@functools.lru_cache(maxsize=32)
def _compiled_move(owner: Any, function: Any) -> Callable[..., tuple[Tensor, Tensor]]:
    """`_move` of an energy, compiled; owner and function are the parts of a bound method, which itself is new at each look-up."""
    energy = function if owner is None else function.__get__(owner)
    # the score makes the one graph that is needed
    return torch.no_grad()(compiled_or_eager(partial(_move, energy), "chains run"))


def posterior_mean(
    energy: Energy,
    y: Tensor,
    std: float,
    *,
    steps: int,
    step: float,
    generator: random.Generator = None,
) -> Tensor:
    """The expectation of x given y = x + std·ε under p(x) ∝ exp(−E(x)), [B, ...] -> [B, ...], by Langevin dynamics.

    The mean over the second half of `steps` steps of size `step` from y on the posterior's energy E(x) + ‖y − x‖²/(2 std²).
    Raises InputError for std ≤ 0 or no steps, Diverged where a chain ends non-finite.
    """
    if not std > 0 or steps < 1:
        raise InputError(f"posterior_mean needs std above 0 and 1 step or more, got std = {std} and steps = {steps}")
    y, trace = y.detach(), Trace(average=True)

    def posterior(x: Tensor) -> Tensor:
        return energy(x) + (x - y).flatten(1).square().sum(1) / (2 * std**2)

    langevin(posterior, y, steps=steps, step=step, generator=generator, trace=trace)
    assert trace.mean is not None  # of a step or more
    return trace.mean


def annealed_langevin(
    energy: Callable[..., Tensor],
    x: Tensor,
    schedule: Schedule,
    *,
    steps: int,
    step: float = 0.5,
    generator: random.Generator = None,
    **condition,
) -> Tensor:
    """Langevin at each noise level in turn, from the last to the first: `steps` steps of size `step`·σ̄_t with energy(x, t).

    The step falls with the noise so that its ratio to the width of the density stays (Song and Ermon 2019). Levels with
    σ̄_t = 0 are passed over.
    """
    for t in range(schedule.levels, -1, -1):
        if schedule.noise[t] > 0:
            level = torch.full((len(x),), t, device=x.device)
            x = langevin(energy, x, steps=steps, step=step * schedule.noise[t], generator=generator, t=level, **condition)
    return x


def ancestral(
    predict_noise: Callable[[Tensor, Tensor], Tensor],
    x: Tensor,
    schedule: Schedule,
    *,
    steps: int | None = None,
    eta: float = 1.0,
    spacing: str = "even",
    clamp: tuple[float, float] | None = None,
    constraint: Constraint | None = None,
    resample: int = 1,
    generator: random.Generator = None,
    trace: Trace | None = None,
) -> Tensor:
    """Down a noise schedule from x_T [B, ...] to level 0, with ε̂ = predict_noise(x_t, t) for t [B].

    `eta` = 1 is DDPM's ancestral sampling (posterior variance), 0 the deterministic DDIM, between them Song et al. 2021,
    eq. 16. `steps` levels (all by default), spaced as `Schedule.steps` says. `clamp` bounds each x̂₀. No noise is added in the last step.
    `constraint` is applied at each level arrived at, the first included. `resample` times each step but the last is made, going
    back up by forward noise in between, so that the free part comes to agree with the constrained one (RePaint, Lugmayr et al.
    2022, Algorithm 1).
    """
    steps = schedule.levels if steps is None else steps
    if resample < 1:
        raise InputError(f"resample must be 1 or more, got {resample}")
    levels = schedule.steps(steps, spacing)[::-1]

    def constrained(x: Tensor, level: int) -> Tensor:
        return x if constraint is None else constraint(x, schedule.alpha(level, x), schedule.sigma(level, x))

    def down(x: Tensor, t: int, s: int) -> Tensor:
        noise = predict_noise(x, torch.full((len(x),), t, device=x.device))
        x0 = (x - schedule.sigma(t, x) * noise) / schedule.alpha(t, x)
        if clamp is not None:
            x0 = x0.clamp(*clamp)
            noise = (x - schedule.alpha(t, x) * x0) / schedule.sigma(t, x)
        _, posterior_std = schedule.posterior(x0, x, t, s)
        spread = eta * posterior_std
        x = schedule.alpha(s, x) * x0 + (schedule.sigma(s, x).square() - spread.square()).clamp_min(0).sqrt() * noise
        return x + spread * random.normal_like(x, generator) if eta and s > 0 else x

    def up(x: Tensor, s: int, t: int) -> Tensor:
        alpha = schedule.alpha(t, x) / schedule.alpha(s, x)
        variance = schedule.sigma(t, x).square() - (alpha * schedule.sigma(s, x)).square()
        return alpha * x + variance.clamp_min(0).sqrt() * random.normal_like(x, generator)

    start = x
    x = constrained(x, levels[0])
    for i, (t, s) in enumerate(zip(levels, levels[1:])):
        if trace is not None:
            trace.record(i, steps, x)
        for again in range(resample if s > 0 else 1):
            if again:
                x = constrained(up(x, s, t), t)
            x = constrained(down(x, t, s), s)
    if trace is not None:
        trace.record(steps, steps, x)
        trace.close(start, x)
    return ended(x, "ancestral")


def ascend(
    predict_noise: Callable[[Tensor, Tensor], Tensor], x: Tensor, schedule: Schedule, levels: Sequence[int], *, iterations: int = 4
) -> Tensor:
    """From x [B, ...] at levels[0] up to levels[-1], so that `ancestral` with eta 0 and no clamp comes back down the same levels.

    A step up is the step down solved for where it began, x_t = ᾱ_t (x_s − σ̄_s ε̂)/ᾱ_s + σ̄_t ε̂ with ε̂ = predict_noise(x_t, t), by
    `iterations` fixed-point iterations from x_s (one is the DDIM encoding of Song et al. 2021, sec. 5.4).
    """
    for s, t in zip(levels, levels[1:]):
        below, level = x, torch.full((len(x),), t, device=x.device)
        for _ in range(iterations):
            noise = predict_noise(x, level)
            x0 = (below - schedule.sigma(s, x) * noise) / schedule.alpha(s, x)
            x = schedule.diffuse(x0, t, noise)
    return x
