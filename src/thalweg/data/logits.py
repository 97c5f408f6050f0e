"""Images as logits: a map from the box of grey values to all of space, where densities need no borders."""

import math
from dataclasses import dataclass

from torch import Tensor

from thalweg.errors import InputError

MARGIN = 1e-6  # of the unit interval, where logits end


@dataclass(frozen=True)
class LogitTransform:
    """Images x in [−1, 1] with `grey_values` values as unbounded y, as NICE is trained on images (Grathwohl et al. 2021).

    Noise spreads each grey value evenly over a bin of its own, the bins fill the unit interval, and y is the logit of that. The margin of
    1e-6 that keeps y finite is ours: it bounds y to ±13.8. Raises InputError for fewer than 2 grey values.
    """

    grey_values: int

    def __post_init__(self) -> None:
        if self.grey_values < 2:
            raise InputError(f"images have 2 grey values or more, got grey_values = {self.grey_values}")

    @property
    def _squeeze(self) -> float:
        """What takes x within ±(1 + 1/(`grey_values` − 1)) into (−1, 1)."""
        return (1 - 1 / self.grey_values) * (1 - 2 * MARGIN)

    def dequantise(self, x: Tensor, noise: Tensor) -> Tensor:
        """x spread over the bins of its grey values by `noise` in [0, 1), shaped like x."""
        return x + (noise - 0.5) * 2 / (self.grey_values - 1)

    def encode(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """Logits y [B, ...] of images x within ±(1 + 1/(`grey_values` − 1)), and log|det ∂y/∂x| in nats [B]."""
        lower, upper = (0.5 * (1 + sign * self._squeeze * x) for sign in (1, -1))
        log_lower, log_upper = lower.clamp_min(MARGIN).log(), upper.clamp_min(MARGIN).log()
        log_slope = math.log(self._squeeze / 2) - log_lower - log_upper
        return log_lower - log_upper, log_slope.flatten(1).sum(1)

    def decode(self, y: Tensor) -> Tensor:
        """The inverse of `encode`; dequantisation is still in it, so that x may lie beyond ±1 by 1/(`grey_values` − 1)."""
        return (0.5 * y).tanh() / self._squeeze
