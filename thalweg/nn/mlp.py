"""A multilayer perceptron on vectors, with noise level and label where asked for."""

import math

import torch
from torch import Tensor, nn

from thalweg.nn.layers import LabelEmbedding, LevelEmbedding


class MLP(nn.Module):
    """[B, dim] (or any [B, ...] with dim elements) -> [B, out], or [B] for out = 0. SiLU; `depth` hidden layers of `width`.

    With `levels`, a noise level t [B] is required; with `classes`, a label [B] or None is taken. Both are embedded and
    added after each hidden layer. `fourier` random frequencies of standard deviation `fourier_scale` (radians per unit of x)
    add their sines and cosines to the input: sharp modes are then learned in far fewer updates (Tancik et al. 2020).
    """

    def __init__(
        self,
        dim: int,
        *,
        width: int = 128,
        depth: int = 3,
        out: int = 0,
        levels: bool = False,
        classes: int = 0,
        fourier: int = 0,
        fourier_scale: float = 1.0,
    ) -> None:
        super().__init__()
        self.register_buffer("frequencies", fourier_scale * torch.randn(dim, fourier) if fourier else None)
        self.first = nn.Linear(dim + 2 * fourier, width)
        self.hidden = nn.ModuleList(nn.Linear(width, width) for _ in range(depth - 1))
        self.last = nn.Linear(width, max(1, out))
        self.level = LevelEmbedding(width) if levels else None
        self.label = LabelEmbedding(classes, width) if classes else None
        self.activation = nn.SiLU()
        self.scalar = out == 0
        # PyTorch's default shrinks the signal threefold a layer, and with it every detail finer than the data's extent
        for layer in (self.first, *self.hidden):
            nn.init.normal_(layer.weight, std=1.6 / math.sqrt(layer.in_features))
            nn.init.uniform_(layer.bias, -1.0, 1.0)

    def forward(self, x: Tensor, t: Tensor | None = None, label: Tensor | None = None) -> Tensor:
        shift = 0.0
        if self.level is not None:
            shift = shift + self.level(t)
        if self.label is not None:
            shift = shift + self.label(label, len(x))
        x = x.flatten(1)
        if self.frequencies is not None:
            angle = x @ self.frequencies
            x = torch.cat([x, angle.sin(), angle.cos()], dim=1)
        h = self.first(x)
        for layer in self.hidden:
            h = layer(self.activation(h + shift))
        value = self.last(self.activation(h + shift))
        return value.squeeze(1) if self.scalar else value
