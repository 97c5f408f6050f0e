"""A residual convolutional energy: smooth, without normalisation, strided 4×4 convolutions between resolutions."""

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from thalweg.nn.layers import LabelEmbedding, LevelEmbedding, StridedConv2d, spectral


class ConvEnergy(nn.Module):
    """Images [B, C, H, W] -> [B] (or [B, out] for `out` > 0).

    A 3×3 convolution to `widths[0]` channels; then for each further width a strided convolution that halves H and W and
    `blocks` residual pairs of 3×3; SiLU; a linear layer on the last map. No normalisation: an energy must not depend on its
    batch. A level t [B] (with `levels`) and a label [B] (with `classes`) shift each stage's channels. `spectral_norm` bounds
    every convolution. With `patch` above 1 each patch of that side is one pixel of the first convolution, its values as channels.
    """

    def __init__(
        self,
        shape: tuple[int, int, int],
        *,
        widths: tuple[int, ...] = (32, 64, 96, 128),
        blocks: int = 0,
        out: int = 0,
        levels: bool = False,
        classes: int = 0,
        spectral_norm: bool = False,
        patch: int = 1,
    ) -> None:
        super().__init__()
        channels, height, width = shape
        factor = patch * 2 ** (len(widths) - 1)
        if height % factor or width % factor:
            patches = f" and patches of {patch}" if patch > 1 else ""
            raise ValueError(f"{len(widths)} widths{patches}: height and width must divide by {factor}, got {height}×{width}")
        self.patch = patch
        wrap = spectral if spectral_norm else (lambda layer: layer)
        embedding = 4 * widths[0]
        self.first = wrap(nn.Conv2d(channels * patch**2, widths[0], 3, padding=1))
        self.halve = nn.ModuleList(wrap(StridedConv2d(a, b)) for a, b in zip(widths, widths[1:]))
        self.blocks = nn.ModuleList(
            nn.ModuleList(nn.ModuleList(wrap(nn.Conv2d(w, w, 3, padding=1)) for _ in range(2)) for _ in range(blocks)) for w in widths[1:]
        )
        self.last = nn.Linear(widths[-1] * (height // factor) * (width // factor), max(1, out))
        self.level = LevelEmbedding(embedding) if levels else None
        self.label = LabelEmbedding(classes, embedding) if classes else None
        self.shifts = nn.ModuleList(nn.Linear(embedding, w) for w in widths) if levels or classes else None
        self.activation = nn.SiLU()
        self.scalar = out == 0

    def forward(self, x: Tensor, t: Tensor | None = None, label: Tensor | None = None) -> Tensor:
        shifts = self._shifts(t, label, len(x))
        h = self._first(x)
        h = self.activation(h if shifts is None else h + shifts[0])
        for i, (halve, blocks) in enumerate(zip(self.halve, self.blocks), start=1):
            h = halve(h)
            h = self.activation(h if shifts is None else h + shifts[i])
            for first, second in blocks:
                h = h + self.activation(second(self.activation(first(h))))
        value = self.last(h.flatten(1))
        value = value.to(torch.promote_types(value.dtype, torch.float32))  # energies are added and compared in fp32 also under autocast
        return value.squeeze(1) if self.scalar else value

    def _first(self, x: Tensor) -> Tensor:
        """The first convolution. A single channel has no memory layout of its own, and the network after it would fall back to the
        slow one: an empty second channel keeps it channels-last."""
        if self.patch > 1:
            return self.first(F.pixel_unshuffle(x, self.patch).contiguous(memory_format=torch.channels_last))
        if x.shape[1] > 1:
            return self.first(x)
        x, weight = (F.pad(part.permute(0, 2, 3, 1), (0, 1)).permute(0, 3, 1, 2) for part in (x, self.first.weight))
        return F.conv2d(x, weight, self.first.bias, padding=1)

    def _shifts(self, t: Tensor | None, label: Tensor | None, rows: int) -> list[Tensor] | None:
        if self.shifts is None:
            return None
        embedding = torch.zeros((), device=self.last.weight.device)
        if self.level is not None:
            embedding = embedding + self.level(t)
        if self.label is not None:
            embedding = embedding + self.label(label, rows)
        return [shift(self.activation(embedding))[:, :, None, None] for shift in self.shifts]


class PooledEnergy(nn.Module):
    """CoopFlow's energy of images (thesis, Table 4.3): [B, C, H, W] -> [B], H and W divisible by 2^(len(widths) − 1).

    A 3×3 convolution to `widths[0]`; for each further width a residual block of two 3×3 convolutions, a third for the skip and average
    pooling, SiLU after each convolution; a last convolution over all that is left, to 100 channels that are added up.
    """

    def __init__(self, shape: tuple[int, int, int], *, widths: tuple[int, ...] = (128, 256, 512, 1024)) -> None:
        super().__init__()
        channels, height, breadth = shape
        factor = 2 ** (len(widths) - 1)
        if height % factor or breadth % factor:
            raise ValueError(f"{len(widths)} widths: height and width must divide by {factor}, got {height}×{breadth}")
        self.first = nn.Conv2d(channels, widths[0], 3, padding=1)
        pairs = list(zip(widths, widths[1:]))
        self.up = nn.ModuleList(nn.Conv2d(a, b, 3, padding=1) for a, b in pairs)
        self.on = nn.ModuleList(nn.Conv2d(b, b, 3, padding=1) for _, b in pairs)
        self.skip = nn.ModuleList(nn.Conv2d(a, b, 3, padding=1) for a, b in pairs)
        self.last = nn.Conv2d(widths[-1], 100, (height // factor, breadth // factor))

    def forward(self, x: Tensor) -> Tensor:
        h = F.silu(self.first(x))
        for up, on, skip in zip(self.up, self.on, self.skip):
            h = F.avg_pool2d(F.silu(on(F.silu(up(h)))) + F.silu(skip(h)), 2)
        return self.last(h).float().flatten(1).sum(1)
