"""State of chains that outlasts a step: a replay buffer, a law of starts, steps that adapt; parts of a method, whose buffers are saved."""

import math
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

    def begin(self, law: Callable[[Tensor], Tensor]) -> None:
        """Move every chain by `law`: of a new buffer, whose chains are standard normal noise, to draws of the law."""
        self.chains.copy_(law(self.chains))

    def write(self, rows: Tensor, x: Tensor) -> None:
        """Put the ends of chains back."""
        self.chains[rows] = x

    def draw(self, n: int, generator: torch.Generator) -> Tensor:
        """`n` different chains as they are, [n, ...]."""
        device = self.chains.device
        return self.chains[torch.randperm(len(self.chains), generator=generator, device=device)[:n]]


class DataMixture(nn.Module):
    """A mixture of Gaussians that is fitted to the data: where new chains may start.

    Each of `parts` clusters of the data is a Gaussian with its mean, and its covariance along its `rank` widest directions: blurred
    examples, so that a chain's few steps go into details. Yang and Ji 2021 ("JEM++") start chains at such a mixture of the classes. Images
    are clamped to [−1, 1]. Before `fit` its draws are the standard normal noise itself.
    """

    def __init__(self, shape: tuple[int, ...], parts: int = 16, rank: int = 32) -> None:
        super().__init__()
        self.bound = 1.0 if len(shape) == 3 else math.inf
        dim = math.prod(shape)
        self.edges: Tensor
        self.means: Tensor
        self.directions: Tensor
        self.stds: Tensor
        self.rest: Tensor
        self.limit: Tensor
        self.register_buffer("edges", torch.ones(parts))  # running sums of the clusters' shares
        self.register_buffer("means", torch.zeros(parts, dim))
        self.register_buffer("directions", torch.zeros(parts, min(rank, dim), dim))
        self.register_buffer("stds", torch.zeros(parts, min(rank, dim)))
        self.register_buffer("rest", torch.tensor(1.0))  # of the noise that is left as it is: all of it before `fit`, none after it
        self.register_buffer("limit", torch.tensor(math.inf))

    def fit(self, x: Tensor) -> None:
        """Find the clusters of examples [N, ...] by k-means, their shares, means and covariances; few examples have few directions."""
        x = x.detach().flatten(1).float()
        with torch.random.fork_rng(devices=[x.device] if x.is_cuda else []):
            torch.manual_seed(0)
            cluster = k_means(x, self.means)
            counts = torch.bincount(cluster, minlength=len(self.means))
            self.edges.copy_(counts.cumsum(0) / len(x))
            self.stds.zero_()
            for part in counts.nonzero()[:, 0].tolist():
                own = x[cluster == part] - self.means[part]
                rank = min(self.stds.shape[1], *own.shape)
                _, widths, found = torch.svd_lowrank(own, q=rank)
                self.directions[part, :rank] = found.T
                self.stds[part, :rank] = widths / math.sqrt(len(own))
        self.rest.fill_(0.0)
        self.limit.fill_(self.bound)

    def forward(self, noise: Tensor) -> Tensor:
        """Draws [B, ...] from standard normal noise of their shape."""
        flat = noise.flatten(1)
        # a cluster by digits of the noise that say nothing of its size, so that a draw is a function of its noise alone
        part = (self.edges <= (4096 * flat[:, :1]).frac().abs()).sum(1).clamp(max=len(self.edges) - 1)
        directions = self.directions.flatten(0, 1)
        stds = self.stds * (part[:, None] == torch.arange(len(self.edges), device=part.device))[:, :, None]  # 0 of other clusters
        x = self.rest * flat + self.means[part] + (flat @ directions.T * stds.flatten(1)) @ directions
        return x.clamp(-self.limit, self.limit).view_as(noise)


def k_means(x: Tensor, centres: Tensor, rounds: int = 10) -> Tensor:
    """Clusters [N] of examples x [N, D] by Lloyd's rounds from examples drawn at random; `centres` [K, D] hold the clusters' means then."""
    centres.copy_(x[torch.randint(len(x), (len(centres),), device=x.device)])
    for _ in range(rounds):
        cluster = torch.cdist(x, centres).argmin(1)
        sums = torch.zeros_like(centres).index_add_(0, cluster, x)
        counts = torch.bincount(cluster, minlength=len(centres))[:, None]
        centres.copy_(torch.where(counts > 0, sums / counts.clamp_min(1), centres))
    return cluster


class GradientStep(nn.Module):
    """A chain's step s in units of the gradient: s²/2 times the gradients' root mean square is `move`, however steep the energy is.

    Gradients are those at the starts of training chains, their mean square a running mean. Before the first of them s is `first`.
    """

    def __init__(self, move: float, first: float) -> None:
        super().__init__()
        self.move, self.first = move, first
        self.square: Tensor
        self.register_buffer("square", torch.tensor(0.0))

    def follow(self, slope: Tensor, update) -> None:
        """Take gradients [B, ...] into the mean, the same on every rank."""
        square = update.mean(slope.float().square().mean())
        self.square.copy_(torch.where(self.square > 0, self.square.lerp(square, 0.1), square))

    def of(self, step: float, noise: float) -> dict[str, float]:
        """Options of a Langevin chain: s, and the weight of noise that keeps the standard deviation of `step` times `noise` a step."""
        slope = float(self.square.sqrt())
        size = math.sqrt(2 * self.move / slope) if slope > 0 else self.first
        return {"step": size, "noise": step * noise / size}


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
