"""Noise levels of recovery likelihood: schedules as specs of a config, and the constants of each level as tables."""

import math
from typing import Annotated, Literal

import torch
from pydantic import Field
from pydantic.dataclasses import dataclass
from torch import Tensor, nn

from thalweg import noise, random
from thalweg.chain import Jump
from thalweg.config import STRICT
from thalweg.energy import gaussian
from thalweg.errors import InputError


@dataclass(frozen=True, config=STRICT)
class CosineLevels:
    """CDRL's schedule: log SNR λ_t = −2 log tan(a t/T + b) (thesis, sec. 5.4.8)."""

    kind: Literal["cosine_log_snr"] = "cosine_log_snr"
    log_snr_max: float = 9.8
    """λ_max, at level 0"""
    log_snr_min: float = -5.1
    """λ_min, at level T"""

    def build(self, levels: int) -> noise.Schedule:
        if not self.log_snr_max > self.log_snr_min:
            raise InputError(f"log_snr_max must be above log_snr_min, got {self.log_snr_max} and {self.log_snr_min}")
        return noise.cosine_log_snr(levels, self.log_snr_max, self.log_snr_min)


@dataclass(frozen=True, config=STRICT)
class DRLLevels:
    """DRL's schedule, whose levels beyond 6 are put where the noise is high (thesis, Table 5.9)."""

    kind: Literal["drl"] = "drl"

    def build(self, levels: int) -> noise.Schedule:
        return noise.drl(levels)


# what a config's field may say
LevelSchedule = Annotated[CosineLevels | DRLLevels, Field(discriminator="kind")]


class LevelTable(nn.Module):
    """The constants of the levels t = 0 … T−1, each a buffer [T], so that a chain finds them on its device.

    `step_coefficient` is b in s_t² = b σ̄_t σ²_{t+1}, `data_std` s the root mean square of the data's entries, 0 where no reference
    Gaussian is wanted, and `weight_power` k in the weights (σ_1/σ_{t+1})^k. At the top level x_T counts as pure noise.
    """

    alpha: Tensor  # α_{t+1}, 1 at the top
    pull: Tensor  # 1/σ²_{t+1} of the quadratic term, 0 at the top
    step: Tensor  # s_t (eq. 5.14)
    proposal_std: Tensor  # α_{t+1} σ̃_t (eq. 5.4)
    sigma: Tensor  # σ̄_t
    std: Tensor  # of y_t if the data were N(0, s² I), 1 without s
    ratio: Tensor  # ᾱ_t s/σ̄_t, of the spread of data to that of noise
    guess: Tensor  # times x_{t+1} the best linear guess of y_t if the data were N(0, s² I), N(0, I) without s
    x0_share: Tensor  # what x_0 counts for in the mean of q(y_t | x_{t+1}, x_0)
    noise_share: Tensor  # of the noise in the standard deviation of y_t
    weight: Tensor  # of the level in the energy's loss

    def __init__(self, schedule: noise.Schedule, *, step_coefficient: float, data_std: float, weight_power: float) -> None:
        super().__init__()
        signal, sigma, s, levels = schedule.signal, schedule.noise, data_std, range(schedule.levels)
        fall = [signal[t + 1] / signal[t] for t in levels]
        variance = [1 - a**2 for a in fall]  # σ²_{t+1}
        alpha = [*fall[:-1], 1.0]
        spread = [sigma[t] / sigma[t + 1] * math.sqrt(variance[t]) for t in levels]  # σ̃_t
        data = [(signal[t] * (s or 1.0)) ** 2 + sigma[t] ** 2 for t in range(schedule.levels + 1)]  # variance of x_t
        tables = {
            "alpha": alpha,
            "pull": [*(1 / v for v in variance[:-1]), 0.0],
            "step": [math.sqrt(step_coefficient * sigma[t] * variance[t]) for t in levels],
            "proposal_std": [alpha[t] * spread[t] for t in levels],
            "sigma": sigma[:-1],
            "std": [alpha[t] ** 2 * (signal[t] ** 2 * s**2 + sigma[t] ** 2) if s else 1.0 for t in levels],
            "ratio": [signal[t] * s / sigma[t] for t in levels],
            "guess": [alpha[t] * fall[t] * data[t] / data[t + 1] for t in levels],
            "x0_share": [alpha[t] * signal[t] * variance[t] / sigma[t + 1] ** 2 for t in levels],
            "noise_share": [sigma[t] / math.hypot(signal[t] * s, sigma[t]) for t in levels],
            "weight": [math.sqrt(variance[0] / variance[t]) ** weight_power for t in levels],
        }
        for name, values in tables.items():
            self.register_buffer(name, torch.tensor(values, dtype=torch.float32), persistent=False)
        self.std.sqrt_()

    def jump(self, x_next: Tensor, t: Tensor, unit: Tensor, generator: random.Generator) -> Jump:
        """Jumps by the quadratic term's own Gaussian, in the coordinate y/unit: the weights of modes that MALA cannot cross between (ours).

        x_{t+1} and `unit` [B, ...], levels t [B]; from N(0, I) at the top, where there is no such term.
        """
        pull = self.pull[t].view(-1, *[1] * (x_next.dim() - 1))
        centre = torch.where(pull > 0, x_next, 0.0) / unit
        width = torch.where(pull > 0, pull, 1.0).rsqrt() / unit
        return Jump(lambda n: centre + width * random.normal_like(centre, generator), lambda z: gaussian((z - centre) / width))
