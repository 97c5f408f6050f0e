"""A residual encoder of images with a projection head, for self-supervised learning (ResNet-18's layout, group norm in its body)."""

import torch
from torch import Tensor, nn
from torch.nn import functional as F


class Block(nn.Module):
    """Two 3×3 convolutions with group norm, added to x, or to a 1×1 convolution of it where size or channels change (He et al. 2016)."""

    def __init__(self, channels: int, out: int, stride: int) -> None:
        super().__init__()
        self.first = nn.Conv2d(channels, out, 3, stride=stride, padding=1, bias=False)
        self.second = nn.Conv2d(out, out, 3, padding=1, bias=False)
        self.norms = nn.ModuleList(_norm(out) for _ in range(2))
        same = stride == 1 and channels == out
        self.skip = nn.Identity() if same else nn.Conv2d(channels, out, 1, stride=stride)

    def forward(self, x: Tensor) -> Tensor:
        h = F.silu(self.norms[0](self.first(x)))
        return F.silu(self.norms[1](self.second(h)) + self.skip(x))


def _norm(channels: int) -> nn.Module:
    return nn.GroupNorm(8 if channels % 8 == 0 else 1, channels)


class ResNetEncoder(nn.Module):
    """Images [B, channels, H, W] -> vectors: `features` [B, widths[-1]], and from those by a head of two layers [B, dim].

    Pixels are folded `patch`×`patch` into channels. `blocks` residual blocks at each of `widths`, halving the resolution from one to the
    next, then the mean over pixels. SiLU, so that
    chains may follow its gradient. The body has group norm, the head batch norm as in BYOL and W-MSE: in evaluation mode an
    image's vector is a function of the image.
    """

    def __init__(
        self,
        shape: tuple[int, int, int],
        *,
        widths: tuple[int, ...] = (32, 64, 128),
        blocks: int = 1,
        patch: int = 1,
        head: int = 256,
        dim: int = 64,
    ) -> None:
        super().__init__()
        channels, height, breadth = shape
        if height % patch or breadth % patch:
            raise ValueError(f"patch = {patch}: height and width must divide by it, got {height}×{breadth}")
        self.patch = patch
        first = nn.Conv2d(channels * patch**2, widths[0], 3, padding=1, bias=False)
        layers: list[nn.Module] = [first, _norm(widths[0]), nn.SiLU()]
        last = widths[0]
        for stage, width in enumerate(widths):
            for block in range(blocks):
                layers.append(Block(last, width, 2 if stage and not block else 1))
                last = width
        self.body = nn.Sequential(*layers)
        self.head = projection_head(last, head, dim, norm=True)

    def features(self, x: Tensor) -> Tensor:
        """What probes read, before the head: [B, C, H, W] -> [B, widths[-1]]."""
        h = self.body(F.pixel_unshuffle(x, self.patch) if self.patch > 1 else x).mean((2, 3))
        return h.to(torch.promote_types(h.dtype, torch.float32))

    def forward(self, x: Tensor) -> Tensor:
        z = self.head(self.features(x))
        return z.to(torch.promote_types(z.dtype, torch.float32))


def projection_head(dim: int, width: int, out: int, *, norm: bool = False) -> nn.Sequential:
    """[B, dim] -> [B, out]: two linear layers around SiLU, with batch norm before it if `norm`."""
    return nn.Sequential(nn.Linear(dim, width), nn.BatchNorm1d(width) if norm else nn.Identity(), nn.SiLU(), nn.Linear(width, out))
