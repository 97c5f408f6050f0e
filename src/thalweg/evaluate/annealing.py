"""Chains between a normalised base p₀ and a density p ∝ exp(−E), whose weights give log Z (`thalweg.evaluate.likelihood`).

Annealed importance sampling (Neal 2001) along the geometric path E_b = (1 − b) E₀ + b E, b from 0 to 1, up or down.
"""

import math
from typing import NamedTuple

import torch
from torch import Tensor

from thalweg import random, sample
from thalweg.energy import Energy, value_and_score
from thalweg.errors import Diverged, InputError
from thalweg.evaluate.bases import Base

# Accepted shares to tune for. Above the optima of a stationary chain (0.65, 0.57): a chain that is refused a move falls behind
# the path. On a 200-dimensional Gaussian the bounds were half as far apart with HMC at 0.9 as at 0.65, at equal cost.
ACCEPTANCE = {"hmc": 0.9, "mala": 0.8}
RATIO_VARIANCE = 1.0  # Langevin: the sum over all moves of the mean square of their log ratio (most of it cancels), nats²
TRANSITIONS = (*ACCEPTANCE, "langevin")
SCHEDULES = ("adaptive", "sigmoidal", "linear")
SIGMOID = 4.0  # slope δ of the sigmoidal schedule (Grosse, Maddison and Salakhutdinov 2013)
PILOT_CHAINS, PILOT_TEMPERATURES, WARM_UP = 64, 200, 30
JITTER = 0.2  # HMC's step varies by this share from one b to the next, lest all trajectories be of one period of the density


class Path(NamedTuple):
    """Inverse temperatures `b`, from 0 to 1, and the step of the moves at each."""

    b: list[float]
    step: list[float]


class Moves(NamedTuple):
    """What happens at each temperature: `steps` moves of one of `TRANSITIONS`, those of HMC of `leapfrog` steps each."""

    transition: str
    steps: int
    leapfrog: int

    def __call__(self, energy: Energy, x: Tensor, step: float, generator: torch.Generator) -> tuple[Tensor, Tensor | float, float]:
        """x after the moves, what they add to log w, and the accepted share (Langevin: the mean square of the log ratio)."""
        if self.transition == "langevin":
            return langevin(energy, x, self.steps, step, generator)
        trace = sample.Trace()
        knobs = {"steps": self.steps, "step": step, "generator": generator, "trace": trace}
        x = sample.mala(energy, x, **knobs) if self.transition == "mala" else sample.hmc(energy, x, leapfrog=self.leapfrog, **knobs)
        return x, 0.0, float(trace.acceptance.mean())


def langevin(energy: Energy, x: Tensor, steps: int, step: float, generator: torch.Generator) -> tuple[Tensor, Tensor, float]:
    """The moves of `sample.langevin`, Σ log [p(x') q(x' → x) / (p(x) q(x → x'))] over them [B], and the mean square of a term.

    Unadjusted moves do not leave p invariant; with these ratios of backward to forward transitions in log w the weights are
    exact all the same (Thin et al. 2021, arXiv:2106.15921, sec. 2). It is the ratio by which MALA would accept.
    """
    total, squares = torch.zeros(len(x), dtype=torch.float64, device=x.device), 0.0
    value, drift = value_and_score(energy, x)
    for _ in range(steps):
        xi = random.normal_like(x, generator)
        new = x + 0.5 * step * step * drift + step * xi
        new_value, new_drift = value_and_score(energy, new)
        back = (x - new - 0.5 * step * step * new_drift) / step
        ratio = (value - new_value).double() + 0.5 * (xi.square() - back.square()).flatten(1).sum(1).double()
        total, squares = total + ratio, squares + float(ratio.square().mean())
        x, value, drift = new, new_value, new_drift
    return x, total, squares / steps


def bridge(energy: Energy, base: Base, b: float) -> Energy:
    """E_b = (1 − b) E₀ + b E with E₀ = −log p₀."""
    return lambda x: b * energy(x) - (1 - b) * base.log_prob(x)


@torch.no_grad()
def difference(energy: Energy, base: Base, x: Tensor) -> Tensor:
    """E₀(x) − E(x) in float64, [B]; raises InputError where either is not [B] and finite."""
    value, reference = energy(x), base.log_prob(x)
    for name, found in (("energy", value), ("base.log_prob", reference)):
        if found.shape != (len(x),):
            raise InputError(f"{name}: got shape {list(found.shape)} for {len(x)} points, need [{len(x)}]")
        if not found.isfinite().all():
            raise InputError(f"{name}: NaN or infinite at {int((~found.isfinite()).sum())} of {len(x)} points, need finite values")
    return -reference.double() - value.double()


def anneal(
    energy: Energy, base: Base, x: Tensor, path: Path, moves: Moves, generator: torch.Generator, *, reverse: bool = False
) -> tuple[Tensor, float]:
    """log w of chains from x, draws of the base or, with `reverse`, of the density: [B] float64 on the CPU; and their accepted share.

    log w = Σ_k (b_k − b_{k−1}) (E₀ − E)(x_{k−1}) with x_k from x_{k−1} by moves at b_k (Neal 2001, eq. 11). Reverse chains
    take the same terms on their way down, so that E[1/w] = 1/Z there as E[w] = Z here.
    """
    last = len(path.b) - 1
    log_w, shares = torch.zeros(len(x), dtype=torch.float64, device=x.device), []
    for k in range(last, 0, -1) if reverse else range(1, last + 1):
        log_w += (path.b[k] - path.b[k - 1]) * difference(energy, base, x)
        at = k - 1 if reverse else k
        if 0 < at < last:
            x, ratio, share = moves(bridge(energy, base, path.b[at]), x, path.step[at], generator)
            if not x.isfinite().all():
                raise Diverged(f"{moves.transition}: chains left the finite numbers at b = {path.b[at]:.3g}; lower the step")
            log_w += -ratio if reverse else ratio
            shares.append(share)
    return log_w.cpu(), sum(shares) / max(1, len(shares))


# --- the path, fixed before the weighted run by chains with seeds of their own, so that the weights stay exact


def tuned_path(
    energy: Energy,
    base: Base,
    moves: Moves,
    *,
    temperatures: int,
    schedule: str = "adaptive",
    step: float | None = None,
    seed: int = 0,
    device: str | torch.device = "cpu",
) -> Path:
    """Inverse temperatures by `schedule` and a step for each, by a few chains that run up the path beforehand.

    "linear" and "sigmoidal" (slope 4) are fixed; "adaptive" spaces them so that each adds the same variance to log w. A given
    `step` is used throughout; else HMC and MALA are tuned to `ACCEPTANCE`, Langevin to `RATIO_VARIANCE`.
    """
    b = _spaced(schedule, temperatures)
    if temperatures == 2 or (step is not None and schedule != "adaptive"):
        return Path(b, [step or 0.0] * temperatures)
    x = base.sample(PILOT_CHAINS, generator=random.seeded(seed, 0))
    start = step or float(x.std()) / x[0].numel() ** 0.25
    count = min(PILOT_TEMPERATURES, max(50, temperatures))
    first = count // 2 if schedule == "adaptive" else count
    pilot = Path(_spaced(schedule, first), [start] * first)
    goal = ACCEPTANCE.get(moves.transition, RATIO_VARIANCE / (temperatures * moves.steps))
    moves = moves._replace(steps=1)
    if schedule == "adaptive":  # a first round only places the temperatures of the second
        pilot, spread = _pilot(energy, base, pilot, moves, goal, step is None, (seed, 1), device)
        pilot = Path(_even_spread(pilot.b, spread, count), pilot.step)
    pilot, spread = _pilot(energy, base, pilot, moves, goal, step is None, (seed, 2), device)
    if schedule == "adaptive":
        b = _even_spread(pilot.b, spread, temperatures)
    if step is not None:
        return Path(b, [step] * temperatures)
    log_step = torch.tensor(pilot.step, dtype=torch.float64).log()
    smooth = torch.nn.functional.avg_pool1d(log_step[None], 9, 1, 4, count_include_pad=False)[0]
    steps = _interpolate(torch.tensor(b, dtype=torch.float64), torch.tensor(pilot.b, dtype=torch.float64), smooth).exp()
    if moves.transition == "hmc":
        golden = torch.arange(temperatures, dtype=torch.float64) * 0.6180339887498949 % 1  # evenly spread, also over neighbours
        steps = steps * (1 + JITTER * (2 * golden - 1))
    return Path(b, steps.tolist())


def _spaced(schedule: str, temperatures: int) -> list[float]:
    even = torch.linspace(0, 1, temperatures, dtype=torch.float64)
    if schedule != "linear":  # the adaptive one starts from the sigmoidal
        even = torch.sigmoid(SIGMOID * (2 * even - 1))
        even = (even - even[0]) / (even[-1] - even[0])
    return even.tolist()


def _pilot(
    energy: Energy, base: Base, path: Path, moves: Moves, goal: float, tune: bool, key: tuple[int, ...], device
) -> tuple[Path, list[float]]:
    """Chains up the path, `path` with the steps that they were tuned to, and the deviation of E₀ − E at each b."""
    x = base.sample(PILOT_CHAINS, generator=random.seeded(*key, 0)).to(device)
    generator = random.seeded(*key, 1, device=device)
    step, steps, spread = path.step[0], [], []
    for k, b in enumerate(path.b):
        for _ in range(WARM_UP if k == 0 and tune else 1):
            moved, ratio, found = moves(bridge(energy, base, b), x, step, generator)
            # A mean squared jump beyond that between independent draws, 2 Var x, says that trajectories turn back on themselves.
            jump, apart = (moved - x).flatten(1).square().sum(1).mean(), 2 * x.flatten(1).var(0).sum()
            change = min(found - goal, 1 - float(jump / apart))
            if moves.transition == "langevin":  # the mean square of the ratio grows as the sixth power of the step
                change = math.log(goal / max(found, 1e-30)) / 6 if math.isfinite(found) else -1.0
            if tune:
                step *= math.exp(0.5 * max(-1.0, min(1.0, change)))
            kept = torch.as_tensor(ratio, device=x.device).expand(len(x)) > -10  # unadjusted chains may run away while the step is wrong
            x = torch.where(kept.view(-1, *[1] * (x.dim() - 1)), moved, x)
        steps.append(step)
        spread.append(float(difference(energy, base, x).std()))
    return Path(path.b, steps), spread


def _even_spread(b: list[float], spread: list[float], temperatures: int) -> list[float]:
    """Inverse temperatures between which ∫ (deviation of E₀ − E) db is equal: each step then adds the same variance to log w."""
    at, deviation = torch.tensor(b, dtype=torch.float64), torch.tensor(spread, dtype=torch.float64)
    deviation = deviation + 0.05 * torch.trapezoid(deviation, at) + 1e-12  # a floor, for what the pilot did not see
    length = torch.cat([torch.zeros(1), torch.cumulative_trapezoid(deviation, at)])
    even = torch.linspace(0, 1, temperatures, dtype=torch.float64)
    return [0.0, *_interpolate(even * length[-1], length, at).tolist()[1:-1], 1.0]


def _interpolate(at: Tensor, x: Tensor, y: Tensor) -> Tensor:
    """The piecewise linear function through (x, y), x rising, at points between x[0] and x[-1]."""
    right = torch.searchsorted(x, at).clamp(1, len(x) - 1)
    share = ((at - x[right - 1]) / (x[right] - x[right - 1])).clamp(0, 1)
    return y[right - 1] + share * (y[right] - y[right - 1])
