"""A residual network on patches: one resolution, no normalisation, made to be differentiated twice at little cost."""

from torch import Tensor, nn
from torch.nn import functional as F

from thalweg.nn.layers import LabelEmbedding, LevelEmbedding, first_conv
from thalweg.nn.mlp import MLP


class PatchBlock(nn.Module):
    """x + conv(SiLU(conv(SiLU(x)) + level)), 3×3; the last convolution starts at zero."""

    def __init__(self, channels: int, embedding: int, dropout: float) -> None:
        super().__init__()
        self.first = nn.Conv2d(channels, channels, 3, padding=1)
        self.shift = nn.Linear(embedding, channels)
        self.dropout = nn.Dropout(dropout)
        self.second = nn.Conv2d(channels, channels, 3, padding=1)
        nn.init.zeros_(self.second.weight)
        nn.init.zeros_(self.second.bias)

    def forward(self, x: Tensor, embedding: Tensor) -> Tensor:
        h = self.first(F.silu(x)) + self.shift(embedding)[:, :, None, None]
        return x + self.second(self.dropout(F.silu(h)))


class PatchNet(nn.Module):
    """Images [B, C, H, W], levels t [B] -> a map [B, out, H, W] and a vector [B, vector] (None for `vector` = 0).

    With `classes`, a label [B] or None is taken too.
    Pixels are folded `patch`×`patch` into channels, `blocks` residual blocks of `width` channels follow, and the map is
    unfolded again. The vector is a linear layer on `hidden` SiLU units that see the whole folded map; the same units also
    add to the map, which lets distant pixels speak to each other. The map starts at zero, the vector small but not at zero. With
    `precise_first` the first layer computes in fp32 also under autocast.
    """

    def __init__(
        self,
        shape: tuple[int, int, int],
        *,
        out: int,
        vector: int,
        width: int = 64,
        blocks: int = 4,
        patch: int = 2,
        hidden: int = 256,
        dropout: float = 0.0,
        embedding: int = 128,
        classes: int = 0,
        precise_first: bool = False,
    ) -> None:
        super().__init__()
        channels, height, breadth = shape
        if height % patch or breadth % patch:
            raise ValueError(f"height and width must divide by the patch of {patch}, got {height}×{breadth}")
        self.shape, self.patch, self.embedding = (out, height, breadth), patch, embedding
        self.level = LevelEmbedding(embedding)
        self.label = LabelEmbedding(classes, embedding) if classes else None
        self.first = first_conv(channels * patch**2, width, precise=precise_first)
        self.blocks = nn.ModuleList(PatchBlock(width, embedding, dropout) for _ in range(blocks))
        self.map = nn.Conv2d(width, out * patch**2, 3, padding=1)
        self.whole = nn.Linear(width * (height // patch) * (breadth // patch), hidden)
        self.spread = nn.Linear(hidden, out * height * breadth)
        for layer in (self.map, self.spread):
            nn.init.zeros_(layer.weight)
            nn.init.zeros_(layer.bias)
        self.vector = nn.Linear(hidden, vector) if vector else None
        if vector:
            nn.init.normal_(self.vector.weight, std=0.02)

    def forward(self, x: Tensor, t: Tensor, label: Tensor | None = None) -> tuple[Tensor, Tensor | None]:
        embedding = self.level(t)
        if self.label is not None:
            embedding = embedding + self.label(label, len(x))
        embedding = F.silu(embedding)
        h = self.first(F.pixel_unshuffle(x, self.patch))
        for block in self.blocks:
            h = block(h, embedding)
        h = F.silu(h)
        whole = F.silu(self.whole(h.flatten(1)))
        fields = F.pixel_shuffle(self.map(h), self.patch) + self.spread(whole).view(-1, *self.shape)
        return fields, None if self.vector is None else self.vector(whole)


class VectorNet(nn.Module):
    """The same read-outs for vectors: [B, D], t [B] -> a map [B, out·D] and a vector [B, vector], from one MLP with levels."""

    def __init__(self, dim: int, *, out: int, vector: int, width: int = 128, depth: int = 3, classes: int = 0) -> None:
        super().__init__()
        self.net = MLP(dim, width=width, depth=depth, out=out * dim + vector, levels=True, classes=classes)
        self.split = (out * dim, vector)
        nn.init.normal_(self.net.last.weight, std=0.02)

    def forward(self, x: Tensor, t: Tensor, label: Tensor | None = None) -> tuple[Tensor, Tensor | None]:
        fields, vector = self.net(x, t, label).split(self.split, dim=1)
        return fields.view_as(x) if self.split[0] == x[0].numel() else fields, vector if self.split[1] else None
