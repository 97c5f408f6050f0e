"""Data in the latent space of an autoencoder, for the methods that model it there."""

from collections.abc import Iterator
from typing import Protocol, final

import torch
from torch import Tensor

from ..errors import InputError
from ..progress import Work
from .base import Batch, Data
from .images import _epoch
from .record import fingerprint, origin

PART = 256  # images encoded at once


class Autoencoder(Protocol):
    """What turns images into latents and back: the method `autoencoder`, a wrapped `AutoencoderKL`, or one of your own.

    `latent_shape`: [C, h, w] of the latents of an image of the size that it was trained for. Latents are scaled to a standard
    deviation of about 1.
    """

    latent_shape: tuple[int, ...]

    def encode(self, x: Tensor) -> Tensor:
        """Images [B, C, H, W] in [−1, 1] -> latents [B, c, h, w]."""
        ...

    def decode(self, z: Tensor) -> Tensor:
        """Latents [B, c, h, w] -> images [B, C, H, W] in [−1, 1]."""
        ...


@final
class Latents:
    """The images of `data` as latents, encoded once, held as float32 in memory; the same order, labels and stream of batches.

    `data`: images with `all()`, so no stream. Each image is encoded as it is in the set: flips and jitter of `data` are left out.
    Latents are not clamped. `batch(start, count, seed)` holds the latents of what `data.batch` gives for the same arguments.
    `device`: where encoding runs; the latents lie on the CPU. Raises InputError for data without `all()`, for points, and for
    latents that are not finite.
    """

    def __init__(self, data: Data, autoencoder: Autoencoder, *, name: str | None = None, device: str | torch.device = "cpu"):
        if not hasattr(data, "all"):
            raise InputError(f"{data.name} is a stream: latents are encoded once and held, so load it without streaming")
        if len(data.shape) != 3:
            raise InputError(f"latents are of images [C, H, W], but {data.name} has examples of shape {list(data.shape)}")
        self.classes, self.concepts = tuple(data.classes), dict(getattr(data, "concepts", {}))
        self.name = name or f"latents of {data.name}"
        self.origin, self.fingerprint = origin(data), fingerprint(data)  # latents differ in their last digits from device to device
        latents, labels = [], []
        with Work(f"encoding {data.name}") as work:
            for images, label in _parts(data):
                with torch.no_grad():
                    z = autoencoder.encode(images.to(device)).float().cpu()
                if z.dim() != 4 or len(z) != len(images):
                    raise InputError(f"{self.name}: latents must be [{len(images)}, c, h, w], the encoder gives {list(z.shape)}")
                if not z.isfinite().all():
                    bad = int((~z.isfinite()).flatten(1).any(1).sum())
                    raise InputError(f"{self.name}: latents of {bad} of {len(images)} images hold NaN or infinity")
                latents.append(z.contiguous())
                labels.append(label)
                if hasattr(data, "__len__"):
                    work.note(min(1.0, len(latents) * PART / max(1, len(data))))
        self.x = torch.cat(latents)
        self.label = None if labels[0] is None else torch.cat(labels)
        self.shape = tuple(self.x.shape[1:])

    def __len__(self) -> int:
        return len(self.x)

    def __repr__(self) -> str:
        return f"Latents({self.name!r}, {len(self)} of {list(self.shape)}, {len(self.classes)} classes)"

    def batch(self, start: int, count: int, seed: int) -> Batch:
        """Examples number start … start+count−1 of the stream that `seed` defines: every epoch is a fresh permutation."""
        if start < 0 or count < 1:
            raise InputError(f"a batch needs start ≥ 0 and count ≥ 1, got start={start}, count={count}")
        first, last = start // len(self), (start + count - 1) // len(self)
        order = torch.cat([_epoch(len(self), seed, epoch)[0] for epoch in range(first, last + 1)])
        rows = order[start - first * len(self) :][:count]
        return Batch(self.x[rows], None if self.label is None else self.label[rows])

    def all(self) -> Batch:
        """Every example once, in the order of the set."""
        return Batch(self.x, self.label)


def _parts(data: Data) -> Iterator[Batch]:
    """All of `data` in its order, some at a time where it can be cut: as floats a set is four times its bytes."""
    if hasattr(data, "subset"):
        for rows in torch.arange(len(data)).split(PART):
            yield data.subset(rows).all()
        return
    x, label = data.all()
    for start in range(0, len(x), PART):
        yield Batch(x[start : start + PART], None if label is None else label[start : start + PART])
