"""Walks between noise levels y = x + σ ε of continuous σ: down to samples, along the probability flow to log-likelihoods.

    dy/dσ = ε̂(y, σ) = σ ∇U(y, σ)          the flow under which y keeps the law p_σ (Karras et al. 2022, eq. 1)
    d log p_σ(y)/dσ = −div ε̂(y, σ)         along it (Song et al. 2021, eq. 39)

`predict_noise(y, σ)` is ε̂ for y [B, ...] at one level; levels are lists of σ. `thalweg.sample.ancestral` walks the discrete schedules.
"""

import math
from collections.abc import Callable, Sequence

import torch
from torch import Tensor

from thalweg import random
from thalweg.energy import Energy, value_and_score
from thalweg.errors import InputError
from thalweg.metropolis import mala
from thalweg.sample import Constraint, langevin
from thalweg.trace import Trace, ended

PredictNoise = Callable[[Tensor, float], Tensor]


def sigmas(steps: int, low: float, high: float, *, curve: float = 7.0) -> list[float]:
    """`steps` + 1 noise levels from `high` down to `low`, denser at low noise for a larger `curve` (Karras et al. 2022, eq. 5).

    An infinite `curve` is their limit, levels even in log σ.
    """
    if steps < 1 or not 0 < low < high:
        raise InputError(f"levels need 1 step or more and 0 < low < high, got {steps} steps from {high:g} to {low:g}")
    if math.isinf(curve):
        return [high * (low / high) ** (i / steps) for i in range(steps + 1)]
    a, b = high ** (1 / curve), low ** (1 / curve)
    return [(a + i / steps * (b - a)) ** curve for i in range(steps + 1)]


def noise_of(energy: Energy, **condition: object) -> PredictNoise:
    """ε̂ = σ ∇U of an energy (y, sigma=σ) -> [B]."""
    return lambda y, sigma: -sigma * value_and_score(energy, y, sigma=sigma, **condition)[1]


def down(
    predict_noise: PredictNoise | None,
    x: Tensor,
    levels: Sequence[float],
    *,
    eta: float = 1.0,
    clamp: tuple[float, float] | None = None,
    correct: Callable[[Tensor, float], Tensor] | None = None,
    constraint: Constraint | None = None,
    resample: int = 1,
    generator: random.Generator = None,
    trace: Trace | None = None,
) -> Tensor:
    """From y [B, ...] at levels[0] down to x̂₀, the mean of x given y at the last level.

    One evaluation a level by the multistep solver of second order, DPM-Solver++ (2M): of the reverse diffusion for `eta` 1, of
    the probability flow for `eta` 0 (Lu et al. 2022, arXiv:2211.01095). `clamp` bounds each x̂₀. `correct`
    (y, σ) -> y, a chain that leaves p_σ as it is, is called at each level, the first included; with `predict_noise` None it is all there
    is, and y is returned at the last level. `constraint` puts what was measured back at each level (`thalweg.tasks`), and each step but
    the last is made `resample` times, with noise put back in between (Lugmayr et al. 2022).
    """
    start, previous, steps = x, None, len(levels) - 1

    def placed(x: Tensor, sigma: float) -> Tensor:
        x = x if constraint is None else constraint(x, 1.0, sigma)
        return x if correct is None else correct(x, sigma)

    x = placed(x, levels[0])
    for i, (here, there) in enumerate(zip(levels, levels[1:])):
        if trace is not None:
            trace.record(i, steps, x)
        for again in range(resample if i < steps - 1 else 1):
            if again:
                x = x + math.sqrt(here**2 - there**2) * random.normal_like(x, generator)
                x, previous = (x if constraint is None else constraint(x, 1.0, here)), None
            if predict_noise is not None:
                x0 = _denoised(predict_noise, x, here, clamp)
                h = math.log(here / there)
                # the solver's second order: x̂₀ as it changes from level to level
                ahead = x0 if previous is None else x0 + (x0 - previous[0]) * (h / (2 * previous[1]))
                kept = there / here * math.exp(-eta * h)
                x = kept * x + (1 - kept) * ahead
                if eta:
                    x = x + there * math.sqrt(-math.expm1(-2 * eta * h)) * random.normal_like(x, generator)
                previous = (x0, h)
            x = placed(x, there)
    if predict_noise is not None:
        x = _denoised(predict_noise, x, levels[-1], clamp)
        x = x if constraint is None else constraint(x, 1.0, 0.0)
    if trace is not None:
        trace.record(steps, steps, x)
        trace.close(start, x, trace.acceptance)
    return ended(x, "diffusion")


def _denoised(predict_noise: PredictNoise, x: Tensor, sigma: float, clamp: tuple[float, float] | None) -> Tensor:
    x0 = x - sigma * predict_noise(x, sigma)
    return x0 if clamp is None else x0.clamp(*clamp)


def correction(
    energy: Energy,
    *,
    chain: str = "mala",
    steps: int,
    ratio: float = 0.5,
    constraint: Constraint | None = None,
    generator: random.Generator = None,
    trace: Trace | None = None,
) -> Callable[[Tensor, float], Tensor]:
    """(y, σ) -> y after `steps` steps of size `ratio`·σ on energy(y, sigma=σ), by "mala" or "langevin": for `down`.

    Under a `constraint` chains move in what it leaves free: they are chains of w on energy(constraint(w)), which is flat along what is
    measured, so that what they leave as it is is p_σ given the measured part. The acceptance of each level is kept in `trace`, [B], the
    mean over levels.
    """
    if chain not in ("mala", "langevin"):
        raise InputError(f"a correction is by 'mala' or 'langevin', got '{chain}'")
    shares: list[Tensor] = []

    def correct(x: Tensor, sigma: float) -> Tensor:
        def onto(w: Tensor) -> Tensor:
            return w if constraint is None else constraint(w, 1.0, sigma)

        if chain == "langevin":
            return onto(langevin(lambda w: energy(onto(w), sigma=sigma), x, steps=steps, step=ratio * sigma, generator=generator))
        level = Trace()
        x = onto(mala(lambda w: energy(onto(w), sigma=sigma), x, steps=steps, step=ratio * sigma, generator=generator, trace=level))
        if trace is not None and level.acceptance is not None:
            shares.append(level.acceptance)
            trace.acceptance = torch.stack(shares).mean(0)
        return x

    return correct


def flow(
    predict_noise: PredictNoise, x: Tensor, levels: Sequence[float], *, clamp: tuple[float, float] | None = None, trace: Trace | None = None
) -> Tensor:
    """Along the probability flow from y [B, ...] at levels[0] to levels[-1], up or down, by Heun's method in σ: two evaluations a level."""
    start = x
    for i, (here, there) in enumerate(zip(levels, levels[1:])):
        if trace is not None:
            trace.record(i, len(levels) - 1, x)
        slope = _slope(predict_noise, x, here, clamp)
        ahead = x + (there - here) * slope
        x = x + (there - here) * 0.5 * (slope + _slope(predict_noise, ahead, there, clamp))
    if trace is not None:
        trace.record(len(levels) - 1, len(levels) - 1, x)
        trace.close(start, x)
    return ended(x, "flow")


def _slope(predict_noise: PredictNoise, x: Tensor, sigma: float, clamp: tuple[float, float] | None) -> Tensor:
    return (x - _denoised(predict_noise, x, sigma, clamp)) / sigma


def log_likelihood(
    energy: Energy,
    x: Tensor,
    levels: Sequence[float],
    log_prob: Callable[[Tensor], Tensor],
    *,
    probes: int = 1,
    generator: random.Generator = None,
) -> Tensor:
    """log p of x [B, ...] at levels[0] by the probability flow up to levels[-1], where `log_prob` (y [B, ...]) -> [B] is the law; nats.

    Uses gradients of energy(y, sigma=σ) alone, not its values. Heun's method in log σ. The divergence is exact, by as many backward
    passes as dimensions, for `probes` 0; else Hutchinson's estimate with so many random signs for each row, the same at all levels.
    """
    signs = [random.normal_like(x, generator).sign() for _ in range(probes)]

    def slopes(y: Tensor, sigma: float) -> tuple[Tensor, Tensor]:
        """dy/d log σ and the divergence of that."""
        with torch.enable_grad():
            y = y.detach().requires_grad_(True)
            move = -(sigma**2) * value_and_score(energy, y, create_graph=True, sigma=sigma)[1]
            if probes:
                parts = [_along(move, y, sign, last=sign is signs[-1]) for sign in signs]
                return move.detach(), torch.stack(parts).mean(0)
            flat = move.flatten(1)
            columns = [
                torch.autograd.grad(flat[:, i].sum(), y, retain_graph=i < flat.shape[1] - 1)[0].flatten(1)[:, i]
                for i in range(flat.shape[1])
            ]
            return move.detach(), torch.stack(columns).sum(0)

    total = torch.zeros(len(x), device=x.device, dtype=torch.float64)
    y = x.detach()
    here = slopes(y, levels[0])
    for low, high in zip(levels, levels[1:]):
        h = math.log(high / low)
        ahead = -(high**2) * value_and_score(energy, y + h * here[0], sigma=high)[1]
        y = y + 0.5 * h * (here[0] + ahead)
        corrected = slopes(y, high)
        total += 0.5 * h * (here[1].double() + corrected[1].double())
        here = corrected
    return (log_prob(y).double() + total).to(x.dtype)


def _along(move: Tensor, y: Tensor, sign: Tensor, *, last: bool) -> Tensor:
    (gradient,) = torch.autograd.grad((move * sign).sum(), y, retain_graph=not last)
    return (gradient * sign).flatten(1).sum(1)
