"""Noise schedules: how x_t = ᾱ_t x₀ + σ̄_t ε mixes data and noise at level t, and the Gaussian steps between levels.

A schedule is a frozen table over levels t = 0 … T. Four constructors fill it: `linear_beta` (DDPM; EGC), `vp`
(DDAEBM, eq. 47–48), `cosine_log_snr` (CDRL, ch. 5) and `drl` (Gao et al. 2021). ᾱ is the signal coefficient itself, not its square.
"""

import math
from dataclasses import dataclass, field

import torch
from torch import Tensor

from thalweg import random
from thalweg.errors import InputError

SPACINGS = ("even", "quadratic")  # of the levels that steps stop at


@dataclass(frozen=True)
class Schedule:
    """Signal ᾱ_t and noise σ̄_t for t = 0 … T, as tuples of floats, with ᾱ² + σ̄² = 1 and falling ᾱ."""

    signal: tuple[float, ...]
    noise: tuple[float, ...]
    _tables: dict = field(default_factory=dict, repr=False, compare=False)

    def __post_init__(self) -> None:
        if len(self.signal) != len(self.noise) or len(self.signal) < 2:
            raise ValueError("a schedule needs signal and noise for the same levels, two or more")
        for t, (a, s) in enumerate(zip(self.signal, self.noise)):
            if abs(a * a + s * s - 1) > 1e-6:
                raise ValueError(f"signal² + noise² must be 1 (variance preserving), got {a * a + s * s:.6f} at level {t}")
        if any(later >= earlier for earlier, later in zip(self.signal, self.signal[1:])):
            raise ValueError("the signal must fall with the level")

    @property
    def levels(self) -> int:
        """T, the last level."""
        return len(self.signal) - 1

    def _values(self, name: str) -> list[float]:
        steps = [math.nan, *[below / above for above, below in zip(self.signal, self.signal[1:])]]
        match name:
            case "alpha":
                return list(self.signal)
            case "sigma":
                return list(self.noise)
            case "log_snr":
                return [2 * math.log(a / s) if s > 0 else math.inf for a, s in zip(self.signal, self.noise)]
            case "step_alpha":
                return steps
            case _:
                return [1 - step * step for step in steps]

    def _at(self, name: str, t: Tensor | int, like: Tensor | None) -> Tensor:
        if not isinstance(t, int):  # one level stays a number: a tensor of one as an index would be read back
            t = torch.as_tensor(t, device=None if like is None else like.device)
        device = t.device if isinstance(t, Tensor) else torch.device("cpu") if like is None else like.device
        key = (name, device)
        if key not in self._tables:  # filled once per device, so that a chain never waits for a transfer
            self._tables[key] = torch.tensor(self._values(name), dtype=torch.float64, device=device)
        value = self._tables[key][t].to(torch.float32 if like is None else like.dtype)
        return value if like is None or value.dim() == 0 else value.view(-1, *[1] * (like.dim() - 1))

    def level_below(self, std: float) -> tuple[int, float]:
        """The highest level t < T whose σ̄_t/ᾱ_t is at most `std`, else 0, and the w of ᾱ_t (x + std·ε) = x_t + w ε; 0 within 1 %."""
        ratios = [b / a for a, b in zip(self.signal[:-1], self.noise[:-1])]
        level = max([t for t, ratio in enumerate(ratios) if ratio < 1.01 * std], default=0)
        rest = std**2 - ratios[level] ** 2 if std > 1.01 * ratios[level] else 0.0
        return level, self.signal[level] * math.sqrt(rest)

    def alpha(self, t: Tensor | int, like: Tensor | None = None) -> Tensor:
        """ᾱ_t for levels `t` [B] (or one level), shaped to multiply `like` [B, ...] where given."""
        return self._at("alpha", t, like)

    def sigma(self, t: Tensor | int, like: Tensor | None = None) -> Tensor:
        """σ̄_t, as `alpha`."""
        return self._at("sigma", t, like)

    def log_snr(self, t: Tensor | int, like: Tensor | None = None) -> Tensor:
        """λ_t = log(ᾱ_t²/σ̄_t²), as `alpha`; infinite where σ̄_t = 0."""
        return self._at("log_snr", t, like)

    def step_alpha(self, t: Tensor | int, like: Tensor | None = None) -> Tensor:
        """α_t = ᾱ_t/ᾱ_{t−1} of the step from level t−1 to t (t ≥ 1), as `alpha`."""
        return self._at("step_alpha", t, like)

    def step_variance(self, t: Tensor | int, like: Tensor | None = None) -> Tensor:
        """σ²_t = 1 − α_t² of the step from level t−1 to t (t ≥ 1), as `alpha`."""
        return self._at("step_variance", t, like)

    def steps(self, count: int, spacing: str = "even") -> list[int]:
        """The levels that `count` steps between 0 and T stop at, rising: [count + 1].

        "even": as far apart as each other; "quadratic": t = T (i/count)², or i where that is less, most of them at low noise, as DDIM's
        code may skip levels (Song et al. 2021). Raises InputError for another spacing, ValueError for fewer steps than 1 or more than T.
        """
        if spacing not in SPACINGS:
            raise InputError(f"the spacing of steps is 'even' or 'quadratic', got '{spacing}'")
        if not 1 <= count <= self.levels:
            raise ValueError(f"steps must be between 1 and the schedule's {self.levels}, got {count}")
        if spacing == "even":
            return [round(self.levels * i / count) for i in range(count + 1)]
        return [max(i, round(self.levels * (i / count) ** 2)) for i in range(count + 1)]

    def ratio(self, t: int) -> float:
        """σ̄_t/ᾱ_t, the standard deviation of the noise of x_t/ᾱ_t = x₀ + (σ̄_t/ᾱ_t) ε."""
        return self.noise[t] / self.signal[t]

    def nearest(self, ratio: float) -> int:
        """The level t ≥ 1 whose σ̄_t/ᾱ_t is nearest to `ratio` > 0 in its logarithm."""
        return min(range(1, self.levels + 1), key=lambda t: abs(math.log(self.ratio(t) / ratio)))

    def sample_level(self, n: int, low: int = 1, *, generator: random.Generator = None, device=None) -> Tensor:
        """Uniform levels in {low, …, T}, [n] int64."""
        return random.integers(n, low, self.levels + 1, generator=generator, device=device)

    def diffuse(self, x0: Tensor, t: Tensor | int, noise: Tensor) -> Tensor:
        """x_t = ᾱ_t x₀ + σ̄_t ε: a draw of q(x_t | x₀) for standard normal `noise` shaped like `x0`."""
        return self.alpha(t, x0) * x0 + self.sigma(t, x0) * noise

    def pair(self, x0: Tensor, t: Tensor, noise: Tensor, step_noise: Tensor | None = None) -> tuple[Tensor, Tensor]:
        """(y_t, x_{t+1}) for recovery likelihood, y_t = α_{t+1} x_t (thesis, Algorithm 4; eq. 5.7 misprints its second line).

        Both share one `noise`, which lowers the variance of the gradient; with `step_noise` the pair is the Markov one,
        x_{t+1} = y_t + σ_{t+1} ε′. At the top level x_{t+1} counts as pure noise and α is set to 1, so y_t = x_t.
        """
        below = self.diffuse(x0, t, noise)
        top = (t == self.levels - 1).view(-1, *[1] * (x0.dim() - 1))
        alpha = self.step_alpha(t + 1, x0).masked_fill(top, 1.0)
        if step_noise is None:
            return alpha * below, self.diffuse(x0, t + 1, noise)
        return alpha * below, self.step_alpha(t + 1, x0) * below + self.step_variance(t + 1, x0).sqrt() * step_noise

    def posterior(self, x0: Tensor, x_t: Tensor, t: Tensor | int, s: Tensor | int) -> tuple[Tensor, Tensor]:
        """Mean and standard deviation of q(x_s | x_t, x₀) for s < t (DDPM; EGC eq. 7 with its second coefficient √α_t)."""
        a_t, a_s, n_t, n_s = self.alpha(t, x_t), self.alpha(s, x_t), self.sigma(t, x_t), self.sigma(s, x_t)
        alpha = a_t / a_s  # of the step s → t
        variance = (n_t.square() - alpha.square() * n_s.square()).clamp_min(0)  # 1 − α², without its cancellation in fp32
        mean = (a_s * variance * x0 + alpha * n_s.square() * x_t) / n_t.square()
        return mean, n_s / n_t * variance.sqrt()


def _from_squared_signal(squared: list[float]) -> Schedule:
    return Schedule(tuple(math.sqrt(a) for a in squared), tuple(math.sqrt(max(0.0, 1 - a)) for a in squared))


def linear_beta(levels: int = 1000, start: float = 1e-4, stop: float = 0.02) -> Schedule:
    """DDPM's schedule: β_t from `start` to `stop` in `levels` equal steps; level 0 is clean data (σ̄_0 = 0)."""
    squared = [1.0]
    for t in range(levels):
        squared.append(squared[-1] * (1 - (start + (stop - start) * t / max(1, levels - 1))))
    return _from_squared_signal(squared)


def vp_times(levels: int = 4, first_time: float = 1e-3, spacing: str = "even") -> list[float]:
    """The times t' of `vp`, T + 1 from `first_time` to 1: "even", or with "drl" most of them in the first half (DDAEBM, B.1, LSUN church).

    The latter are t ⌊500/(T − 1)⌋/999 for t < T. Raises InputError for another spacing, a `first_time` outside [0, 1) and, with
    "drl", T below 2 or above 501.
    """
    if not 0 <= first_time < 1:
        raise InputError(f"the time of level 0 is in [0, 1), got {first_time}")
    if spacing not in ("even", "drl"):
        raise InputError(f"the spacing of levels is 'even' or 'drl', got '{spacing}'")
    if spacing == "even":
        shares = [t / levels for t in range(levels)]
    else:
        if not 2 <= levels <= 501:
            raise InputError(f"levels spaced as in DRL are 2 to 501, got {levels}")
        shares = [t * (500 // (levels - 1)) / 999 for t in range(levels)]
    return [first_time + (1 - first_time) * share for share in (*shares, 1.0)]


def vp(levels: int = 4, beta_min: float = 0.1, beta_max: float = 20.0, first_time: float = 1e-3, spacing: str = "even") -> Schedule:
    """The variance-preserving SDE at the times t' of `vp_times` (DDAEBM, eq. 47–48): ᾱ² = exp(−β_min t' − ½(β_max − β_min) t'²).

    `first_time` > 0 keeps σ̄_0 above 0.
    """
    times = vp_times(levels, first_time, spacing)
    return _from_squared_signal([math.exp(-beta_min * u - 0.5 * (beta_max - beta_min) * u * u) for u in times])


def cosine_log_snr(levels: int = 6, log_snr_max: float = 9.8, log_snr_min: float = -5.1) -> Schedule:
    """CDRL's schedule (thesis, ch. 5): λ_t = −2 log tan(a t/T + b) with λ_0 and λ_T as given, log SNR = log(ᾱ²/σ̄²)."""
    b = math.atan(math.exp(-log_snr_max / 2))
    a = math.atan(math.exp(-log_snr_min / 2)) - b
    angles = [a * t / levels + b for t in range(levels + 1)]  # ᾱ = cos, σ̄ = sin of this angle
    return Schedule(tuple(math.cos(u) for u in angles), tuple(math.sin(u) for u in angles))


def drl(levels: int = 6) -> Schedule:
    """DRL's schedule (Gao et al. 2021): levels of DDPM's first half, 1, 101, …, 501 of 1000 steps for T = 6, and the last step at T.

    Above 6, levels are added evenly between step 501 and the last (T = 8: the row "DRL-T8" of the thesis' Table 5.9). Raises
    ValueError for fewer than 2.
    """
    if levels < 2:
        raise ValueError(f"DRL's schedule needs 2 levels or more, got {levels}")
    table = linear_beta(1000)
    base = min(levels, 6)
    steps = [1 + t * (500 // (base - 1)) for t in range(base)]
    more = levels - base + 1
    steps += [round(501 + 499 * i / more) for i in range(1, more + 1)]
    return Schedule(tuple(table.signal[t] for t in steps), tuple(table.noise[t] for t in steps))
