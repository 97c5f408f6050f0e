"""The energy of images of diffusion recovery likelihood (Gao et al. 2021; thesis, sec. 5.4.8.1, Tables 5.6 and 5.7)."""

from functools import partial

from torch import Tensor, nn
from torch.nn import functional as F

from thalweg.nn.layers import LabelEmbedding, LevelEmbedding, first_conv, spectral

leaky = partial(F.leaky_relu, negative_slope=0.2)


class RecoveryBlock(nn.Module):
    """x + conv(leaky(conv(leaky(x)) + linear(leaky(level)))), 3×3 (Table 5.6a); a third 3×3 on x where the channels change.

    The second convolution is times a learned scale for each channel, which starts at zero, as in DRL's released code.
    """

    def __init__(self, channels: int, out: int, embedding: int, *, spectral_norm: bool) -> None:
        super().__init__()
        wrap = spectral if spectral_norm else (lambda layer: layer)
        self.first = wrap(nn.Conv2d(channels, out, 3, padding=1))
        self.shift = nn.Linear(embedding, out)
        self.second = wrap(nn.Conv2d(out, out, 3, padding=1))
        self.scale = nn.Parameter(self.second.bias.new_zeros(out, 1, 1))
        self.skip = wrap(nn.Conv2d(channels, out, 3, padding=1)) if channels != out else nn.Identity()

    def forward(self, x: Tensor, embedding: Tensor) -> Tensor:
        h = self.first(leaky(x)) + self.shift(embedding)[:, :, None, None]
        return self.skip(x) + self.scale * self.second(leaky(h))


class RecoveryEnergy(nn.Module):
    """Images [B, C, H, W], levels t [B] -> [B]. H and W divide by 2^(len(widths) − 1).

    A 3×3 convolution to `widths[0]`; `blocks` residual blocks at each resolution, with the level in each of them, and average pooling
    between resolutions; ReLU, the sum over pixels, and the inner product with a vector of the level. No normalisation. With `classes` a
    label [B] or None is taken too, whose embedding is added to the level's (sec. 5.4.8.1). `spectral_norm` bounds every convolution.
    """

    def __init__(
        self,
        shape: tuple[int, int, int],
        *,
        widths: tuple[int, ...] = (128, 256, 256, 256),
        blocks: int = 8,
        classes: int = 0,
        spectral_norm: bool = True,
        precise_first: bool = True,
    ) -> None:
        super().__init__()
        channels, height, breadth = shape
        factor = 2 ** (len(widths) - 1)
        if height % factor or breadth % factor:
            raise ValueError(f"{len(widths)} widths: height and width must divide by {factor}, got {height}×{breadth}")
        embedding = 4 * widths[0]
        first = first_conv(channels, widths[0], precise=precise_first)
        self.first = spectral(first) if spectral_norm else first
        self.level = LevelEmbedding(embedding, activation=nn.LeakyReLU(0.2))
        self.label = LabelEmbedding(classes, embedding) if classes else None
        self.stages = nn.ModuleList(
            nn.ModuleList(RecoveryBlock(before if i == 0 else width, width, embedding, spectral_norm=spectral_norm) for i in range(blocks))
            for before, width in zip((widths[0], *widths), widths)
        )
        self.last = nn.Linear(embedding, widths[-1])

    def forward(self, x: Tensor, t: Tensor, label: Tensor | None = None) -> Tensor:
        embedding = self.level(t)
        if self.label is not None:
            embedding = embedding + self.label(label, len(x))
        embedding = leaky(embedding)
        h = self.first(x)
        for i, stage in enumerate(self.stages):
            h = F.avg_pool2d(h, 2) if i else h
            for block in stage:
                h = block(h, embedding)
        # energies are added and compared in fp32 also under autocast
        return (F.relu(h).float().sum((2, 3)) * self.last(embedding).float()).sum(1)
