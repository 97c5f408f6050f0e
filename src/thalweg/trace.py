"""What every sampler shares: knobs that may change from step to step, a record of a chain, and one look at its end."""

import math
import warnings
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

import torch
from torch import Tensor

from thalweg.errors import Diverged, InputError

Knob = float | Sequence[float] | Callable[[int], float]


@dataclass
class Trace:
    """What a chain passed through, for those who ask: `langevin(..., trace=Trace(keep=16))`.

    `keep` states at most, evenly spaced from the start to the end (1: the end), on the CPU whatever the chain's length: `states`
    [≤ keep, B, ...] and their step numbers `at`; a chain that is given a trace again begins it anew. `acceptance` [B] is the accepted
    share of each MALA or HMC chain, `displacement` [B] the distance from the start to the end, per square root of the dimension. With
    `average`, `mean` [B, ...] is that of the states after the second half of the steps.
    """

    keep: int = 0
    average: bool = False
    at: list[int] = field(default_factory=list)
    _states: list[Tensor] = field(default_factory=list, repr=False)
    acceptance: Tensor | None = None
    displacement: Tensor | None = None
    mean: Tensor | None = None

    @property
    def states(self) -> Tensor:
        return torch.stack(self._states)

    def record(self, step: int, steps: int, x: Tensor) -> None:
        """Keep x as the state after `step` of `steps` if that is one of the evenly spaced ones, and take it into the mean."""
        if self.average and (after := step - steps // 2) > 0:
            self.mean = x if after == 1 or self.mean is None else self.mean.lerp(x, 1 / after)
        if not self.keep:
            return
        if step == 0:
            self.at.clear()
            self._states.clear()
        if self.keep == 1:
            wanted = step == steps
        else:  # a step that enters a new slot of `keep` evenly spaced ones is kept
            wanted = step == 0 or (step * (self.keep - 1)) // max(1, steps) > ((step - 1) * (self.keep - 1)) // max(1, steps)
        if wanted:
            self.at.append(step)
            self._states.append(x.detach().to("cpu", torch.float32, copy=True))

    def close(self, start: Tensor, x: Tensor, accepted: Tensor | None = None) -> None:
        self.acceptance = accepted
        self.displacement = (x - start).flatten(1).norm(dim=1) / math.sqrt(x[0].numel())

    def figures(self, data: Tensor, samples: Tensor) -> dict[str, Tensor]:
        """What stats.jsonl says of the chains of a training step that ended at `samples`, next to the step's `data`, both [B, ...].

        The mean `displacement`, and of images of 3 pixels or more a side the `roughness` of samples as a multiple of the data's: near 1
        where samples are as smooth as data, above it for salt and pepper, below it for silhouettes.
        """
        found = {} if self.displacement is None else {"displacement": self.displacement}
        if samples.dim() == 4 and min(samples.shape[2:]) >= 3:
            found["roughness"] = roughness(samples).mean() / roughness(data).mean().clamp_min(1e-6)
        return found


def roughness(x: Tensor) -> Tensor:
    """The mean absolute Laplacian of images [B, C, H, W] of 3 pixels or more a side, [B]: how far pixels are from their neighbours' mean.

    In grey values times 4, over the pixels that have four neighbours.
    """
    x = x.detach().float()
    around = x[..., :-2, 1:-1] + x[..., 2:, 1:-1] + x[..., 1:-1, :-2] + x[..., 1:-1, 2:]
    return (around - 4 * x[..., 1:-1, 1:-1]).abs().flatten(1).mean(1)


def knobs(name: str, value: Knob | Tensor, steps: int, *, least: float = 0.0, above: bool = True) -> list[float]:
    """A knob's number at each step, from one number, one a step, or a function of the step's index.

    InputError for a count of steps below 0, numbers that are not finite or not above `least` (at or above it without `above`), and too few.
    """
    if isinstance(steps, bool) or int(steps) != steps or steps < 0:
        raise InputError(f"steps must be a whole number, 0 or more, got {steps}")
    if callable(value):
        found = [float(value(i)) for i in range(steps)]
    elif not isinstance(value, int | float) and getattr(value, "ndim", 1) > 0:
        found = [float(v) for v in value][:steps]  # type: ignore[union-attr]  # a sequence, a tensor or an array
        if len(found) < steps:
            raise InputError(f"{name} has {len(found)} numbers for {steps} steps; give one a step")
    else:
        found = [float(value)] * steps  # type: ignore[arg-type]  # a number, of Python, NumPy or a tensor
    for number in found[:1] if len(set(found)) == 1 else found:
        if not (math.isfinite(number) and (number > least if above else number >= least)):
            raise InputError(f"{name} must be finite and {'above' if above else 'at least'} {least:g}, got {number:g}")
    return found


def begun(x: Tensor) -> Tensor:
    """Where a chain begins, detached; InputError unless it is floating-point [B, ...]."""
    if not (isinstance(x, Tensor) and x.dim() and x.is_floating_point()):
        got = f"{str(x.dtype).removeprefix('torch.')} {list(x.shape)}" if isinstance(x, Tensor) else type(x).__name__
        raise InputError(f"a chain begins at a floating-point tensor [B, ...], got {got}")
    return x.detach()


def ended(x: Tensor, sampler: str, first: Tensor | None = None, last: Tensor | None = None) -> Tensor:
    """One look at a chain when it has ended, so that trouble is noticed where it arose and not three losses later.

    `first` and `last` [B]: energies where it began and where it was last known. Diverged for a start of no density, NaN energies, states
    that are not finite, and chains that have left the support: in training all of these are signs of an energy that ran away.
    """
    flags = [x.isfinite().all()] + [e.isfinite().all() for e in (first, last) if e is not None]
    if bool(torch.stack(flags).all()):
        return x
    if first is not None and not bool(first.isfinite().all()):
        nan, bad = int(first.isnan().sum()), int((~first.isfinite()).sum())
        what = "NaN" if nan else "infinite"
        raise Diverged(f"{sampler}: the energy is {what} at the start of {nan or bad} of {len(x)} chains; start where p(x) > 0")
    if not bool(x.isfinite().all()):
        bad = int((~torch.isfinite(x.flatten(1)).all(1)).sum())
        raise Diverged(f"{sampler}: {bad} of {len(x)} chains ended with NaN or infinite values; lower the step or check the energy")
    assert last is not None
    bad = int((~last.isfinite()).sum())
    raise Diverged(
        f"{sampler}: {bad} of {len(x)} chains ended where the energy is infinite or NaN; lower the step, or take mala, which does not "
        f"leave the support"
    )


def warn_if_stuck(sampler: str, accepted: Tensor, steps: int) -> None:
    """A warning where not one proposal of many was accepted: what comes back is the start."""
    if steps >= 20 and not bool(accepted.any()):
        warnings.warn(f"{sampler}: none of {steps} × {len(accepted)} proposals was accepted; lower the step", stacklevel=3)
