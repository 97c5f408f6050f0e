"""The UNet of guided diffusion as EGC's released code has it: learned resampling, 64 channels a head, 32 norm groups, two middle blocks.

Dhariwal and Nichol 2021; EGC, sec. 4.1, and its released `EBMUNetModel`, whose flags for ImageNet are `transformer` and `pool = "map"`.
"""

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from thalweg.nn.layers import Attention, LabelEmbedding, LevelEmbedding

HEADS, CONTEXT = 4, 512  # of a transformer block: heads, values of a label's embedding


class GuidedBlock(nn.Module):
    """norm, SiLU, 3×3, plus the embedding, norm, SiLU, 3×3, with a 1×1 skip where channels change; the last convolution starts at zero.

    With `modulate` the embedding scales and shifts what the second norm gives, rather than being added before it.
    """

    def __init__(self, channels: int, out: int, embedding: int, groups: int, dropout: float, modulate: bool) -> None:
        super().__init__()
        self.modulate = modulate
        self.first = nn.Sequential(_norm(channels, groups), nn.SiLU(), nn.Conv2d(channels, out, 3, padding=1))
        self.told = nn.Sequential(nn.SiLU(), nn.Linear(embedding, 2 * out if modulate else out))
        self.norm = _norm(out, groups)
        self.second = nn.Sequential(nn.SiLU(), nn.Dropout(dropout), nn.Conv2d(out, out, 3, padding=1))
        self.skip = nn.Conv2d(channels, out, 1) if channels != out else nn.Identity()
        nn.init.zeros_(self.second[-1].weight)
        nn.init.zeros_(self.second[-1].bias)

    def forward(self, x: Tensor, embedding: Tensor) -> Tensor:
        h, told = self.first(x), self.told(embedding)[:, :, None, None]
        if self.modulate:
            scale, shift = told.chunk(2, dim=1)
            h = self.norm(h) * (1 + scale) + shift
        else:
            h = self.norm(h + told)
        return self.skip(x) + self.second(h)


class TokenAttention(nn.Module):
    """Multi-head self-attention of tokens [B, N, D] -> [B, N, D], written out for second derivatives."""

    def __init__(self, dim: int, heads: int) -> None:
        super().__init__()
        self.heads = heads
        self.qkv = nn.Linear(dim, 3 * dim, bias=False)
        self.out = nn.Linear(dim, dim)

    def forward(self, x: Tensor) -> Tensor:
        rows, tokens, dim = x.shape
        query, key, value = self.qkv(x).view(rows, tokens, 3, self.heads, dim // self.heads).permute(2, 0, 3, 1, 4)
        weights = (query @ key.transpose(-1, -2) * (dim // self.heads) ** -0.5).softmax(-1)
        return self.out((weights @ value).transpose(1, 2).reshape(rows, tokens, dim))


class TransformerBlock(nn.Module):
    """Self-attention over pixels, what the label says, and a gated feed-forward layer, each with a residual: [B, C, H, W] -> the same.

    The label is one token, so that attention to it is its value whatever asks: two linear layers of its embedding [B, CONTEXT], the same
    at each pixel. Without labels the second attention is to the pixels again, as in the released code.
    """

    def __init__(self, channels: int, head_channels: int, groups: int, labels: bool) -> None:
        super().__init__()
        dim = HEADS * head_channels
        self.norm, self.into = _norm(channels, groups), nn.Conv2d(channels, dim, 1)
        self.norms = nn.ModuleList(nn.LayerNorm(dim) for _ in range(2 if labels else 3))
        self.attention = TokenAttention(dim, HEADS)
        self.second = nn.Sequential(nn.Linear(CONTEXT, dim, bias=False), nn.Linear(dim, dim)) if labels else TokenAttention(dim, HEADS)
        self.gate, self.last = nn.Linear(dim, 8 * dim), nn.Linear(4 * dim, dim)
        self.out = nn.Conv2d(dim, channels, 1)
        nn.init.zeros_(self.out.weight)
        nn.init.zeros_(self.out.bias)

    def forward(self, x: Tensor, context: Tensor | None) -> Tensor:
        h = self.into(self.norm(x)).flatten(2).transpose(1, 2)
        h = h + self.attention(self.norms[0](h))
        h = h + (self.second(context)[:, None] if context is not None else self.second(self.norms[2](h)))
        value, gate = self.gate(self.norms[1](h)).chunk(2, dim=-1)
        h = h + self.last(value * F.gelu(gate))
        return x + self.out(h.transpose(1, 2).unflatten(2, x.shape[2:]))


class MeanPool(nn.Module):
    """The mean of a map's pixels attends over them and itself (CLIP's pooling without positions): [B, C, H, W] -> [B, C]."""

    def __init__(self, channels: int, head_channels: int) -> None:
        super().__init__()
        self.heads = max(1, channels // head_channels)
        self.query, self.keys = nn.Linear(channels, channels), nn.Linear(channels, 2 * channels)

    def forward(self, x: Tensor) -> Tensor:
        tokens = _with_mean(x)  # [B, 1 + HW, C]
        rows, count, channels = tokens.shape
        query = self.query(tokens[:, 0]).view(rows, self.heads, 1, -1)
        key, value = self.keys(tokens).view(rows, count, 2, self.heads, -1).permute(2, 0, 3, 1, 4)
        weights = (query @ key.transpose(-1, -2) * (channels // self.heads) ** -0.5).softmax(-1)
        return (weights @ value).reshape(rows, channels)


def pooled(x: Tensor) -> Tensor:
    """The same without parameters, of a map of class scores: [B, K, H, W] -> [B, K] (`sattn` of the released code)."""
    tokens = _with_mean(x)
    weights = (tokens @ tokens[:, 0, :, None] * tokens.shape[2] ** -0.5).softmax(1)
    return (weights * tokens).sum(1)


def _with_mean(x: Tensor) -> Tensor:
    tokens = x.flatten(2).transpose(1, 2)
    return torch.cat([tokens.mean(1, keepdim=True), tokens], 1)


def _norm(channels: int, groups: int) -> nn.GroupNorm:
    return nn.GroupNorm(min(groups, max(1, channels // 4)), channels)


class GuidedUNet(nn.Module):
    """Images [B, C, H, W] and levels t [B] -> a map [B, out, H, W] and, with `vector` > 0, also a vector [B, vector].

    `width` channels times `multipliers` down the resolutions, which strided 3×3 convolutions halve and 3×3 convolutions after a doubling
    join again; `blocks` residual blocks at each, attention at sides up to `attention` pixels. Labels [B], −1 for none, condition it where
    `classes` > 0: in the blocks of `transformer`, else with the level. The vector is pooled from the last "features", or without
    parameters from the "map", which must then be of as many channels. The map starts at zero.
    """

    def __init__(
        self,
        shape: tuple[int, int, int],
        *,
        out: int,
        vector: int = 0,
        width: int = 192,
        multipliers: tuple[int, ...] = (1, 2, 2),
        blocks: int = 3,
        attention: int = 16,
        head_channels: int = 64,
        groups: int = 32,
        transformer: bool = False,
        modulate: bool = True,
        pool: str = "features",
        classes: int = 0,
        dropout: float = 0.0,
    ) -> None:
        super().__init__()
        channels, size = shape[0], shape[1]
        factor = 2 ** (len(multipliers) - 1)
        if shape[1] % factor or shape[2] % factor:
            raise ValueError(f"height and width must divide by {factor} for {len(multipliers)} multipliers, got {shape[1]}×{shape[2]}")
        if vector and pool == "map" and out != vector:
            raise ValueError(f"pool = 'map' pools {vector} class scores from a map of as many channels, and this map has {out}")
        self.pool, self.transformer = pool, transformer
        self.embedding = embedding = 4 * width
        self.level = LevelEmbedding(embedding, sinusoids=width)
        self.label = LabelEmbedding(classes, CONTEXT if transformer else embedding) if classes else None

        def stage(channels: int, out: int, attend: bool) -> nn.ModuleList:
            block = nn.ModuleList([GuidedBlock(channels, out, embedding, groups, dropout, modulate)])
            if attend and transformer:
                block.append(TransformerBlock(out, head_channels, groups, bool(classes)))
            elif attend:
                block.append(Attention(out, heads=max(1, out // head_channels), groups=groups))
            return block

        self.first = nn.Conv2d(channels, c := width * multipliers[0], 3, padding=1)
        self.down, self.up = nn.ModuleList(), nn.ModuleList()
        self.shrink, self.grow = nn.ModuleList(), nn.ModuleList()
        skips = [c]
        for i, multiplier in enumerate(multipliers):
            if i:
                self.shrink.append(nn.Conv2d(c, c, 3, stride=2, padding=1))
                skips.append(c)
                size //= 2
            self.down.append(nn.ModuleList())
            for _ in range(blocks):
                self.down[-1].append(stage(c, width * multiplier, size <= attention))
                c = width * multiplier
                skips.append(c)
        self.middle = nn.ModuleList([stage(c, c, True), stage(c, c, False)])
        for i, multiplier in enumerate(reversed(multipliers)):
            if i:
                self.grow.append(nn.Conv2d(c, c, 3, padding=1))
                size *= 2
            self.up.append(nn.ModuleList())
            for _ in range(blocks + 1):
                self.up[-1].append(stage(c + skips.pop(), width * multiplier, size <= attention))
                c = width * multiplier
        self.last = nn.Sequential(_norm(c, groups), nn.SiLU())
        self.map = nn.Conv2d(c, out, 3, padding=1)
        nn.init.zeros_(self.map.weight)
        nn.init.zeros_(self.map.bias)
        self.vector = nn.Sequential(MeanPool(c, head_channels), nn.Linear(c, vector)) if vector and pool == "features" else None
        self.numbers = vector
        if self.vector is not None:
            nn.init.normal_(self.vector[-1].weight, std=0.02)

    def forward(self, x: Tensor, t: Tensor, label: Tensor | None = None) -> tuple[Tensor, Tensor | None]:
        embedding, context = self.level(t), None
        if self.label is not None:
            told = self.label(label, len(x))
            embedding, context = (embedding, told) if self.transformer else (embedding + told, None)

        def through(block: nn.ModuleList, h: Tensor) -> Tensor:
            h = block[0](h, embedding)
            if len(block) == 1:
                return h
            return block[1](h, context) if self.transformer else block[1](h)

        h = self.first(x)
        skips = [h]
        for i, stage in enumerate(self.down):
            if i:
                h = self.shrink[i - 1](h)
                skips.append(h)
            for block in stage:
                h = through(block, h)
                skips.append(h)
        for block in self.middle:
            h = through(block, h)
        for i, stage in enumerate(self.up):
            if i:
                h = self.grow[i - 1](F.interpolate(h, scale_factor=2.0, mode="nearest"))
            for block in stage:
                h = through(block, torch.cat([h, skips.pop()], dim=1))
        h = self.last(h)
        fields = self.map(h)
        if not self.numbers:
            return fields, None
        return fields, pooled(fields) if self.vector is None else self.vector(h)
