"""Running means by class, which no loss sees: what samples of a class begin at, without training on labels."""

from collections.abc import Callable

import torch
from torch import Tensor, nn
from torch.nn import functional as F


class ClassMeans(nn.Module):
    """The mean of each class's images and the mean of their latents over all of training (CLEL; LIEBM, sec. 4.3).

    Buffers `count` [classes], `images` [classes, *shape] and `latents` [classes, dim].
    """

    def __init__(self, classes: int, shape: tuple[int, ...], dim: int) -> None:
        super().__init__()
        self.register_buffer("count", torch.zeros(classes))
        self.register_buffer("images", torch.zeros(classes, *shape))
        self.register_buffer("latents", torch.zeros(classes, dim))

    @property
    def complete(self) -> bool:
        """Whether there are classes, and images of each have been seen."""
        return len(self.count) > 0 and bool(self.count.all())

    def has(self, labels: Tensor) -> bool:
        """Whether images of each of these labels have been seen."""
        return bool(self.count[labels].all())

    def of(self, labels: Tensor) -> tuple[Tensor, Tensor]:
        """The mean image [n, ...] and the normalised mean latent [n, dim] of each label [n]."""
        return self.images[labels], F.normalize(self.latents[labels], dim=1)

    @torch.no_grad()
    def add(self, images: Tensor, latents: Tensor, label: Tensor | None, mean: Callable[[Tensor], Tensor]) -> None:
        """Take images [B, ...] and latents [B, dim] into the means; nothing happens without one label [B] for each.

        `mean` averages over processes, as `update.mean`: all of them hold the same means.
        """
        classes = len(self.count)
        if label is None or label.dim() != 1 or not classes:
            return
        rows = F.one_hot(label, classes).to(latents).T
        new = mean(rows.sum(1))
        self.count += new
        for means, values in ((self.latents, latents), (self.images, images)):
            sums = mean(rows @ values.flatten(1).to(rows)).view(means.shape)
            given, count = (n.view(-1, *[1] * (means.dim() - 1)) for n in (new, self.count.clamp(min=1)))
            means += (sums - given * means) / count
