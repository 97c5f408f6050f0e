"""A UNet with a level embedding that reads out a map and, by attention pooling, a vector (guided diffusion; EGC, sec. 4.1)."""

import torch
from torch import Tensor, nn

from thalweg.nn.layers import Attention, LabelEmbedding, LevelEmbedding, first_conv


def _norm(channels: int) -> nn.GroupNorm:
    return nn.GroupNorm(min(8, channels // 4), channels)


class ResidualBlock(nn.Module):
    """norm, SiLU, 3×3, scale and shift by the embedding, norm, SiLU, 3×3; with a 1×1 skip where the channels change."""

    def __init__(self, channels: int, out: int, embedding: int, dropout: float = 0.0) -> None:
        super().__init__()
        self.first = nn.Sequential(_norm(channels), nn.SiLU(), nn.Conv2d(channels, out, 3, padding=1))
        self.modulate = nn.Sequential(nn.SiLU(), nn.Linear(embedding, 2 * out))
        self.norm = _norm(out)
        self.second = nn.Sequential(nn.SiLU(), nn.Dropout(dropout), nn.Conv2d(out, out, 3, padding=1))
        self.skip = nn.Conv2d(channels, out, 1) if channels != out else nn.Identity()
        nn.init.zeros_(self.second[-1].weight)
        nn.init.zeros_(self.second[-1].bias)

    def forward(self, x: Tensor, embedding: Tensor) -> Tensor:
        scale, shift = self.modulate(embedding)[:, :, None, None].chunk(2, dim=1)
        h = self.norm(self.first(x)) * (1 + scale) + shift
        return self.skip(x) + self.second(h)


class AttentionPool(nn.Module):
    """One learned query for each head attends over the pixels: [B, C, H, W] -> [B, C] (as in CLIP, with fixed queries)."""

    def __init__(self, channels: int, heads: int = 4) -> None:
        super().__init__()
        self.query = nn.Conv2d(channels, heads, 1)
        self.value = nn.Conv2d(channels, channels, 1)
        self.heads = heads

    def forward(self, x: Tensor) -> Tensor:
        weights = self.query(x).flatten(2).softmax(-1)  # [B, heads, HW]
        value = self.value(x).reshape(len(x), self.heads, x.shape[1] // self.heads, -1)
        return (value * weights[:, :, None]).sum(-1).flatten(1)


class UNet(nn.Module):
    """Images [B, C, H, W] and levels t [B] -> a map [B, out, H, W] and, with `vector` > 0, also a vector [B, vector].

    `width` channels times `multipliers` down the resolutions (halved by average pooling, H and W divisible by
    2^(len − 1)), `blocks` residual blocks at each, self-attention at resolutions up to `attention` pixels. Labels [B]
    condition it where `classes` > 0. The map's last layer starts at zero; the vector's starts small but not at zero:
    identical classes would stay identical without labels. With `precise_first` the first layer computes in fp32 also under autocast.
    """

    def __init__(
        self,
        shape: tuple[int, int, int],
        *,
        out: int,
        vector: int = 0,
        width: int = 64,
        multipliers: tuple[int, ...] = (1, 2, 2),
        blocks: int = 2,
        attention: int = 8,
        classes: int = 0,
        dropout: float = 0.0,
        precise_first: bool = False,
    ) -> None:
        super().__init__()
        channels, size = shape[0], shape[1]
        factor = 2 ** (len(multipliers) - 1)
        if shape[1] % factor or shape[2] % factor:
            raise ValueError(
                f"{len(multipliers)} multipliers halve the image {len(multipliers) - 1} times: height and width must divide by {factor}, "
                f"got {shape[1]}×{shape[2]}"
            )
        self.embedding = embedding = 4 * width
        self.level = LevelEmbedding(embedding)
        self.label = LabelEmbedding(classes, embedding) if classes else None
        self.first = first_conv(channels, width, precise=precise_first)
        self.pool = nn.AvgPool2d(2)
        self.down, self.up = nn.ModuleList(), nn.ModuleList()
        skips, c = [width], width
        for i, multiplier in enumerate(multipliers):
            stage = nn.ModuleList()
            for _ in range(blocks):
                stage.append(self._block(c, width * multiplier, embedding, size <= attention, dropout))
                c = width * multiplier
                skips.append(c)
            self.down.append(stage)
            if i < len(multipliers) - 1:
                skips.append(c)
                size //= 2
        self.middle = self._block(c, c, embedding, True, dropout)
        for multiplier in reversed(multipliers):
            stage = nn.ModuleList()
            for _ in range(blocks + 1):
                stage.append(self._block(c + skips.pop(), width * multiplier, embedding, size <= attention, dropout))
                c = width * multiplier
            self.up.append(stage)
            size *= 2
        self.last = nn.Sequential(_norm(c), nn.SiLU())
        self.map = nn.Conv2d(c, out, 3, padding=1)
        nn.init.zeros_(self.map.weight)
        nn.init.zeros_(self.map.bias)
        self.vector = None
        if vector:
            deep = width * multipliers[-1]
            self.vector = nn.Sequential(_norm(deep + c), nn.SiLU(), AttentionPool(deep + c), nn.SiLU(), nn.Linear(deep + c, vector))
            nn.init.normal_(self.vector[-1].weight, std=0.02)

    @staticmethod
    def _block(channels: int, out: int, embedding: int, attend: bool, dropout: float) -> nn.ModuleList:
        return nn.ModuleList([ResidualBlock(channels, out, embedding, dropout), Attention(out) if attend else nn.Identity()])

    def forward(self, x: Tensor, t: Tensor, label: Tensor | None = None) -> tuple[Tensor, Tensor | None]:
        embedding = self.level(t)
        if self.label is not None:
            embedding = embedding + self.label(label, len(x))
        h = self.first(x)
        skips = [h]
        for i, stage in enumerate(self.down):
            if i:
                h = self.pool(h)
                skips.append(h)
            for block, attention in stage:
                h = attention(block(h, embedding))
                skips.append(h)
        h = self.middle[1](self.middle[0](h, embedding))
        deep = h
        for i, stage in enumerate(self.up):
            if i:
                h = nn.functional.interpolate(h, scale_factor=2.0, mode="nearest")
            for block, attention in stage:
                h = attention(block(torch.cat([h, skips.pop()], dim=1), embedding))
        if self.vector is None:
            return self.map(self.last(h)), None
        fine = nn.functional.adaptive_avg_pool2d(h, deep.shape[-2:])
        return self.map(self.last(h)), self.vector(torch.cat([deep, fine], dim=1))
