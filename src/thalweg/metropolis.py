"""Samplers that are exact: Metropolis–Hastings moves, which are accepted or not so that p(x) stays stationary. Part of `thalweg.sample`."""

import math
from collections.abc import Callable

import torch
from torch import Tensor

from thalweg import random
from thalweg.energy import Energy, of_each_row, temper, value_and_score
from thalweg.errors import InputError
from thalweg.trace import Knob, Trace, begun, ended, knobs, warn_if_stuck


def _accept(x: Tensor, current: tuple, proposal: tuple, log_ratio: Tensor, generator: random.Generator) -> tuple[Tensor, tuple]:
    """Per chain, the proposed (x, E, score) with probability min(1, exp(log_ratio)), else the current; a NaN is rejected."""
    draw = random.uniform(len(x), generator=generator, device=x.device).log()
    accepted = draw < log_ratio.nan_to_num(nan=-math.inf, neginf=-math.inf)
    rows = accepted.view(-1, *[1] * (x.dim() - 1))
    kept = tuple(torch.where(accepted if new.dim() == 1 else rows, new, old) for new, old in zip(proposal, current))
    return accepted, kept


def _squared_norm(x: Tensor) -> Tensor:
    return x.flatten(1).square().sum(1)


def mala(
    energy: Energy,
    x: Tensor,
    *,
    steps: int,
    step: Knob = 0.1,
    temperature: float = 1.0,
    target_acceptance: float = 0.0,
    generator: random.Generator = None,
    trace: Trace | None = None,
    **condition,
) -> Tensor:
    """Metropolis-adjusted Langevin: the Langevin move as a proposal, accepted so that p(x) is exactly stationary.

    As `langevin`, for the same cost: the energy and score at the current state are carried along. `trace.acceptance`
    holds each chain's accepted share; 0.57 is the optimum in high dimension (Roberts and Rosenthal 1998). With `target_acceptance` the
    step, one for all chains, moves towards it, ever less: log s grows by 2 (share accepted − target)/√k after step k (Andrieu and Thoms
    2008). Raises Diverged for a start where the energy is infinite or NaN; warns where nothing at all was accepted.
    """
    target = energy if temperature == 1.0 else temper(energy, temperature)
    sizes = knobs("step", step, steps)
    start = x = begun(x).clone()
    value, drift = value_and_score(target, x, **condition)
    first = value
    accepted_steps = torch.zeros(len(x), device=x.device)
    scale: Tensor | float = 1.0
    for i in range(steps):
        if trace is not None:
            trace.record(i, steps, x)
        s = scale * sizes[i]
        xi = random.normal_like(x, generator)
        proposal = x + 0.5 * s * s * drift + s * xi
        new_value, new_drift = value_and_score(target, proposal, **condition)
        # log q(x' → x) − log q(x → x') with q(x → ·) = N(x + s²/2·score(x), s² I)
        back = (x - proposal - 0.5 * s * s * new_drift) / s
        log_ratio = value - new_value + 0.5 * (_squared_norm(xi) - _squared_norm(back))
        accepted, (x, value, drift) = _accept(x, (x, value, drift), (proposal, new_value, new_drift), log_ratio, generator)
        accepted_steps += accepted
        if target_acceptance:
            scale = scale * torch.exp(2 * (accepted.float().mean() - target_acceptance) / math.sqrt(i + 1))
    if trace is not None:
        trace.record(steps, steps, x)
        trace.close(start, x, accepted_steps / max(1, steps))
    warn_if_stuck("mala", accepted_steps, steps)
    return ended(x, "mala", first, value)


def hmc(
    energy: Energy,
    x: Tensor,
    *,
    steps: int,
    step: Knob = 0.1,
    leapfrog: int = 5,
    temperature: float = 1.0,
    generator: random.Generator = None,
    trace: Trace | None = None,
    **condition,
) -> Tensor:
    """Hamiltonian Monte Carlo with unit mass: `steps` trajectories of `leapfrog` steps of size `step`, each accepted or not.

    As `mala`; one trajectory costs `leapfrog` gradients (Neal 2011).
    """
    if leapfrog < 1:
        raise InputError(f"leapfrog must be 1 or more, got {leapfrog}")
    target = energy if temperature == 1.0 else temper(energy, temperature)
    sizes = knobs("step", step, steps)
    start = x = begun(x).clone()
    value, drift = value_and_score(target, x, **condition)
    first = value
    accepted_steps = torch.zeros(len(x), device=x.device)
    for i in range(steps):
        if trace is not None:
            trace.record(i, steps, x)
        s = sizes[i]
        momentum = random.normal_like(x, generator)
        position, new_value, new_drift = x, value, drift
        moving = momentum + 0.5 * s * new_drift
        for j in range(leapfrog):
            position = position + s * moving
            new_value, new_drift = value_and_score(target, position, **condition)
            moving = moving + (s if j < leapfrog - 1 else 0.5 * s) * new_drift
        log_ratio = value - new_value + 0.5 * (_squared_norm(momentum) - _squared_norm(moving))
        accepted, (x, value, drift) = _accept(x, (x, value, drift), (position, new_value, new_drift), log_ratio, generator)
        accepted_steps += accepted
    if trace is not None:
        trace.record(steps, steps, x)
        trace.close(start, x, accepted_steps / max(1, steps))
    warn_if_stuck("hmc", accepted_steps, steps)
    return ended(x, "hmc", first, value)


def independence(
    energy: Energy,
    x: Tensor,
    *,
    propose: Callable[[int], Tensor],
    proposal_energy: Energy,
    steps: int,
    trace: Trace | None = None,
    generator: random.Generator = None,
    **condition,
) -> Tensor:
    """Metropolis–Hastings with proposals that do not depend on the state: chains jump between modes however far apart.

    `propose(n)` draws [n, ...] from a distribution of energy `proposal_energy` (constants cancel); accepted with probability
    min(1, p(x')q(x)/(p(x)q(x'))), so that p stays exactly stationary. Only worth while where p and q overlap, as in the
    plane or a latent space; one energy and no gradient a step. The rest as `mala`.
    """
    start = x = begun(x).clone()
    with torch.no_grad():
        excess = of_each_row(energy(x, **condition), len(x)) - of_each_row(proposal_energy(x), len(x))
        accepted_steps = torch.zeros(len(x), device=x.device)
        for _ in range(steps):
            proposal = propose(len(x))
            new_excess = energy(proposal, **condition) - proposal_energy(proposal)
            accepted, (x, excess) = _accept(x, (x, excess), (proposal, new_excess), excess - new_excess, generator)
            accepted_steps += accepted
    if trace is not None:
        trace.close(start, x, accepted_steps / max(1, steps))
    return ended(x, "independence")
