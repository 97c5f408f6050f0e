"""A multilayer perceptron on vectors, with noise level and label where asked for."""

import math

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from thalweg.nn.layers import LabelEmbedding, LevelEmbedding, in_fp32


class MLP(nn.Module):
    """[B, dim] (or any [B, ...] with dim elements) -> [B, out], or [B] for out = 0. SiLU; `depth` hidden layers of `width`.

    With `levels`, a noise level t [B] is required; with `classes`, a label [B] or None is taken. Both are embedded and
    added after each hidden layer. Under bf16 autocast only the products between hidden layers are in bf16: the
    first layer holds the place of x, the last one the sum that makes the energy.
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
    ) -> None:
        super().__init__()
        self.first = nn.Linear(dim, width)
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
        mixed = torch.is_autocast_enabled(x.device.type)
        h = in_fp32(self.first, x.flatten(1)) if mixed else self.first(x.flatten(1))
        for layer in self.hidden:
            h = self.activation(h + shift)
            # a bias in fp32 lets a compiler fold the cast into the activation that follows
            h = F.linear(h, layer.weight) + layer.bias if mixed else layer(h)
        h = self.activation(h + shift)
        value = in_fp32(self.last, h) if mixed else self.last(h)
        return value.squeeze(1) if self.scalar else value
