"""CF-EBM's network, which grows from a small resolution to a large one (Zhao et al. 2021, Table 6 and Figure 8)."""

import math

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from thalweg.nn.layers import spectral

# Table 8
ACTIVATIONS = {
    "silu": F.silu,
    "relu": F.relu,
    "leaky_relu": lambda h: F.leaky_relu(h, 0.2),
    "gelu": F.gelu,
    "celu": F.celu,
}


class ExpandingEnergy(nn.Module):
    """Images of the sizes of `stages` stages, each twice the one before: net(x [B, C, h, w], stage=s, beta=β) -> [B].

        E^s(x) = E^{s−1}(β·Primal(x) + (1 − β)·Fade(x))

    in feature maps: Primal takes stage s's FromRGB, a residual block that halves the map; Fade is the coarser stage's own FromRGB on the
    image that is average-pooled, so that β = 0 is that stage's energy of the pooled image. β = 1 takes no Fade. Above the last Primal are
    a 3×3 convolution and one over all that is left, then a linear layer.

    `shape` [C, H, W] is the last stage's. `width` is the paper's channel multiplier c: 4c channels up to 32 pixels, half as many for each
    doubling beyond. `spectral_norm` bounds both convolutions of each Primal, not its skip. Raises ValueError for sides that do not halve
    `stages` − 1 times to 2 pixels or more.
    """

    def __init__(
        self,
        shape: tuple[int, int, int],
        *,
        stages: int,
        width: int = 32,
        activation: str = "silu",
        spectral_norm: bool = True,
        residual: bool = True,
    ) -> None:
        super().__init__()
        channels, height, breadth = shape
        factor = 2 ** (stages - 1)
        if height % factor or breadth % factor or min(height, breadth) < 2 * factor:
            raise ValueError(f"{stages} stages need sides that divide by {factor}, to 2 pixels or more, got {height}×{breadth}")
        self.sizes = [(height // 2**s, breadth // 2**s) for s in reversed(range(stages))]
        self.activation = ACTIVATIONS[activation]
        bound = spectral if spectral_norm else (lambda layer: layer)
        maps = [max(1, math.ceil(4 * width * min(1, 32 / max(size)))) for size in self.sizes]  # channels at each stage's size
        self.from_rgb = nn.ModuleList(nn.Conv2d(channels, count, 1) for count in maps)
        pairs = list(zip(maps, maps[:1] + maps))  # from a stage's size to half of it
        self.first = nn.ModuleList(bound(nn.Conv2d(a, b, 3, padding=1)) for a, b in pairs)
        self.second = nn.ModuleList(bound(nn.Conv2d(b, b, 3, padding=1)) for _, b in pairs)
        self.skip = nn.ModuleList(nn.Conv2d(a, b, 3, padding=1) for a, b in pairs) if residual else None
        left = tuple(math.ceil(side / 2) for side in self.sizes[0])  # 4×4 from the paper's 8×8
        self.top_first = bound(nn.Conv2d(maps[0], maps[0], 3, padding=1))
        self.top_second = bound(nn.Conv2d(maps[0], maps[0], left))
        self.last = nn.Linear(maps[0], 1)

    def forward(self, x: Tensor, *, stage: int = -1, beta: float = 1.0) -> Tensor:
        stage = stage % len(self.sizes)
        h = self._primal(self._features(x, stage), stage)
        if stage and beta < 1:
            h = beta * h + (1 - beta) * self._features(F.avg_pool2d(x, 2), stage - 1)
        for coarser in reversed(range(stage)):
            h = self._primal(h, coarser)
        h = self.activation(self.top_second(self.activation(self.top_first(h))))
        value = self.last(h.flatten(1)).squeeze(1)
        return value.to(torch.promote_types(value.dtype, torch.float32))  # energies are compared in fp32 also under autocast

    def parameters_of(self, stage: int) -> list[nn.Parameter]:
        """The parameters that the energy of a stage depends on, its Fade included."""
        used = [*self.from_rgb[max(0, stage - 1) : stage + 1], *self.first[: stage + 1], *self.second[: stage + 1]]
        used += [self.top_first, self.top_second, self.last, *(() if self.skip is None else self.skip[: stage + 1])]
        return [parameter for module in used for parameter in module.parameters()]

    def _features(self, x: Tensor, stage: int) -> Tensor:
        h = self.from_rgb[stage](x)
        if x.shape[1] == 1:  # PyTorch cannot tell the memory format of one channel, and every layer above would copy its maps
            h = h.contiguous(memory_format=torch.channels_last)
        return self.activation(h)

    def _primal(self, h: Tensor, stage: int) -> Tensor:
        out = self.activation(self.second[stage](self.activation(self.first[stage](h))))
        if self.skip is not None:
            out = (out + self.skip[stage](h)) / math.sqrt(2)
        return F.avg_pool2d(out, 2, ceil_mode=True)  # the smallest stage may have an odd side, as 7 of 28
