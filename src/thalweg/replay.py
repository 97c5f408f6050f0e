"""State of chains that survives a step: a replay buffer, and steps that adapt. Both are parts of a method, whose buffers are saved."""

from collections.abc import Callable

import torch
from torch import Tensor, nn

from thalweg import random
from thalweg.sample import Trace


class Replay(nn.Module):
    """Persistent chains (Tieleman 2008): `size` rows, of which a batch continues some and renews a share from noise.

    `fresh(n, generator, device)` draws new starts [n, ...]. With `classes` each row has a label of its own, which it keeps.
    In a data-parallel run each rank holds an equal part of the rows (`sharded`).
    """

    def __init__(self, size: int, fresh: Callable[..., Tensor], *, renew: float = 0.05, classes: int = 0) -> None:
        super().__init__()
        self.fresh, self.renew = fresh, renew
        self.chains: Tensor
        self.labels: Tensor
        self.register_buffer("chains", fresh(size, random.seeded(0), None))
        self.register_buffer("labels", torch.arange(size) % max(1, classes))

    def __len__(self) -> int:
        return len(self.chains)

    def start(self, n: int, generator: random.Generator) -> tuple[Tensor, Tensor]:
        """Where `n` chains start [n, ...] and the rows that they come from [n].

        Without replacement, to be written back to the same rows: no chain is ever copied over another.
        """
        device = self.chains.device
        fresh = self.fresh(n, generator, device)
        rows = random.rows(n, len(self.chains), generator=generator, device=device)
        renewed = random.uniform(n, generator=generator, device=device) < self.renew
        return torch.where(renewed.view(-1, *[1] * (fresh.dim() - 1)), fresh, self.chains[rows]), rows

    def write(self, rows: Tensor, x: Tensor) -> None:
        """Put the ends of chains back."""
        self.chains[rows] = x

    def draw(self, n: int, generator: torch.Generator) -> Tensor:
        """`n` different chains as they are, [n, ...]."""
        device = self.chains.device
        return self.chains[torch.randperm(len(self.chains), generator=generator, device=device)[:n]]


class AdaptiveStep(nn.Module):
    """A chain's step that moves towards a wanted acceptance; of `levels` noise levels, each by itself."""

    def __init__(self, first: float | list[float], target: float, *, low: float, high: float) -> None:
        super().__init__()
        self.target, self.low, self.high = target, low, high
        self.size: Tensor
        self.register_buffer("size", torch.tensor(first))

    def adapt(self, trace: Trace, update, level: Tensor | None = None) -> None:
        """Log the acceptance of a chain, and move the step, the same on every rank; `level` [B] where there are several."""
        accepted = trace.acceptance
        if accepted is None:
            return
        update.log(acceptance=accepted)
        if not self.target:
            return
        if level is None:
            move = 0.1 * (update.mean(accepted.mean()) - self.target)
        else:
            here = nn.functional.one_hot(level, len(self.size)).to(accepted)
            count, excess = update.mean(torch.stack([here.sum(0), (accepted - self.target) @ here]))
            move = 0.1 * excess / count.clamp_min(1e-6)
        self.size.mul_(torch.exp(move)).clamp_(self.low, self.high)
