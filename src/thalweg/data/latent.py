"""Data in the latent space of an autoencoder, for the methods that model it there."""

import copy
import hashlib
import math
import os
from collections.abc import Callable, Iterator
from functools import lru_cache
from pathlib import Path
from typing import Any, Protocol, final

import torch
from torch import Tensor
from torch.nn.functional import interpolate

from ..errors import InputError
from ..progress import Work
from ..random import seeded
from .base import Batch, Data
from .images import _epoch
from .record import fingerprint, origin
from .shards import Shards

PART, NUMBERS = 256, 2**22  # images encoded at once, at most so many, and so many numbers in them
WINDOW = 7 / 8  # of both sides, that a cropped view shows


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
    """The images of `data` as latents, encoded once; the same order, labels and stream of batches.

    `data`: images with `all()` or `subset()`. Flips and jitter of `data` are left out; `views` of each image are encoded instead, of
    which a batch holds one at random: the image, its mirror image, then windows of 7/8 of both sides at random places, brought back
    to size, every second one mirrored. Latents are not clamped. With one view `batch(start, count, seed)` holds the latents of what
    `data.batch` gives for the same arguments. `device`: where encoding runs; the latents lie on the CPU, float32, in memory or, where
    they are given as `stored` (see `encode_share`), on the disk. Raises InputError for streams without end, for points, and for latents
    that are not finite.
    """

    cuts = True

    def __init__(
        self,
        data: Data,
        autoencoder: Autoencoder,
        *,
        name: str | None = None,
        views: int = 1,
        device: str | torch.device = "cpu",
        stored: Shards | None = None,
    ):
        count, label, encoded = _encoder(data, autoencoder, views, device)
        self.classes, self.concepts = tuple(data.classes), dict(getattr(data, "concepts", {}))
        self.name = name or f"latents of {data.name}"
        self.origin, self.options = origin(data), dict(getattr(data, "options", {}))
        self.fingerprint = fingerprint(data)  # latents differ in their last digits from device to device
        self.label, self.views, self.count = label, views, count
        self.read = f" --latent-views {views}" if views > 1 else ""
        if stored is None:
            with Work(f"encoding {data.name}") as work:
                stored_parts = []
                for done, part in encoded(0, views * count):
                    stored_parts.append(part)
                    work.note(done / (views * count))
        self.x: Any = torch.cat(stored_parts) if stored is None else stored
        self.shape = tuple(self.x.shape[1:])

    def __len__(self) -> int:
        return self.count

    def __repr__(self) -> str:
        return f"Latents({self.name!r}, {len(self)} of {list(self.shape)}, {len(self.classes)} classes)"

    def batch(self, start: int, count: int, seed: int) -> Batch:
        """Examples number start … start+count−1 of the stream that `seed` defines: every epoch is a fresh permutation."""
        if start < 0 or count < 1:
            raise InputError(f"a batch needs start ≥ 0 and count ≥ 1, got start={start}, count={count}")
        first, last = start // len(self), (start + count - 1) // len(self)
        places = slice(start - first * len(self), start - first * len(self) + count)
        rows = torch.cat([_epoch(len(self), seed, epoch)[0] for epoch in range(first, last + 1)])[places]
        view = torch.cat([_views(len(self), self.views, seed, epoch) for epoch in range(first, last + 1)])[places]
        return Batch(self.x[view * len(self) + rows], None if self.label is None else self.label[rows])

    def subset(self, index: Tensor) -> "Latents":
        """The examples at the integers `index` [n], each as its first view, in memory."""
        found = copy.copy(self)
        found.x, found.label, found.count, found.views = self.x[index], None if self.label is None else self.label[index], len(index), 1
        return found

    def all(self) -> Batch:
        """Every example once, in the order of the set, as its first view and in memory."""
        return Batch(self.x[torch.arange(len(self))], self.label)


@lru_cache(maxsize=4)
def _views(count: int, views: int, seed: int, epoch: int) -> Tensor:
    """Which view [count] stands at each position of an epoch."""
    return torch.randint(views, (count,), generator=seeded(seed, epoch, 1))


def latents_folder() -> Path:
    """Where latents are kept: $THALWEG_LATENTS, else `latents` in $THALWEG_CACHE or ~/.cache/thalweg."""
    home = os.environ.get("THALWEG_LATENTS")
    return Path(home or Path(os.environ.get("THALWEG_CACHE") or Path.home() / ".cache" / "thalweg") / "latents").expanduser()


def encode_share(
    data: Data,
    autoencoder: Any,
    folder: str | Path | None = None,
    *,
    views: int = 1,
    device: str | torch.device = "cpu",
    rank: int = 0,
    size: int = 1,
) -> Shards:
    """Encode this process's share of `data`, shards `rank`, `rank` + `size`, …, as far as they are not there; returns all, unopened.

    They lie in a folder of `folder`, `latents_folder()` by default, whose name ends in a fingerprint of the autoencoder's weights, the
    data, their size and the number of views. `autoencoder`: a module. When every process has returned, the shards can be opened. Raises
    InputError as `Latents` does, and where the folder cannot be written.
    """
    count, _, encoded = _encoder(data, autoencoder, views, device)
    digest = hashlib.sha256(f"1 {fingerprint(data)} {list(data.shape)} {views}".encode())
    for name, value in sorted([*autoencoder.named_parameters(), *autoencoder.named_buffers()]):
        digest.update(f"{name} {value.dtype}{list(value.shape)}".encode())
        digest.update(value.detach().cpu().double().numpy().tobytes())
    plain = "".join(a if a.isalnum() else "-" for a in data.name).strip("-")
    shape = tuple(next(encoded(0, 1))[1].shape[1:])
    shards = Shards(Path(folder or latents_folder()) / f"{plain}-{digest.hexdigest()[:16]}", views * count, shape)
    mine = [number for number in range(rank, shards.count, size) if not shards.is_whole(number)]
    with Work(f"encoding {data.name}", shown=rank == 0) as work:
        for place, number in enumerate(mine):
            begin, end = shards.span(number)
            parts = []
            for done, part in encoded(begin, end):
                parts.append(part)
                work.note((place + (done - begin) / (end - begin)) / len(mine))
            shards.write(number, torch.cat(parts))
    return shards


Encoded = Callable[[int, int], Iterator[tuple[int, Tensor]]]


def _encoder(data: Any, autoencoder: Autoencoder, views: int, device: str | torch.device) -> tuple[int, Tensor | None, Encoded]:
    """How many images, their labels, and what encodes rows begin … end−1 of all views, one view of all images after the other: parts [n, c,
    h, w], each with the row that it ends before."""
    if not hasattr(data, "all") and not hasattr(data, "subset"):
        raise InputError(f"{data.name} is a stream without end: latents are of a set, each image of which is encoded once")
    if len(data.shape) != 3:
        raise InputError(f"latents are of images [C, H, W], but {data.name} has examples of shape {list(data.shape)}")
    if views < 1:
        raise InputError(f"of each image one view is encoded at least, got {views}")
    if hasattr(data, "subset"):  # read some at a time: as floats a set is four times its bytes
        count, label, read = len(data), data.label, lambda rows: data.subset(rows).all().x
    else:
        x, label = data.all()
        count, read = len(x), lambda rows: x[rows]
    at_once = max(1, min(PART, NUMBERS // math.prod(data.shape)))

    def encoded(begin: int, end: int) -> Iterator[tuple[int, Tensor]]:
        for part in torch.arange(begin, end).split(at_once):
            images = _seen(read(part % count), part % count, part // count)
            with torch.no_grad():
                z = autoencoder.encode(images.to(device)).float().cpu()
            if z.dim() != 4 or len(z) != len(images):
                raise InputError(f"latents of {data.name}: latents must be [{len(images)}, c, h, w], the encoder gives {list(z.shape)}")
            if not z.isfinite().all():
                bad = int((~z.isfinite()).flatten(1).any(1).sum())
                raise InputError(f"latents of {data.name}: latents of {bad} of {len(images)} images hold NaN or infinity")
            yield int(part[-1]) + 1, z.contiguous()

    return count, label, encoded


def _seen(x: Tensor, rows: Tensor, view: Tensor) -> Tensor:
    """Each of the images x [n, C, H, W] as one of its views [n]; what is random is drawn by (view, row)."""
    if not view.any():
        return x
    x = torch.where((view == 1)[:, None, None, None], x.flip(3), x)
    sides = [max(1, round(WINDOW * side)) for side in x.shape[2:]]
    for i in (view > 1).nonzero().flatten().tolist():
        generator = seeded(int(view[i]), int(rows[i]), 6)
        top, left = (int(torch.randint(whole - side + 1, (), generator=generator)) for whole, side in zip(x.shape[2:], sides))
        window = x[i : i + 1, :, top : top + sides[0], left : left + sides[1]]
        window = interpolate(window, size=x.shape[2:], mode="bilinear", antialias=True).clamp(-1, 1)
        x[i] = (window.flip(3) if view[i] % 2 else window)[0]
    return x
