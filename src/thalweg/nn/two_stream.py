"""The networks of DDAEBM's toys (Table 6): features of x, features of the level, and a network that reads both."""

import torch
from torch import Tensor, nn

from thalweg.nn.layers import LevelEmbedding

FEATURES = 16  # hidden units of x and of the level, which give twice as many features each


class TwoStream(nn.Module):
    """x [B, ...] with `dim` values and levels t [B] -> [B, out], or [B] for `out` 0; `depth` hidden layers of `width` read the features.

    PReLU after each hidden layer, and with `batch_norm` its normalisation over the batch after that, but in the features of the level.
    """

    def __init__(self, dim: int, *, out: int, width: int, depth: int, batch_norm: bool) -> None:
        super().__init__()

        def hidden(inputs: int, units: int) -> list[nn.Module]:
            return [nn.Linear(inputs, units), nn.PReLU(), *([nn.BatchNorm1d(units)] if batch_norm else [])]

        self.inputs = nn.Sequential(*hidden(dim, FEATURES), nn.Linear(FEATURES, 2 * FEATURES))
        self.level = LevelEmbedding(2 * FEATURES)
        self.level.net = nn.Sequential(nn.Linear(2 * len(self.level.frequencies), FEATURES), nn.PReLU(), nn.Linear(FEATURES, 2 * FEATURES))
        sizes = [4 * FEATURES, *[width] * depth]
        self.body = nn.Sequential(*(layer for a, b in zip(sizes, sizes[1:]) for layer in hidden(a, b)))
        self.last = nn.Linear(width, max(1, out))
        self.scalar = out == 0

    def forward(self, x: Tensor, t: Tensor) -> Tensor:
        value = self.last(self.body(torch.cat([self.inputs(x.flatten(1)), self.level(t)], 1)))
        return value.squeeze(1) if self.scalar else value
