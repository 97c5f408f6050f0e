"""Layers shared by the networks: embeddings of levels and labels, fast strided convolution, attention, spectral norm."""

import math
from collections.abc import Callable, Iterator
from contextlib import contextmanager

import torch
from torch import Tensor, nn
from torch.nn import functional as F
from torch.nn.utils import parametrize
from torch.nn.utils.parametrizations import spectral_norm


def in_fp32(layer: Callable[[Tensor], Tensor], x: Tensor) -> Tensor:
    """`layer(x)` in fp32 also under autocast: for first layers, which hold the place of x, and for last ones, which make the energy."""
    with torch.autocast(x.device.type, enabled=False):
        return layer(x.float())


class PreciseConv2d(nn.Conv2d):
    """A convolution that computes in fp32 also under autocast: [B, C, H, W] -> [B, out, H', W'].

    For first layers, which hold the place of x: its rounding to bf16 is as large as the noise of the lowest levels.
    """

    def forward(self, x: Tensor) -> Tensor:
        return in_fp32(super().forward, x) if torch.is_autocast_enabled(x.device.type) else super().forward(x)


def first_conv(channels: int, width: int, *, precise: bool) -> nn.Conv2d:
    """The first 3×3 convolution of a network of images, in fp32 also under autocast where it is `precise`."""
    return (PreciseConv2d if precise else nn.Conv2d)(channels, width, 3, padding=1)


class LevelEmbedding(nn.Module):
    """Sinusoids of a noise level, then two linear layers: levels [B] (any real numbers) -> [B, width].

    `period` is the longest wavelength, of the order of the largest level; frequencies as in DDPM. `activation` stands between the layers.
    """

    def __init__(self, width: int, period: float = 10_000.0, sinusoids: int = 64, activation: nn.Module | None = None) -> None:
        super().__init__()
        half = sinusoids // 2
        self.frequencies: Tensor
        self.register_buffer("frequencies", torch.exp(-math.log(period) * torch.arange(half) / half), persistent=False)
        self.net = nn.Sequential(nn.Linear(2 * half, width), activation or nn.SiLU(), nn.Linear(width, width))

    def forward(self, level: Tensor) -> Tensor:
        angle = level.float()[:, None] * self.frequencies
        return self.net(torch.cat([angle.cos(), angle.sin()], dim=1))


class LabelEmbedding(nn.Module):
    """A learned vector for each label and one for "no label": labels [B] int64, −1 for none, or None -> [B, width]."""

    def __init__(self, classes: int, width: int) -> None:
        super().__init__()
        self.table = nn.Embedding(classes + 1, width)
        self.classes = classes

    def forward(self, label: Tensor | None, rows: int) -> Tensor:
        if label is None:
            return self.table.weight[self.classes].expand(rows, -1)
        return self.table(torch.where(label < 0, self.classes, label))


class StridedConv2d(nn.Conv2d):
    """A 4×4 convolution with stride 2 and padding 1, computed as a 2×2 convolution on 2×2 blocks of pixels.

    The same function and parameters as nn.Conv2d(i, o, 4, 2, 1); on the CPU the gradient by the input of the unit-stride
    form is two to three times faster in bf16. [B, C, H, W] with even H, W -> [B, out, H/2, W/2].
    """

    def __init__(self, in_channels: int, out_channels: int) -> None:
        super().__init__(in_channels, out_channels, kernel_size=4, stride=2, padding=1)

    def forward(self, x: Tensor) -> Tensor:
        if not x.is_contiguous(memory_format=torch.channels_last) or x.is_cuda:
            return super().forward(x)
        rows, channels, height, width = x.shape
        out = self.out_channels
        h, w = height // 2 + 1, width // 2 + 1
        padded = F.pad(x.permute(0, 2, 3, 1), (0, 0, 1, 1, 1, 1))  # pixels first: a block is then two contiguous runs
        blocks = padded.view(rows, h, 2, w, 2, channels).permute(0, 1, 3, 2, 4, 5).reshape(rows, h, w, 4 * channels)
        kernel = self.weight.view(out, channels, 2, 2, 2, 2).permute(0, 2, 4, 3, 5, 1).reshape(out, 2, 2, 4 * channels)
        return F.conv2d(blocks.permute(0, 3, 1, 2), kernel.permute(0, 3, 1, 2), self.bias)


class Attention(nn.Module):
    """Multi-head self-attention over the pixels of a map, with a residual: [B, C, H, W] -> [B, C, H, W].

    Written out as two matrix products and a softmax: fused kernels have no second derivative.
    """

    def __init__(self, channels: int, heads: int = 4, groups: int = 8) -> None:
        super().__init__()
        self.norm = nn.GroupNorm(min(groups, channels // 4), channels)
        self.qkv = nn.Conv2d(channels, 3 * channels, 1)
        self.out = nn.Conv2d(channels, channels, 1)
        nn.init.zeros_(self.out.weight)
        nn.init.zeros_(self.out.bias)
        self.heads = heads

    def forward(self, x: Tensor) -> Tensor:
        rows, channels, height, width = x.shape
        query, key, value = self.qkv(self.norm(x)).reshape(rows, 3, self.heads, channels // self.heads, height * width).unbind(1)
        weights = (query.transpose(-1, -2) @ key * (channels // self.heads) ** -0.5).softmax(-1)
        return x + self.out((value @ weights.transpose(-1, -2)).reshape(rows, channels, height, width))


class NumbersAlone(nn.Module):
    """The numbers of a network (x, t[, label]) -> (map, numbers): (x[, t][, label]) -> [B, out], or [B] where `scalar`.

    Without `levels` it takes no t: the network always sees level 0.
    """

    def __init__(self, net: nn.Module, *, scalar: bool, levels: bool) -> None:
        super().__init__()
        self.net, self.scalar, self.levels = net, scalar, levels

    def forward(self, x: Tensor, t: Tensor | None = None, label: Tensor | None = None) -> Tensor:
        if not self.levels:
            t = torch.zeros(len(x), dtype=torch.int64, device=x.device)
        numbers = self.net(x, t)[1] if label is None else self.net(x, t, label)[1]
        numbers = numbers.to(
            torch.promote_types(numbers.dtype, torch.float32)
        )  # energies are added and compared in fp32 also under autocast
        return numbers.squeeze(1) if self.scalar else numbers


def spectral(layer: nn.Module) -> nn.Module:
    """`layer` with its weight divided by its largest singular value, estimated by one power iteration a training step.

    A layer without values, on the meta device, is left as it is: there is nothing to estimate, and trying takes seconds.
    """
    return layer if layer.weight.is_meta else spectral_norm(layer)


@contextmanager
def frozen(*modules: nn.Module) -> Iterator[None]:
    """Inside: evaluation mode, no parameter gradients, spectral norm computed once and held still. For chains.

    The mode and each parameter's `requires_grad` are put back on leaving.
    """
    training = [(m, m.training) for module in modules for m in module.modules()]
    wanted = [(p, p.requires_grad) for module in modules for p in module.parameters()]
    try:
        for module, _ in training:
            module.training = False
        for parameter, _ in wanted:
            parameter.requires_grad_(False)
        with parametrize.cached():
            for module, _ in training:
                # now, as a compiled chain may read the weights that are kept, but not make them inside of its own derivative
                for name in getattr(module, "parametrizations", ()):
                    getattr(module, name)
            yield
    finally:
        for module, mode in training:
            module.training = mode
        for parameter, flag in wanted:
            parameter.requires_grad_(flag)
