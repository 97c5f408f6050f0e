"""An inference network: convolutions shared by several heads (thesis, sec. 3.5.2.3)."""

from collections.abc import Mapping

import torch
from torch import Tensor, nn

from thalweg.nn.autoencoder import Residual


class InferenceNetwork(nn.Module):
    """Images [B, C, H, W] -> a vector for each head, {name: [B, size]}; `heads` gives names and sizes.

    `widths` are the channels after each halving, with `blocks` residual blocks each: (64, 128, 256, 512) and (3, 4, 6, 3) are those of
    a ResNet-34, here without normalisation. The mean over the last map goes into heads of one hidden layer of `hidden`, together
    with `beside` numbers [B, beside] that are known of the image.
    """

    def __init__(
        self,
        channels: int,
        heads: Mapping[str, int],
        *,
        widths: tuple[int, ...],
        blocks: tuple[int, ...],
        beside: int = 0,
        hidden: int = 256,
    ) -> None:
        super().__init__()
        layers: list[nn.Module] = []
        for before, width, count in zip((channels, *widths), widths, blocks, strict=False):
            layers += [nn.Conv2d(before, width, 4, stride=2, padding=1), *(Residual(width) for _ in range(count)), nn.SiLU()]
        self.features = nn.Sequential(*layers)

        def head(size: int) -> nn.Module:
            return nn.Sequential(nn.Linear(widths[-1] + beside, hidden), nn.SiLU(), nn.Linear(hidden, size))

        self.heads = nn.ModuleDict({name: head(size) for name, size in heads.items()})

    def forward(self, x: Tensor, beside: Tensor | None = None) -> dict[str, Tensor]:
        h = self.features(x).mean((2, 3))
        h = h if beside is None else torch.cat([h, beside], 1)
        return {name: head(h) for name, head in self.heads.items()}
