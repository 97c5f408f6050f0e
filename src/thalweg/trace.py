"""What every sampler shares: knobs that may change from step to step, a record of a chain, and one look at its end."""

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

import torch
from torch import Tensor

from thalweg.errors import Diverged

Knob = float | Sequence[float] | Callable[[int], float]


@dataclass
class Trace:
    """What a chain passed through, for those who ask: `langevin(..., trace=Trace(keep=16))`.

    `keep` states at most, evenly spaced, on the CPU whatever the chain's length: `states` [≤ keep, B, ...] and their step
    numbers `at`. `acceptance` [B] is the accepted share of each MALA or HMC chain, `displacement` [B] the distance from the
    start to the end, per square root of the dimension.
    """

    keep: int = 0
    at: list[int] = field(default_factory=list)
    _states: list[Tensor] = field(default_factory=list, repr=False)
    acceptance: Tensor | None = None
    displacement: Tensor | None = None

    @property
    def states(self) -> Tensor:
        return torch.stack(self._states)

    def record(self, step: int, steps: int, x: Tensor) -> None:
        """Keep x as the state after `step` of `steps` if that is one of the evenly spaced ones."""
        if not self.keep:
            return
        slot = (step * (self.keep - 1)) // max(1, steps)  # of `keep` evenly spaced ones; a step that enters a new slot is kept
        if step == 0 or slot > ((step - 1) * (self.keep - 1)) // max(1, steps):
            self.at.append(step)
            self._states.append(x.detach().to("cpu", torch.float32, copy=True))

    def close(self, start: Tensor, x: Tensor, accepted: Tensor | None = None) -> None:
        self.acceptance = accepted
        self.displacement = (x - start).flatten(1).norm(dim=1) / math.sqrt(x[0].numel())


def knob(value: Knob, i: int) -> float:
    return value(i) if callable(value) else value[i] if isinstance(value, Sequence) else value


def checked(x: Tensor, sampler: str) -> Tensor:
    """One look at the end of a chain, so that a NaN is noticed where it arose and not three losses later."""
    if not bool(torch.isfinite(x).all()):
        bad = int((~torch.isfinite(x.flatten(1)).all(1)).sum())
        raise Diverged(f"{sampler}: {bad} of {len(x)} chains ended with NaN or infinite values; lower the step or check the energy")
    return x
