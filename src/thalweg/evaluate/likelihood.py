"""Bounds of log Z from both sides by annealed importance sampling (AIS), and log-likelihoods in nats and bits.

AIS walks from a normalised base p₀ to the density p ∝ exp(−E) through E_b = (1 − b) E₀ + b E (Neal 2001). With weights w of
forward chains, E[log w] ≤ log Z; with weights of chains that start at exact draws of p and walk back, E[log w] ≥ log Z
(Grosse, Ghahramani and Adams 2015, arXiv:1511.02543; Burda, Grosse and Salakhutdinov 2015, arXiv:1412.8566).
"""

import math
import warnings
from collections.abc import Callable
from dataclasses import dataclass, replace
from numbers import Integral

import torch
from torch import Tensor

from thalweg import random
from thalweg.distributed import usable
from thalweg.energy import Energy
from thalweg.errors import InputError, nearest
from thalweg.evaluate.annealing import SCHEDULES, TRANSITIONS, Moves, anneal, difference, tuned_path
from thalweg.evaluate.bases import Base
from thalweg.given import Examples, takes

BOOTSTRAP = 1000  # resamples for the interval of a log-mean-exp
RAYS = 64  # directions in which log Z is looked at far out
LOOSE_GAP, LOOSE_ESS, LOOSE_VARIANCE = 1.0, 0.05, 2.0  # nats; share; nats² (for a normal log w the bound is variance/2 away)


@dataclass(frozen=True)
class Bound:
    """A figure with its standard error and its 95 % interval [low, high], all in the unit of the figure."""

    value: float
    standard_error: float
    low: float
    high: float


@dataclass(frozen=True)
class LogPartition:
    """log Z in nats between a lower and an upper bound; what follows `_reverse` is None without samples.

    `lower`, `upper`: the means of log w over forward and over reverse chains. They bound log Z in expectation, however badly
    the chains mix; each end of their 95 % intervals (value ± 1.96 standard errors) adds the sampling error of the mean, so
    that log Z ≥ `lower.low` and log Z ≤ `upper.high` hold with about 97.5 % each. `upper` is a bound only if the samples are
    exact draws of the density; chains that started elsewhere and have not mixed make it meaningless.
    `estimate`: log of the mean of w, consistent, with its bootstrapped interval; it is a lower bound in expectation too, and
    above log Z by more than c nats with a probability of at most exp(−c) (Markov). `estimate_reverse`: −log of the mean of
    1/w over reverse chains, from above. The intervals know only what the chains saw: a mode that no forward chain finds
    shows in the gap alone.
    `gap`: upper − lower, nats. `ess`: the effective share of the weights (Σw)²/(n Σw²) in (0, 1]; `variance` that of log w,
    nats². `acceptance`: accepted share of the moves in [0, 1], None for Langevin. `loose`: a gap above 1 nat, an `ess` below
    0.05, a `variance` above 2 nats², or bounds that contradict each other; then a warning was given too.
    """

    lower: Bound
    upper: Bound | None
    estimate: Bound
    estimate_reverse: Bound | None
    gap: float | None
    ess: float
    ess_reverse: float | None
    variance: float
    variance_reverse: float | None
    acceptance: float | None
    acceptance_reverse: float | None
    chains: int
    chains_reverse: int
    temperatures: int
    transition: str
    loose: bool


@dataclass(frozen=True)
class LogLikelihood:
    """Mean log-likelihood of `n` examples of `dimensions` values, nats an example, and bits a dimension.

    `value` uses the estimate of log Z (`exact`: its true value); `lower` and `upper` use its bounds, in expectation over the
    chains; None where there is none. Standard errors and 95 % intervals hold the spread of the examples and that of log Z.
    `bits_per_dimension` (lower is better) is `value` in bits, of the density or, with `bin_width`, of discrete values.
    """

    value: Bound
    lower: Bound | None
    upper: Bound | None
    bits_per_dimension: float
    bin_width: float | None
    exact: bool
    n: int
    dimensions: int


@takes
def log_partition(
    energy: Energy,
    base: Base,
    *,
    samples: Examples | None = None,
    chains: int = 128,
    temperatures: int = 1000,
    transition: str = "hmc",
    steps: int = 1,
    leapfrog: int = 5,
    step: float | None = None,
    schedule: str = "adaptive",
    batch: int | None = None,
    seed: int = 0,
    device: str | torch.device = "cpu",
) -> LogPartition:
    """log Z = log ∫ exp(−E(x)) dx of an energy in nats, bounded by forward AIS and, given `samples`, by reverse AIS.

    energy: (x [B, ...]) -> [B] nats. base: normalised, with `sample(n, generator=...)` -> [n, ...] and `log_prob(x)` -> [B],
    and as wide as the density (`Gaussian`, `fitted_base`). samples: exact draws of the density [M, ...], of which `chains` at
    random are used; approximate ones give an approximate `upper`. `temperatures` ≥ 2, both ends counted (2 is plain
    importance sampling), spaced by `schedule` ("adaptive", "sigmoidal", "linear"). At each between, `steps` moves of
    `transition`: "hmc" of `leapfrog` steps, "mala", or "langevin", whose weights hold the ratio of transition densities and
    so are exact too. The step is tuned on 64 chains of other seeds, then frozen, unless given. `batch` chains at a time (all).
    Warns where the bounds are loose (`LogPartition.loose`). Raises InputError on wrong shapes, values or energies that are
    not finite, and where log Z is infinite (exp(−E) falls too slowly far out), Diverged where chains run away.
    """
    for name, value, known in (("transition", transition, TRANSITIONS), ("schedule", schedule, SCHEDULES)):
        if value not in known:
            raise InputError(f"log_partition: no {name} '{value}', there are {', '.join(known)}{nearest(str(value), known)}")
    counts = (("chains", chains, 2), ("temperatures", temperatures, 2), ("steps", steps, 1), ("leapfrog", leapfrog, 1))
    for name, value, least in (*counts, ("batch", chains if batch is None else batch, 1)):
        if not isinstance(value, Integral) or value < least:
            raise InputError(f"log_partition: {name} is {value!r}, need a whole number, {least} or more")
    if step is not None and not (math.isfinite(step) and step > 0):
        raise InputError(f"log_partition: step is {step!r}, need a positive number")
    device = usable(device)
    first = base.sample(2, generator=random.seeded(seed, 0)).to(device)
    difference(energy, base, first)
    if samples is not None:
        if samples.dim() < 1 or len(samples) < 2 or samples.shape[1:] != first.shape[1:]:
            raise InputError(f"samples: got shape {list(samples.shape)}, need [M, {', '.join(map(str, first.shape[1:]))}] with M ≥ 2")
        if not samples.isfinite().all():
            raise InputError("samples: NaN or infinite values, need finite ones")

    _check_confined(energy, first, base, min(RAYS, batch or RAYS), seed)
    moves = Moves(transition, steps, leapfrog)
    path = tuned_path(energy, base, moves, temperatures=temperatures, schedule=schedule, step=step, seed=seed, device=device)

    def run(start: Callable[[int, int], Tensor], count: int, direction: int) -> tuple[Tensor, float]:
        found, sizes = [], [min(batch or count, count - done) for done in range(0, count, batch or count)]
        for i, size in enumerate(sizes):
            x = start(i, size).to(device=device, dtype=first.dtype)
            found.append(anneal(energy, base, x, path, moves, random.seeded(seed, 3, direction, i, device=device), reverse=direction == 1))
        return torch.cat([log_w for log_w, _ in found]), sum(share * size for (_, share), size in zip(found, sizes)) / count

    log_w, share = run(lambda i, n: base.sample(n, generator=random.seeded(seed, 4, i)), chains, 0)
    down, share_down = None, None
    if samples is not None:
        count = min(chains, len(samples))
        picked = samples.detach()[random.rows(count, len(samples), generator=random.seeded(seed, 5)).to(samples.device)]
        down, share_down = run(lambda i, n: picked[i * (batch or 0) :][:n], count, 1)

    moved = transition != "langevin" and temperatures > 2
    lower, upper = _mean(log_w), None if down is None else _mean(down)
    report = LogPartition(
        lower=lower,
        upper=upper,
        estimate=_log_mean_exp(log_w, seed),
        estimate_reverse=None if down is None else _negative(_log_mean_exp(-down, seed)),
        gap=None if upper is None else upper.value - lower.value,
        ess=effective_share(log_w),
        ess_reverse=None if down is None else effective_share(-down),
        variance=float(log_w.var()),
        variance_reverse=None if down is None else float(down.var()),
        acceptance=share if moved else None,
        acceptance_reverse=share_down if moved else None,
        chains=chains,
        chains_reverse=0 if down is None else len(down),
        temperatures=temperatures,
        transition=transition,
        loose=False,
    )
    reasons = _reasons(report)
    if reasons:
        remedy = "use more temperatures, steps or chains, or a base nearer to the density"
        warnings.warn(f"log_partition: the bounds are loose: {'; '.join(reasons)}; {remedy}", stacklevel=3)
    return replace(report, loose=bool(reasons))


def _check_confined(energy: Energy, first: Tensor, base: Base, rays: int, seed: int) -> None:
    """Raises InputError where exp(−E) falls too slowly far out to have an integral.

    Along a ray r·u, ∫ exp(−E) r^(D−1) dr is finite only if E grows faster than D log r: by more than D log 10 between r = 10³ and 10⁴
    times where the base draws, here by a hundredth of a nat. An energy that is not defined there, or infinite, is left to the
    chains, and one that leaves single directions free among all rays is not found.
    """
    directions = base.sample(rays, generator=random.seeded(seed, 6)).to(first)
    growth = []
    try:
        with torch.no_grad():
            for r in (1e3, 1e4):
                growth.append(energy((r * directions).requires_grad_(True)).double())  # as a chain's points, which no gate measures
    except (InputError, RuntimeError, ValueError):
        return
    if any(value.shape != (rays,) for value in growth):
        return
    short = growth[1] - growth[0] <= first[0].numel() * math.log(10) + 0.01  # NaN and infinity are no proof
    if bool(short.any()):
        raise InputError(
            f"log_partition: log Z is infinite: far out the energy falls, or grows too slowly, along {int(short.sum())} of {rays} rays; "
            "a density needs an energy that confines, for example with a Gaussian reference (reference_std)"
        )


def _reasons(report: LogPartition) -> list[str]:
    """Why the bounds of a report are not to be trusted or not tight; empty where they are."""
    reasons = []
    if report.gap is not None and report.gap > LOOSE_GAP:
        reasons.append(f"a gap of {report.gap:.3g} nats, above {LOOSE_GAP:g}")
    if report.upper is not None and report.upper.high < report.lower.low:
        reasons.append(f"upper {report.upper.value:.5g} below lower {report.lower.value:.5g}, so the samples are not draws of this energy")
    for way, ess, variance in (("forward", report.ess, report.variance), ("reverse", report.ess_reverse, report.variance_reverse)):
        if ess is not None and ess < LOOSE_ESS:
            reasons.append(f"an effective share of {ess:.2g} of the {way} weights, below {LOOSE_ESS:g}")
        if variance is not None and variance > LOOSE_VARIANCE:
            reasons.append(f"a variance of {variance:.3g} nats² of the {way} log-weights, above {LOOSE_VARIANCE:g}")
    return reasons


def effective_share(log_w: Tensor) -> float:
    """Effective sample size of weights over their number, (Σw)²/(n Σw²), from log w [n]; in [1/n, 1] (Kong 1992)."""
    log_w = log_w.double()
    return math.exp(float(2 * torch.logsumexp(log_w, 0) - torch.logsumexp(2 * log_w, 0))) / len(log_w)


def _figure(value: float, error: float) -> Bound:
    return Bound(value, error, value - 1.959963984540054 * error, value + 1.959963984540054 * error)


def _mean(values: Tensor) -> Bound:
    return _figure(float(values.mean()), float(values.std()) / math.sqrt(len(values)))


def _log_mean_exp(values: Tensor, seed: int) -> Bound:
    """The log of the mean of exp(values [n]), its error and percentile interval by the bootstrap."""
    generator, n = random.seeded(seed, 6), len(values)
    drawn = [torch.logsumexp(values[random.integers(n, 0, n, generator=generator)], 0) for _ in range(BOOTSTRAP)]
    drawn = torch.stack(drawn) - math.log(n)
    low, high = torch.quantile(drawn, torch.tensor([0.025, 0.975], dtype=drawn.dtype)).tolist()
    return Bound(float(torch.logsumexp(values, 0)) - math.log(n), float(drawn.std()), low, high)


def _negative(bound: Bound) -> Bound:
    return Bound(-bound.value, bound.standard_error, -bound.high, -bound.low)


@takes
def log_likelihood(
    energy: Energy,
    x: Examples,
    log_z: LogPartition | float | None = None,
    *,
    bin_width: float | None = None,
    batch: int = 512,
    device: str | torch.device = "cpu",
) -> LogLikelihood:
    """Mean log-likelihood −E(x) − log Z of x [N, ...], N ≥ 2, in nats, with bounds from those of log Z, and in bits a dimension.

    log_z: a `LogPartition`, the true value, or None where the energy has an attribute `log_z` (`FlowEnergy`). `bin_width`: see
    `bits_per_dimension`. Raises InputError on energies or examples that are not finite.
    """
    if x.dim() < 2 or len(x) < 2 or not x.isfinite().all():
        raise InputError(f"log_likelihood: got x of shape {list(x.shape)}, need finite [N, ...] with N ≥ 2")
    if log_z is None and not hasattr(energy, "log_z"):
        raise InputError("log_likelihood: the energy has no log_z of its own; give one, for example from log_partition")
    log_z = energy.log_z if log_z is None else log_z
    found = []
    for part in x.split(batch):
        with torch.no_grad():
            value = energy(part.to(device))
        if value.shape != (len(part),) or not value.isfinite().all():
            raise InputError(f"energy: got shape {list(value.shape)} or values not finite for {len(part)} examples, need [{len(part)}]")
        found.append(-value.double().cpu())
    mean = _mean(torch.cat(found))

    def less(other: Bound | None) -> Bound | None:
        return None if other is None else _figure(mean.value - other.value, math.hypot(mean.standard_error, other.standard_error))

    bounded = isinstance(log_z, LogPartition)
    if bounded and not all(math.isfinite(b.value) for b in (log_z.estimate, log_z.lower, log_z.upper) if b is not None):
        raise InputError("log_likelihood: log_z or one of its bounds is infinite or NaN, so that the energy has no normalised density")
    if not bounded and not math.isfinite(log_z):
        raise InputError(f"log_likelihood: log_z is {log_z!r}, need a finite number of nats")
    value = less(log_z.estimate if bounded else _figure(float(log_z), 0.0))
    return LogLikelihood(
        value=value,
        lower=less(log_z.upper) if bounded else None,
        upper=less(log_z.lower) if bounded else None,
        bits_per_dimension=bits_per_dimension(value.value, x[0].numel(), bin_width),
        bin_width=bin_width,
        exact=not bounded,
        n=len(x),
        dimensions=x[0].numel(),
    )


def bits_per_dimension(nats: float, dimensions: int, bin_width: float | None = None) -> float:
    """Bits a dimension, lower is better, of a log-likelihood in nats an example of `dimensions` values.

    Without `bin_width` those of the density, −nats/(D ln 2), which depend on the scale of x and may be negative. With it
    those of discrete values, each bin holding density × width: −nats/(D ln 2) − log₂ width. For 8-bit images in [−1, 1] the
    width is 2/256 where v + u, u ~ U[0, 1), became 2(v + u)/256 − 1, and 2/255 where v became 2v/255 − 1 and the noise spans
    one level. It bounds the discrete likelihood only for x with that uniform noise (Theis et al. 2016, arXiv:1511.01844, 3.1).
    """
    if dimensions < 1 or (bin_width is not None and not (math.isfinite(bin_width) and bin_width > 0)):
        raise InputError(f"bits_per_dimension: got {dimensions} dimensions and a bin width of {bin_width!r}, need both above 0")
    return -nats / (dimensions * math.log(2)) - (0.0 if bin_width is None else math.log2(bin_width))
