"""A network of two resolutions on patches: pixels folded 2×2, then 4×4, with a skip; no normalisation, cheap to differentiate twice."""

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from thalweg.nn.layers import LabelEmbedding, LevelEmbedding, first_conv
from thalweg.nn.patchnet import PatchBlock


class PatchUNet(nn.Module):
    """Images [B, C, H, W], levels t [B] -> a map [B, out, H, W] and a vector [B, vector] (None for `vector` = 0). H and W divide by 4.

    With `classes`, a label [B] or None is taken too. `blocks` residual blocks of `width` channels at H/2×W/2, `deep_blocks` of
    `deep_width` at H/4×W/4, and `blocks` again at H/2×W/2, which see both. `hidden` units look at the whole deeper map: they add to it,
    which lets distant pixels speak to each other, and the vector is a linear layer on them. The map starts at zero, the vector small but
    not at zero.
    With `precise_first` the first layer computes in fp32 also under autocast.
    """

    def __init__(
        self,
        shape: tuple[int, int, int],
        *,
        out: int,
        vector: int,
        width: int = 48,
        deep_width: int = 96,
        blocks: int = 2,
        deep_blocks: int = 4,
        hidden: int = 256,
        dropout: float = 0.0,
        embedding: int = 128,
        classes: int = 0,
        precise_first: bool = True,
    ) -> None:
        super().__init__()
        channels, height, breadth = shape
        if height % 4 or breadth % 4:
            raise ValueError(f"height and width must divide by 4, got {height}×{breadth}")
        self.deep_shape, self.embedding = (deep_width, height // 4, breadth // 4), embedding
        self.level = LevelEmbedding(embedding)
        self.label = LabelEmbedding(classes, embedding) if classes else None
        self.first = first_conv(4 * channels, width, precise=precise_first)
        self.before = nn.ModuleList(PatchBlock(width, embedding, dropout) for _ in range(blocks))
        self.down = nn.Conv2d(4 * width, deep_width, 1)
        self.deep = nn.ModuleList(PatchBlock(deep_width, embedding, dropout) for _ in range(deep_blocks))
        deep_size = deep_width * (height // 4) * (breadth // 4)
        self.whole = nn.Linear(deep_size, hidden)
        self.spread = nn.Linear(hidden, deep_size)
        self.up = nn.Conv2d(deep_width, 4 * width, 1)
        self.join = nn.Conv2d(2 * width, width, 1)
        self.after = nn.ModuleList(PatchBlock(width, embedding, dropout) for _ in range(blocks))
        self.map = nn.Conv2d(width, 4 * out, 3, padding=1)
        for layer in (self.map, self.spread):
            nn.init.zeros_(layer.weight)
            nn.init.zeros_(layer.bias)
        self.vector = nn.Linear(hidden, vector) if vector else None
        if self.vector is not None:
            nn.init.normal_(self.vector.weight, std=0.02)

    def forward(self, x: Tensor, t: Tensor, label: Tensor | None = None) -> tuple[Tensor, Tensor | None]:
        embedding = self.level(t)
        if self.label is not None:
            embedding = embedding + self.label(label, len(x))
        embedding = F.silu(embedding)
        h = self.first(F.pixel_unshuffle(x, 2))
        for block in self.before:
            h = block(h, embedding)
        d = self.down(F.pixel_unshuffle(h, 2))
        for block in self.deep:
            d = block(d, embedding)
        whole = F.silu(self.whole(F.silu(d).flatten(1)))
        d = d + self.spread(whole).view(-1, *self.deep_shape)
        h = self.join(torch.cat([h, F.pixel_shuffle(self.up(F.silu(d)), 2)], 1))
        for block in self.after:
            h = block(h, embedding)
        fields = F.pixel_shuffle(self.map(F.silu(h)), 2)
        return fields, None if self.vector is None else self.vector(whole)
