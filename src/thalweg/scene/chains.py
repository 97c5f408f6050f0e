"""Chains on a posterior of latents that move one block after the other, and chains that objects keep (thesis, eq. 3.14, 3.15; sec. 3.5.6).

A block is a mask [d], True for the latents that move together. `moments` [N, 2 d + 1] are Adam's means of gradients and of their
squares, and the count of steps: a chain that goes on is given them again. `project` maps z after every move.
"""

from collections.abc import Callable, Sequence

import torch
from torch import Tensor, nn

from thalweg import random
from thalweg.energy import Energy, score
from thalweg.errors import Diverged

Project = Callable[[Tensor], Tensor] | None


def together(blocks: Sequence[Tensor]) -> list[Tensor]:
    """One block of all latents."""
    return [torch.ones_like(blocks[0])]


@torch.no_grad()
def langevin(
    energy: Energy,
    z: Tensor,
    blocks: Sequence[Tensor],
    *,
    steps: int,
    step: float,
    noise: float = 1.0,
    moments: Tensor | None = None,
    project: Project = None,
    generator: random.Generator = None,
) -> tuple[Tensor, Tensor]:
    """Langevin dynamics from z [N, d]: each step moves each block by −s²/2·∇E + s·τ·ξ, given the others as they are by then.

    Returns z and moments, of which only the count changes. Raises Diverged where a chain ends non-finite.
    """
    for _ in range(steps):
        for block in blocks:
            move = 0.5 * step**2 * score(energy, z)
            if noise:
                move = move + step * noise * random.normal_like(z, generator)
            z = _moved(z, move, block, project)
    moments = _moments(z) if moments is None else moments
    return _checked(z), torch.cat([moments[:, :-1], moments[:, -1:] + steps], 1)


@torch.no_grad()
def adam(
    energy: Energy,
    z: Tensor,
    blocks: Sequence[Tensor],
    *,
    steps: int,
    step: float,
    moments: Tensor | None = None,
    project: Project = None,
) -> tuple[Tensor, Tensor]:
    """Adam's descent (β 0.9, 0.999) from z [N, d], each block in turn. Returns z and moments. Raises Diverged as `langevin`."""
    moments = _moments(z) if moments is None else moments
    for _ in range(steps):
        count = moments[:, -1:] + 1
        mean, square = moments[:, :-1].chunk(2, 1)
        for block in blocks:
            drift = score(energy, z)
            mean = torch.where(block, 0.9 * mean + 0.1 * drift, mean)
            square = torch.where(block, 0.999 * square + 0.001 * drift.square(), square)
            move = step * (mean / (1 - 0.9**count)) / ((square / (1 - 0.999**count)).sqrt() + 1e-8)
            z = _moved(z, move, block, project)
        moments = torch.cat([mean, square, count], 1)
    return _checked(z), moments


def _moved(z: Tensor, move: Tensor, block: Tensor, project: Project) -> Tensor:
    z = torch.where(block, z + move, z)
    return z if project is None else project(z)


def _moments(z: Tensor) -> Tensor:
    return z.new_zeros(len(z), 2 * z.shape[1] + 1)


def _checked(z: Tensor) -> Tensor:
    if not bool(z.isfinite().all()):
        raise Diverged("posterior chains ended with NaN or infinite values; lower their step, or raise likelihood_temperature")
    return z


class ObjectChains(nn.Module):
    """A chain of latents for each object, from `start` [objects, d], with Adam's moments; every process keeps all of them."""

    z: Tensor
    moments: Tensor

    def __init__(self, start: Tensor) -> None:
        super().__init__()
        self.register_buffer("z", start)
        self.register_buffer("moments", _moments(start))

    def __len__(self) -> int:
        return len(self.z)

    def write(self, rows: Tensor, z: Tensor, moments: Tensor, mean: Callable[[Tensor], Tensor]) -> None:
        """Put back the ends of the chains `rows` [N], which may repeat; `mean` averages over processes, as of `update.mean`."""
        put_back(self.z, rows, z, mean)
        put_back(self.moments, rows, moments, mean)


def put_back(buffer: Tensor, rows: Tensor, new: Tensor, mean: Callable[[Tensor], Tensor]) -> None:
    """Write `new` [N, ...] to `rows` [N] of a buffer [M, ...] that all processes hold.

    Where rows repeat, here or in other processes, over which `mean` averages, the mean of their changes is written.
    """
    change = torch.zeros_like(buffer).index_add_(0, rows, new - buffer[rows])
    hits = buffer.new_zeros(len(buffer), 1).index_add_(0, rows, new.new_ones(len(rows), 1))
    change, hits = mean(change), mean(hits)
    written = hits[:, 0].nonzero()[:, 0]
    buffer[written] += change[written] / hits[written].view(-1, *[1] * (buffer.dim() - 1))
