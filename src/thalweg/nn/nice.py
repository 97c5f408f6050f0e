"""NICE (Dinh et al. 2015): a flow of additive couplings and a diagonal scale, here of several noise levels (DDAEBM, Table 7)."""

import math

import torch
from torch import Tensor, nn

from thalweg.nn.generator import level_mlp


class NICE(nn.Module):
    """−log p_t(x) in nats, exact: x [B, ...] with `dim` values, levels t [B] in 0 … `levels` -> [B].

    Each coupling adds an MLP of every other value to the rest, in turn, with the level embedded in its hidden layers; the law of z
    is N(0, I). Couplings keep volumes, so each level has a scale of its own: one for all would give all levels the same volume.
    """

    def __init__(self, dim: int, levels: int, *, couplings: int = 4, width: int = 1000, depth: int = 5) -> None:
        super().__init__()
        if dim < 2:
            raise ValueError(f"a coupling needs 2 dimensions or more, got {dim}")
        halves = (dim + 1) // 2, dim // 2  # at even and at odd places
        sizes = [(halves[i % 2], halves[1 - i % 2]) for i in range(couplings)]
        self.shifts = nn.ModuleList(level_mlp(a, levels, width=width, depth=depth, out=b) for a, b in sizes)
        for net in self.shifts:
            nn.init.zeros_(net.last.weight)  # at first a Gaussian
            nn.init.zeros_(net.last.bias)
        self.log_scale = nn.Embedding(levels + 1, dim)
        nn.init.zeros_(self.log_scale.weight)

    def encode(self, x: Tensor, t: Tensor) -> tuple[Tensor, Tensor]:
        """z [B, dim] and log|det ∂z/∂x| [B]."""
        kept, moved = x.flatten(1)[:, ::2], x.flatten(1)[:, 1::2]
        for net in self.shifts:
            kept, moved = moved + net(kept, t), kept
        halves = (kept, moved) if len(self.shifts) % 2 == 0 else (moved, kept)
        log_scale = self.log_scale(t)
        return torch.cat(halves, 1) * log_scale.exp(), log_scale.sum(1)

    def decode(self, z: Tensor, t: Tensor) -> Tensor:
        """The inverse of `encode`, [B, dim]."""
        y, even = z * (-self.log_scale(t)).exp(), (z.shape[1] + 1) // 2
        halves = y[:, :even], y[:, even:]
        kept, moved = halves if len(self.shifts) % 2 == 0 else halves[::-1]
        for net in reversed(self.shifts):
            kept, moved = moved, kept - net(moved, t)
        x = torch.empty_like(y)
        x[:, ::2], x[:, 1::2] = kept, moved
        return x

    def forward(self, x: Tensor, t: Tensor) -> Tensor:
        z, log_det = self.encode(x, t)
        return 0.5 * (z.square() + math.log(2 * math.pi)).sum(1) - log_det
