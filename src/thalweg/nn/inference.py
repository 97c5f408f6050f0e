"""An inference network: convolutions shared by several heads (thesis, sec. 3.5.2.3), and the posteriors that heads stand for."""

from collections.abc import Mapping, Sequence

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from thalweg.nn.autoencoder import Residual

FIRST_LOG_VARIANCE = -4.0  # of Gaussian posteriors before training: wide ones would be escaped by means far from the prior
SHARPEST = 1000.0  # κ of an angle's posterior at most


class InferenceNetwork(nn.Module):
    """Images [B, C, H, W] -> a vector for each head, {name: [B, size]}.

    `latents` {name: dimension d} have heads [B, 2 d], means and log variances (`gaussian`); `angles` heads [B, 3] (`direction`). `widths`
    are the channels after each halving, with `blocks` residual blocks each: (64, 128, 256, 512) and (3, 4, 6, 3) are those of a
    ResNet-34, here without normalisation. The mean over the last map goes into heads of one hidden layer of `hidden`, together with
    `given` numbers [B, given] that are known of the image.
    """

    def __init__(
        self,
        channels: int,
        latents: Mapping[str, int],
        *,
        angles: Sequence[str] = (),
        widths: tuple[int, ...],
        blocks: tuple[int, ...],
        given: int = 0,
        hidden: int = 256,
    ) -> None:
        super().__init__()
        layers: list[nn.Module] = []
        for before, width, count in zip((channels, *widths), widths, blocks, strict=False):
            layers += [nn.Conv2d(before, width, 4, stride=2, padding=1), *(Residual(width) for _ in range(count)), nn.SiLU()]
        self.features = nn.Sequential(*layers)

        def head(size: int) -> nn.Sequential:
            return nn.Sequential(nn.Linear(widths[-1] + given, hidden), nn.SiLU(), nn.Linear(hidden, size))

        sizes = {name: 2 * size for name, size in latents.items()} | {name: 3 for name in angles}
        self.heads = nn.ModuleDict({name: head(size) for name, size in sizes.items()})
        for name, size in latents.items():
            nn.init.constant_(self.heads[name][-1].bias[size:], FIRST_LOG_VARIANCE)

    def forward(self, x: Tensor, given: Tensor | None = None) -> dict[str, Tensor]:
        h = self.features(x).mean((2, 3))
        h = h if given is None else torch.cat([h, given], 1)
        return {name: head(h) for name, head in self.heads.items()}


def gaussian(head: Tensor, xi: Tensor | None = None) -> tuple[Tensor, Tensor]:
    """The draw [B, d] by standard normal `xi` [B, d], the mean without, of a head [B, 2 d]; its KL divergence to N(0, I) [B] in nats."""
    mean, log_variance = head.chunk(2, 1)
    log_variance = log_variance.clamp(-10, 10)
    spread = 0.0 if xi is None else (0.5 * log_variance).exp() * xi
    return mean + spread, 0.5 * (mean.square() + log_variance.exp() - 1 - log_variance).sum(1)


def about(z: Tensor, means: Tensor, log_variance: Tensor, xi: Tensor) -> tuple[Tensor, Tensor]:
    """Draws of N(z, variance) [N, d] by standard normal `xi`, and the nats [N] by which a network learns its spread and its means.

    z, `log_variance` [N, d], `means` [N, V, d] named by V views: KL(N(z, variance) ‖ N(0, I)), and the mean over views of
    KL(N(z, variance) ‖ N(means, variance)), in which the variance is held.
    """
    draw, to_reference = gaussian(torch.cat([z, log_variance], 1), xi)
    named = 0.5 * ((z[:, None] - means).square() * (-log_variance.detach()).exp()[:, None]).sum(2).mean(1)
    return draw, to_reference + named


def direction(head: Tensor) -> tuple[Tensor, Tensor]:
    """Mean direction [B, 2] and concentration κ [B] of an angle's von Mises–Fisher posterior, of a head [B, 3]."""
    return F.normalize(head[:, :2], dim=1), F.softplus(head[:, 2]).clamp(max=SHARPEST)
